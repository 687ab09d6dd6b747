"""One data-parallel rank: what runs in each worker process that Ray Train starts, and in a trial of one worker."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

import torch
from ray import train as ray_train
from ray.train.torch import get_device

from sentinode.data.loader import LoaderConfig
from sentinode.data.manifest import load_manifest
from sentinode.distributed.tracked import Tracked, tracked_run
from sentinode.errors import SentinodeError, TrainingError
from sentinode.experiment import Experiment
from sentinode.search.records import SearchPart
from sentinode.storage import open_store
from sentinode.training.context import EndedEarly
from sentinode.training.failure import FINAL, told_to_all
from sentinode.training.feeds import open_feeds
from sentinode.training.loop import RankContext, run_training
from sentinode.training.metrics import EpochRecord

log = logging.getLogger(__name__)


def train_rank(
    experiment: Experiment, driver: str, threads: int, loader: LoaderConfig, part: SearchPart | None
) -> SentinodeError | None:
    """Train this process's rank to the end for ``driver``, on ``threads`` computing threads.

    A final error that every rank knows is returned: raised, it would only be repeated by Ray's restarts. What this rank
    meets alone has to be raised, for Ray waits until all have returned.
    """
    place = ray_train.get_context()

    def report(record: EpochRecord) -> None:
        ray_train.report({name: float(value) for name, value in record.model_dump().items()})

    context = RankContext(
        place.get_world_rank(), place.get_world_size(), get_device(), report, _taken_away, driver=driver
    )
    try:
        train_here(experiment, threads, loader, context, part)
    except FINAL as error:
        # In training, a TrainingError is always of all ranks.
        if error.everywhere or isinstance(error, TrainingError) or context.world_size == 1:
            return error
        raise
    return None


def train_here(
    experiment: Experiment,
    threads: int,
    loader: LoaderConfig,
    context: RankContext,
    part: SearchPart | None = None,
) -> bool:
    """Train the begun run of ``experiment`` in this process, as the rank of ``context``; rank 0 tracks it.

    False where ``context.report`` ended it early. Raises what run_training raises.
    """
    torch.set_num_threads(threads)  # Ray sets OMP_NUM_THREADS to 1
    store = open_store(experiment.run)
    with ExitStack() as opened:
        with told_to_all(context.world_size):
            manifest, data = load_manifest(experiment.data)
            tracked: Tracked | None = None
            if context.rank == 0:
                tracked = opened.enter_context(tracked_run(experiment, manifest, data, part))
            feeds = opened.enter_context(
                open_feeds(
                    experiment,
                    manifest,
                    data,
                    rank=context.rank,
                    world_size=context.world_size,
                    device=context.device,
                    loader=loader,
                )
            )

        def report(record: EpochRecord) -> None:
            if tracked is not None:
                tracked.epoch(record)
            if context.report is not None:
                context.report(record)

        on_best = None if tracked is None else tracked.best
        try:
            state = run_training(experiment, feeds, store, replace(context, report=report, on_best=on_best))
        except EndedEarly:
            return False
        if tracked is not None and state.best is not None:
            tracked.finished(store, state.best)
    return True


def _taken_away() -> bool:
    """Whether a node of this run is to be preempted or drained soon. All ranks have to ask alike."""
    notice = ray_train.get_preemption_info()
    if notice is not None:
        log.info("a node is about to be taken away: saving the state")
    return notice is not None
