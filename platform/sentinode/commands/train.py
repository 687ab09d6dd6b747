"""``sentinode train``: a data set becomes a run with the weights of its best epoch."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from pydantic import Field

from sentinode.data.audit import refuse_leaks
from sentinode.data.manifest import load_manifest
from sentinode.distributed.cluster import ray_session, starts_here
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.trainer import TrainResult, check_run, train
from sentinode.experiment import Experiment
from sentinode.logs import ProgressCallback, progress_bars
from sentinode.models.families import build_model
from sentinode.recipes import RECIPES, recipe
from sentinode.storage import StoreUrl, open_store
from sentinode.tracking import check_tracking
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.metrics import EpochRecord, ProgressRecord
from sentinode.training.pointer import read_pointer

RECIPE_HELP = (
    f"What to train: {', '.join(RECIPES)}. Its settings are the defaults of the flags below, and its network decides "
    "which --model flags there are: --recipe NAME --help shows them."
)
TRAIN_SHARE = 0.9
"""Of an epoch's time, the rest being validation: a guess until one has been measured."""
SLOW_RATIO = 1.3
"""From here on a rank is said to fall behind."""

log = logging.getLogger(__name__)


class TrainCommand(Recipe):
    """Train a recipe on a data set. A killed run resumes when the same command is given again."""

    data: StoreUrl
    """URL of the data set's manifest, or of the folder that holds it."""
    run: StoreUrl
    """Where the run is kept: s3://bucket/prefix or a folder."""
    recipe: str = Field(default="seed-cnn", description=RECIPE_HELP)
    scaling: ScalingSettings = ScalingSettings()
    """Processes and what they run on."""
    allow_leaks: bool = False
    """Train even where patches, slides or patients stand in more than one split."""
    ray_address: str | None = None
    """Cluster to join; by default RAY_ADDRESS, else a local Ray is started."""

    def experiment(self) -> Experiment:
        """What is trained, without where it is computed."""
        chosen = Recipe.model_validate({name: getattr(self, name) for name in Recipe.model_fields})
        return Experiment.of(chosen, self.data, self.run)


FLAGS = TrainCommand


def defaults(arguments: Sequence[str]) -> tuple[TrainCommand, list[str]]:
    """The chosen recipe's settings as defaults of the other flags."""
    chooser = argparse.ArgumentParser("sentinode train", add_help=False, allow_abbrev=False)
    # Without a value it is told with the other flags.
    chooser.add_argument("--recipe", nargs="?", default="seed-cnn", const="seed-cnn")
    name = chooser.parse_known_args(list(arguments))[0].recipe
    base = recipe(name)
    values = {field: getattr(base, field) for field in Recipe.model_fields}
    return TrainCommand.model_construct(
        **values, recipe=name, scaling=ScalingSettings(), allow_leaks=False, ray_address=None
    ), list(arguments)


def run(config: TrainCommand) -> int:
    """Train to the end and say what came of it."""
    experiment = config.experiment()
    log.info("W&B: %s", check_tracking())
    # What is wrong with data, network or weights is told before Ray is started.
    if config.allow_leaks:
        load_manifest(experiment.data)
    else:
        refuse_leaks(experiment.data)
    result = check_run(experiment, config.scaling)
    if result is not None:
        log.info("this run has finished before; to train anew, choose another run URL")
    else:
        if starts_here(config.ray_address):
            # Elsewhere weights need to be where the workers are, not here; a run that is gone on with has its own.
            begun = read_pointer(open_store(experiment.run)) is not None
            build_model(experiment.model, pretrained=not begun)
        if experiment.train.compile:
            log.info("the network is compiled at the first step, in silence: of a large one it takes minutes")
        with ray_session(config.ray_address, config.scaling.num_cpus), progress_bars() as progress:
            told = TrainingTold(experiment.train.epochs, progress)
            result = train(experiment, config.scaling, told)
    for line in describe(result, experiment.train):
        log.info("%s", line)
    return 0


class TrainingTold:
    """Tells of a run: one bar over all epochs with the latest figures below it, one line of figures an epoch."""

    def __init__(self, epochs: int, progress: ProgressCallback) -> None:
        self._epochs = epochs
        self._progress = progress
        self._train_share = TRAIN_SHARE
        progress("train", 0, epochs, "starting the workers")

    def epoch(self, record: EpochRecord) -> None:
        if record.train_s + record.valid_s > 0:
            self._train_share = record.train_s / (record.train_s + record.valid_s)
        log.info(
            "epoch %d of %d: loss %.4f, valid %.4f, AUROC %.4f, %.0f patches/s, waiting %.0f %%",
            record.epoch,
            self._epochs,
            record.train_loss,
            record.valid_loss,
            record.valid_auroc,
            record.patches_per_s,
            100 * record.wait_fraction,
        )
        if record.slowest_ratio > SLOW_RATIO:
            log.warning(
                "rank %d falls behind: its own work takes %.1f times the mean of all ranks",
                record.slowest_rank,
                record.slowest_ratio,
            )
        self._progress(
            "train",
            record.epoch,
            self._epochs,
            f"epoch {record.epoch} done, AUROC {record.valid_auroc:.3f}, {record.patches_per_s:.0f} patches/s",
        )

    def progress(self, record: ProgressRecord) -> None:
        auroc = "" if record.valid_auroc is None else f", AUROC {record.valid_auroc:.3f}"
        validating = "validating after " if record.step == record.steps else ""
        self._progress(
            "train",
            record.epoch - 1 + self._train_share * record.step / record.steps,
            self._epochs,
            f"{validating}step {record.step} of {record.steps}, loss {record.loss:.3f}{auroc}, "
            f"{record.patches_per_s:.0f} patches/s, waiting {100 * record.wait_fraction:.0f} %, "
            f"{record.world_size} workers",
        )


def describe(result: TrainResult, config: TrainConfig) -> list[str]:
    """The result in a few plain lines, and what comes next."""
    best = result.best
    by = "" if config.best_by == "auroc" else f" by {config.best_by}"
    lines = [f"best of {result.epochs} epochs{by}: number {best.epoch}, valid AUROC {best.valid_auroc:.4f}"]
    if best.valid_specificity is not None:
        lines[0] += f", specificity {best.valid_specificity:.3f} at 99 % sensitivity"
    if result.epochs < config.epochs:
        lines.append(f"ended early: {config.early_stop_patience} epochs without a better one")
    lines.append(f"{result.patches_per_s:.0f} patches/s; the run is kept at {result.run}")
    lines.append(f"next: sentinode evaluate --run {result.run}")
    return lines
