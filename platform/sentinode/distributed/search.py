"""Architecture search: Ray Tune runs the trials that Optuna proposes, and ASHA ends the poor ones.

Nothing of Tune's own state is kept: the truth is ``sweep.json`` and the trials' runs in the store. A search is resumed
by telling sampler and scheduler what was found before, on whatever machine, and no pickle is ever read back.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search_desk import BrokenOff, Desk, SweepOnlooker
from sentinode.distributed.search_room import Nodes, RoomWatch, trials_at_a_time
from sentinode.distributed.search_stop import early_stopping
from sentinode.distributed.search_trial import run_trial
from sentinode.distributed.search_tune import (
    ATTEMPTS_AFTER_LOSS,
    TrialMessenger,
    TrialSearcher,
    TrialStopper,
)
from sentinode.distributed.stop_signals import StopSignals
from sentinode.errors import ConfigError
from sentinode.search.records import TrialRecord
from sentinode.search.sampler import Proposer
from sentinode.search.space import Space
from sentinode.search.sweep import Sweep

DRIVER = {"memory": 1 << 20}
"""Bytes that a trial takes which only drives Ray Train. With any share of a CPU, its workers might never find
theirs; Tune refuses nothing at all.
"""
log = logging.getLogger(__name__)


def search(
    sweep: Sweep,
    space: Space,
    scaling: ScalingSettings,
    onlooker: SweepOnlooker,
    concurrent: int | None = None,
) -> BrokenOff | None:
    """Run the trials of ``sweep`` until a budget is spent or the space is exhausted, within a Ray session.

    Trials that a former process began are gone on with first. Returns why it was broken off, None where it was not.
    Raises ConfigError where not even one trial fits the cluster.
    """
    record = sweep.record
    proposer = Proposer(space, record.config, record.budget.trials)
    for trial in record.trials:
        if trial.is_over:
            proposer.tell(trial)
    unfinished = [trial for trial in record.trials if not trial.is_over]

    def next_trial() -> TrialRecord | None:
        if unfinished:
            return unfinished.pop(0)
        proposed = proposer.propose(len(sweep.record.trials)) if sweep.may_draw() else None
        return None if proposed is None else sweep.add(*proposed)

    desk = Desk(sweep, next_trial, proposer.tell, onlooker)
    return _run(desk, scaling, early_stopping(record, proposer.longest), concurrent, sweep.spent)


def train_again(
    sweep: Sweep, scaling: ScalingSettings, onlooker: SweepOnlooker, concurrent: int | None = None
) -> BrokenOff | None:
    """Run the winner's trainings with other seeds, as ``sweep.record.again`` names them, each to its end.

    They come on top of the search's budget. Returns why they were broken off, None where they were not.
    """
    unfinished = [trial for trial in sweep.record.again if not trial.is_over]
    desk = Desk(sweep, lambda: unfinished.pop(0) if unfinished else None, lambda trial: None, onlooker)
    return _run(desk, scaling, FIFOScheduler(), concurrent, lambda: None)


def _run(
    desk: Desk,
    scaling: ScalingSettings,
    scheduler: FIFOScheduler,
    concurrent: int | None,
    spent: Callable[[], str | None],
) -> BrokenOff | None:
    """Let Ray Tune run what the desk hands out; why it was broken off, None where it was not."""
    room = trials_at_a_time(_nodes(), scaling)
    with StopSignals() as signals:
        stopper = TrialStopper(signals, spent, RoomWatch(_nodes, scaling))
        try:
            while stopper.broken_off is None and desk.has_more():
                _fit(desk, scaling, scheduler, min(room, concurrent or room), stopper)
        finally:
            desk.break_off(stopper.broken_off.why if stopper.broken_off else "the search ended before it")
    return stopper.broken_off


def _fit(
    desk: Desk, scaling: ScalingSettings, scheduler: FIFOScheduler, at_a_time: int, stopper: TrialStopper
) -> None:
    """Let Ray Tune run trials until there are no more, or until it gives up because one was killed for memory."""
    _calm_tune()
    alone = scaling.num_workers == 1
    folder = tempfile.mkdtemp(prefix="sentinode-tune-")
    searcher = TrialSearcher(desk, scaling)
    messenger = TrialMessenger(desk, searcher.runs)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, scaling.resources if alone else DRIVER),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=at_a_time,
            reuse_actors=alone,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS_AFTER_LOSS),
            callbacks=[messenger],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError as error:
        raise _cause(error) from error
    except RuntimeError as error:
        # Ray 2.60: Tune takes a process that Ray killed for want of memory for a fault of its own, and ends with all
        # other trials. They are begun again, from their checkpoints.
        if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise
        log.warning(
            "a trial was killed because the machine was running out of memory: going on with the others"
        )
        desk.killed_for_memory(messenger.run_of(str(error.__cause__)), ATTEMPTS_AFTER_LOSS)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _nodes() -> Nodes:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _calm_tune() -> None:
    """Tune's own tables, log files, signal handlers and checks of figures are not wanted."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }.items():
        os.environ.setdefault(name, value)


def _cause(error: BaseException) -> BaseException:
    """The user's error within Tune's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConfigError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error
