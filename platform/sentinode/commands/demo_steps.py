"""The steps of the demo, each timed, and the closing table."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from sentinode.commands import evaluate as evaluate_step
from sentinode.commands.evaluate import SUBMISSION, EvaluateCommand, Evaluated, figure
from sentinode.commands.evaluate_keep import CHECKLISTS, MODEL_CARD, REPORT_HTML, REPORT_JSON
from sentinode.commands.ingest import describe as describe_data
from sentinode.commands.promote import PromoteCommand, promote
from sentinode.commands.train import TrainingTold
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.verify import verify_manifest
from sentinode.data.manifest import Manifest
from sentinode.data.pixels import read_pixels
from sentinode.data.synthetic import SyntheticConfig
from sentinode.distributed.ingest import ingest
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.trainer import TrainResult, train
from sentinode.errors import IntegrityError, SentinodeError
from sentinode.experiment import Experiment
from sentinode.logs import ProgressCallback
from sentinode.recipes import seed_cnn
from sentinode.schema import RESEARCH_USE_ONLY, Split
from sentinode.serving.args import ServeArgs
from sentinode.serving.client import Client
from sentinode.serving.local import LocalEndpoint
from sentinode.storage import open_store

log = logging.getLogger(__name__)

TRAINED_PATCHES = 120_000
"""Patches that training sees by default, over all epochs: under two minutes on two cores."""
MAX_EPOCHS = 20
MIN_STEPS = 128
"""Steps of an epoch that small sets get by smaller batches: with fewer the network is not done in MAX_EPOCHS."""
MIN_BATCH = 16
SLIDES = 60
VALID_FRACTION, TEST_FRACTION = 0.15, 0.2
"""Enough slides on both sides that the demo's figures do not hang on two or three of them."""
SERVED_TOLERANCE = 1e-5
"""Largest difference between a served probability and the offline one."""


@dataclass(frozen=True)
class StepTime:
    """One row of the closing table."""

    name: str
    seconds: float
    patches: int
    left: str
    """The artefact, and where it lies."""


@dataclass
class Demo:
    """The demo's settings, and what its steps have left so far."""

    source: str
    patches: int
    epochs: int | None
    workers: int
    requests: int
    on_conflict: Literal["error", "drop"]
    max_bad: int
    url: str
    out: Path
    progress: ProgressCallback
    times: list[StepTime] = field(default_factory=list)
    found: Evaluated | None = None
    training: TrainResult | None = None

    @property
    def report_path(self) -> Path:
        """The HTML report on disk."""
        return self.out / REPORT_HTML

    def run(self) -> None:
        """All steps in order; each logs what it did."""
        manifest = self._ingest()
        self._verify(manifest)
        experiment = self._train(manifest)
        self._evaluate(experiment)
        digest = self._promote(experiment)
        self._serve(digest)
        self._keep()

    def print_table(self) -> None:
        """The closing table: figures, patches/s of each step, and where each artefact lies."""
        console = Console(soft_wrap=True)
        console.print(self._figures())
        console.print(self._steps())
        console.print(f"report: {self.report_path}\n{RESEARCH_USE_ONLY}", highlight=False)

    def _ingest(self) -> Manifest:
        config = IngestConfig(
            source=self.source,
            out=f"{self.url}/data",
            valid_fraction=VALID_FRACTION,
            test_fraction=TEST_FRACTION,
            synthetic=SyntheticConfig(patches=self.patches, slides=SLIDES),
            on_conflict=self.on_conflict,
            max_bad=self.max_bad,
        )
        with self._timed("ingest", f"{self.url}/data") as step:
            manifest = ingest(config, self.progress)
            step.patches = sum(part.samples for part in manifest.splits.values())
        for line in describe_data(manifest):
            log.info("%s", line)
        return manifest

    def _verify(self, manifest: Manifest) -> None:
        with self._timed("verify", "no fault") as step:
            faults = verify_manifest(f"{self.url}/data", self.progress)
            step.patches = sum(shard.samples for shard in manifest.shards)
        if faults:
            raise IntegrityError(f"{len(faults)} faults in what was just written; the first: {faults[0]}")

    def _train(self, manifest: Manifest) -> Experiment:
        samples = manifest.splits[Split.TRAIN].samples
        recipe = seed_cnn()
        epochs = self.epochs or max(2, min(MAX_EPOCHS, TRAINED_PATCHES // samples))
        batch = min(recipe.train.batch_size, max(MIN_BATCH, samples // MIN_STEPS))
        even = -(-batch // self.workers) * self.workers
        settings = recipe.train.model_copy(update={"epochs": epochs, "batch_size": even})
        experiment = Experiment.of(
            recipe.model_copy(update={"train": settings}), f"{self.url}/data", f"{self.url}/runs/demo"
        )
        with self._timed("train", experiment.run) as step:
            scaling = ScalingSettings(num_workers=self.workers)
            self.training = train(experiment, scaling, TrainingTold(epochs, self.progress))
            step.patches = samples * epochs
        best = self.training.best
        log.info("best epoch %d of %d, valid AUROC %.4f", best.epoch, epochs, best.valid_auroc)
        return experiment

    def _evaluate(self, experiment: Experiment) -> None:
        with self._timed("evaluate", f"{experiment.run}/report.html") as step:
            self.found = evaluate_step.evaluate_run(EvaluateCommand(run=experiment.run), self.progress)
            step.patches = sum(len(columns) for columns in self.found.predictions.values())
        for line in evaluate_step.describe(self.found.report):
            log.info("%s", line)

    def _promote(self, experiment: Experiment) -> str:
        with self._timed("seal", f"{self.url}/bundles") as step:
            # Whatever was trained on whatever folder is to be seen served; gates that fail are told.
            digest = promote(
                PromoteCommand(
                    run=experiment.run, registry=self.url, force="a demo, which serves what it trained"
                )
            )
            step.left = f"{self.url}/bundles/{digest}"
        log.info("sealed bundle %s; alias candidate names it", digest[:12])
        return digest

    def _serve(self, digest: str) -> None:
        """Send test patches as PNG over HTTP and hold each answer against the offline probability."""
        assert self.found is not None
        split = Split(self.found.report.headline.split)
        offline = self.found.predictions[split]
        rows = np.arange(len(offline))[: self.requests]
        pixels = read_pixels(self.found.manifest, self.found.data, split, rows)
        bodies = [_png(patch) for patch in pixels]
        with LocalEndpoint(ServeArgs(registry=self.url, bundle=digest)) as endpoint:
            log.info("bundle %s answers at %s/v1/predict", digest[:12], endpoint.url)
            with (
                self._timed("serve", f"{endpoint.url}/v1/predict (stopped)") as step,
                Client(endpoint.url) as client,
            ):
                answers = []
                for answer in client.predict_many(bodies):
                    answers.append(answer)
                    self.progress("serve", len(answers), len(bodies))
                step.patches = len(answers)
        judged = [
            (row, answer) for row, answer in zip(rows, answers, strict=True) if answer.probability is not None
        ]
        differences = [abs(answer.probability - offline.probabilities[row]) for row, answer in judged]
        worst = float(max(differences, default=0.0))
        if worst > SERVED_TOLERANCE:
            raise SentinodeError(
                f"a served probability differs by {worst:.2g} from the offline one",
                f"at most {SERVED_TOLERANCE:g}",
            )
        log.info(
            "served %d verdicts at point %s, equal to the offline ones to %.1g; %d patches were flagged and not judged",
            len(judged), answers[0].operating_point, worst, len(answers) - len(judged),
        )  # fmt: skip

    def _keep(self) -> None:
        """The embedded store forgets everything when it stops: copy all but the shards to ``out``."""
        assert self.found is not None
        rows = [
            {"Step": t.name, "Seconds": f"{t.seconds:.1f}", "Patches/s": _rate(t), "Left": t.left}
            for t in self.times
        ]
        evaluate_step.keep_report(self.found, rows)
        store = open_store(self.url)
        for info in store.list():
            if not info.key.startswith("data/shards/"):
                store.download(info.key, self.out / info.key)
        texts = (MODEL_CARD, CHECKLISTS, SUBMISSION)
        for name in (REPORT_HTML, REPORT_JSON, *texts):
            kept = self.out / "runs" / "demo" / name
            if kept.is_file():
                (self.out / name).write_bytes(kept.read_bytes())

    @contextmanager
    def _timed(self, name: str, left: str) -> Iterator[_Measured]:
        log.info("%s ...", name)
        measured, start = _Measured(left=left), time.perf_counter()
        yield measured
        self.times.append(StepTime(name, time.perf_counter() - start, measured.patches, measured.left))

    def _figures(self) -> Table:
        assert self.found is not None
        report = self.found.report
        point = report.verdict_point
        table = Table(title=f"{report.headline.patches} patches of the {report.headline.split} split")
        for column in ("measure", f"value ({report.config.level:.0%} interval)"):
            table.add_column(column)
        table.add_row("AUROC", figure(report.headline, "auroc"))
        for name in report.headline.points:
            threshold = next(p.threshold for p in report.operating_points if p.name == name)
            chosen = " *" if name == point.name else ""
            for measure in ("sensitivity", "specificity"):
                what = f"{measure} at {name}{chosen} (threshold {threshold:.3f})"
                table.add_row(what, figure(report.headline, measure, name))
        table.caption = "* the operating point of verdicts; thresholds were chosen on valid"
        return table

    def _steps(self) -> Table:
        table = Table(title="steps")
        for column in ("step", "seconds", "patches/s", "what it left"):
            table.add_column(column, overflow="fold")
        for t in self.times:
            table.add_row(t.name, f"{t.seconds:.1f}", _rate(t), t.left)
        table.caption = f"copies of all but the shards: {self.out}"
        return table


@dataclass
class _Measured:
    left: str
    patches: int = 0


def _rate(step: StepTime) -> str:
    return f"{step.patches / step.seconds:,.0f}" if step.patches else "-"


def _png(pixels_HWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG")
    return file.getvalue()
