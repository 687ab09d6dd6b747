"""``sentinode tune``: a search space becomes trials, a Pareto front and a winner, trained again and evaluated."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import Field

from sentinode.commands.tune_told import SweepTold
from sentinode.commands.tune_winner import settle_winner
from sentinode.config import Frozen
from sentinode.data.audit import refuse_leaks
from sentinode.data.manifest import load_manifest
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search import search
from sentinode.distributed.search_desk import BrokenOff, Cause
from sentinode.distributed.search_tracked import track_sweep
from sentinode.errors import ClusterError, ConfigError, SentinodeError
from sentinode.provenance import code_commit, versions_here
from sentinode.search.config import Budget, RetrainConfig, SearchConfig
from sentinode.search.cost import machine_name
from sentinode.search.records import SweepRecord
from sentinode.search.report import REPORT_KEY, render_sweep
from sentinode.search.spaces import SPACES, space_called
from sentinode.search.sweep import Sweep, read_sweep
from sentinode.storage import StoreUrl, open_store
from sentinode.tracking import check_tracking

INTERRUPTED = 130
SPACES_HELP = "Search spaces: " + "; ".join(f"{name}: {space.summary}" for name, space in SPACES.items())

log = logging.getLogger(__name__)


class TuneCommand(Frozen):
    """Search for a network that is good and cheap. Killed or interrupted, a search goes on with --resume."""

    data: StoreUrl
    """URL of the data set's manifest, or of the folder that holds it."""
    sweep: StoreUrl
    """Where the search is kept: s3://bucket/prefix or a folder."""
    resume: bool = False
    """Go on with the search at --sweep. Its settings are the defaults; only budgets and machines may be others."""
    search: SearchConfig = Field(default=SearchConfig(), description=SPACES_HELP)
    budget: Budget = Budget()
    """Where it ends, whatever comes first."""
    retrain: RetrainConfig = RetrainConfig()
    """What becomes of the winner."""
    scaling: ScalingSettings = ScalingSettings(num_workers=1)
    """Processes of each trial. With one worker a trial trains in its own process; with more, Ray Train joins them."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; by default as many as there is room for."""
    allow_leaks: bool = False
    """Search even where patches, slides or patients stand in more than one split."""
    ray_address: str | None = None
    """Cluster to join; by default RAY_ADDRESS, else a local Ray is started."""


FLAGS = TuneCommand


def defaults(arguments: Sequence[str]) -> tuple[TuneCommand, list[str]]:
    """With --resume, the settings of the search that is gone on with."""
    chooser = argparse.ArgumentParser("sentinode tune", add_help=False, allow_abbrev=False)
    chooser.add_argument("--resume", action="store_true")
    # Without a value it is told with the other flags.
    chooser.add_argument("--sweep", nargs="?")
    given = chooser.parse_known_args(list(arguments))[0]
    values = {
        name: field.default for name, field in TuneCommand.model_fields.items() if not field.is_required()
    }
    if given.resume and given.sweep:
        record, _ = read_sweep(open_store(given.sweep))
        values |= {
            "data": record.data,
            "search": record.config,
            "budget": record.budget,
            "retrain": record.retrain,
            "scaling": ScalingSettings(num_workers=record.workers),
        }
    return TuneCommand.model_construct(**values), list(arguments)


def run(config: TuneCommand) -> int:
    """Search, settle on the winner, and say what came of it; 130 where a signal came.

    Raises ClusterError where nodes were lost and the cluster has no room left for a trial.
    """
    space = space_called(config.search.space)
    log.info("W&B: %s", check_tracking())
    sweep = begin(config)
    with _nothing_left(sweep), ray_session(config.ray_address), SweepTold(sweep) as told:
        broken_off = search(sweep, space, config.scaling, told, config.concurrent)
        interrupted = broken_off is not None and broken_off.interrupted
        result = sweep.conclude("interrupted" if interrupted else "searched")
        if not interrupted and result.winner is not None and config.retrain.seeds:
            broken_off = settle_winner(sweep, config.scaling, told, config.concurrent) or broken_off
    return _close(sweep, broken_off)


@contextmanager
def _nothing_left(sweep: Sweep) -> Iterator[None]:
    """A search that could not begin (no cluster, no room for a trial) leaves nothing that the next try would meet."""
    try:
        yield
    except SentinodeError:
        sweep.withdraw()
        raise


def begin(config: TuneCommand) -> Sweep:
    """The search that ``config`` begins or resumes.

    Raises ConfigError where it must not be begun or cannot be gone on with, LeakError for data with a certain leak.
    """
    store = open_store(config.sweep)
    manifest, _ = load_manifest(config.data)
    if not config.allow_leaks:
        refuse_leaks(config.data)
    new = _record(config, manifest.dataset, manifest.digest())
    return Sweep.resume(store, new) if config.resume else Sweep.begin(store, new)


def _close(sweep: Sweep, broken_off: BrokenOff | None) -> int:
    """Keep the report, track the whole, say what came of it; the exit code."""
    interrupted = broken_off is not None and broken_off.interrupted
    result = sweep.conclude("interrupted" if interrupted else sweep.record.state)
    sweep.store.put(REPORT_KEY, render_sweep(sweep.record).encode())
    track_sweep(sweep)
    log.info("%s", result.why)
    log.info("report: %s", sweep.store.locate(REPORT_KEY))
    if broken_off is not None:
        log.info(
            "broken off, for %s; go on by: sentinode tune --resume --sweep %s",
            *(broken_off.why, sweep.store.url),
        )
    if broken_off is not None and broken_off.cause is Cause.NO_ROOM:
        raise ClusterError(
            broken_off.why, "room for one trial at least", "bring nodes back, then go on by --resume"
        )
    if interrupted:
        return INTERRUPTED
    if result.winner is None:
        raise ConfigError(
            f"the search {sweep.store.url} has no winner: {result.why}",
            "a trial that trains and keeps the budget",
            "see the reasons in the report; a larger budget.trials goes on with --resume",
        )
    if sweep.record.evaluated_run is not None:
        log.info("ready: sentinode promote --run %s --registry REGISTRY", sweep.record.evaluated_run)
    return 0


def _record(config: TuneCommand, dataset: str, manifest_digest: str) -> SweepRecord:
    return SweepRecord(
        name=config.sweep.rstrip("/").rpartition("/")[2],
        data=config.data,
        dataset=dataset,
        manifest_digest=manifest_digest,
        code_commit=code_commit(),
        versions=versions_here(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine_name(),
        config=config.search,
        budget=config.budget,
        retrain=config.retrain,
        workers=config.scaling.num_workers,
    )
