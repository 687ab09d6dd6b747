"""One data-parallel rank: what runs in each worker process that Ray Train starts."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ray import train as ray_train
from ray.train.torch import get_device

from sentinode.data.loader import LoaderConfig
from sentinode.data.manifest import load_manifest
from sentinode.errors import ConfigError, ManifestError, SentinodeError, StoreError, TrainingError
from sentinode.experiment import Experiment
from sentinode.storage import open_store
from sentinode.tracking import Tracker
from sentinode.training.feeds import open_feeds
from sentinode.training.loop import RankContext, run_training
from sentinode.training.metrics import EpochRecord

log = logging.getLogger(__name__)


def train_rank(experiment: Experiment, threads: int, loader: LoaderConfig) -> SentinodeError | None:
    """Train this process's rank to the end, on ``threads`` computing threads.

    An error that every rank meets alike is returned: raised, it would only be repeated by Ray's restarts.
    """
    torch.set_num_threads(threads)  # Ray sets OMP_NUM_THREADS to 1
    place, device = ray_train.get_context(), get_device()
    rank, world_size = place.get_world_rank(), place.get_world_size()
    with _tracked(experiment, rank) as tracker:

        def report(record: EpochRecord) -> None:
            figures = {name: float(value) for name, value in record.model_dump().items()}
            if tracker is not None:
                tracker.log(figures, record.epoch)
            ray_train.report(figures)

        context = RankContext(rank, world_size, device, report)
        try:
            manifest, data = load_manifest(experiment.data)
            with open_feeds(
                experiment, manifest, data, rank=rank, world_size=world_size, device=device, loader=loader
            ) as feeds:
                run_training(experiment, feeds, open_store(experiment.run), context)
        except (ConfigError, ManifestError, TrainingError) as error:
            return error
    return None


@contextmanager
def _tracked(experiment: Experiment, rank: int) -> Iterator[Tracker | None]:
    """W&B on rank 0. What it leaves on disk (offline runs) is kept with the run, below ``wandb/``."""
    if rank != 0:
        yield None
        return
    run_id = hashlib.sha256(experiment.run.encode()).hexdigest()[:16]  # a resumed run goes on in its W&B run
    with tempfile.TemporaryDirectory(prefix="sentinode-wandb-") as name:
        tracker = Tracker(experiment.name, run_id, experiment.model_dump(mode="json"), Path(name))
        try:
            yield tracker
        finally:
            tracker.finish()
            _keep(Path(name), experiment.run)


def _keep(folder: Path, run: str) -> None:
    store = open_store(run)
    try:
        for path in folder.rglob("*.wandb"):
            store.upload(path, path.relative_to(folder).as_posix())
    except StoreError as error:
        log.warning("the offline W&B run is lost: %s", error)
