"""One data-parallel rank: what runs in each worker process that Ray Train starts."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import torch
from ray import train as ray_train
from ray.train.torch import get_device

from sentinode.data.loader import LoaderConfig
from sentinode.data.manifest import load_manifest
from sentinode.distributed.tracked import tracked_run
from sentinode.errors import ConfigError, ManifestError, SentinodeError, TrainingError
from sentinode.experiment import Experiment
from sentinode.storage import open_store
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
    try:
        manifest, data = load_manifest(experiment.data)
        tracking = tracked_run(experiment, manifest, data) if rank == 0 else nullcontext()
        with (
            tracking as tracked,
            open_feeds(
                experiment, manifest, data, rank=rank, world_size=world_size, device=device, loader=loader
            ) as feeds,
        ):

            def report(record: EpochRecord) -> None:
                if tracked is not None:
                    tracked.epoch(record)
                ray_train.report({name: float(value) for name, value in record.model_dump().items()})

            store = open_store(experiment.run)
            context = RankContext(
                rank, world_size, device, report, _taken_away, None if tracked is None else tracked.best
            )
            state = run_training(experiment, feeds, store, context)
            if tracked is not None and state.best is not None:
                tracked.finished(store, state.best)
    except (ConfigError, ManifestError, TrainingError) as error:
        return error
    return None


def _taken_away() -> bool:
    """Whether a node of this run is to be preempted or drained soon. All ranks have to ask alike."""
    notice = ray_train.get_preemption_info()
    if notice is not None:
        log.info("a node is about to be taken away: saving the state")
    return notice is not None
