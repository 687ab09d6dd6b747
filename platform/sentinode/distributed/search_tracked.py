"""What W&B is told of a search as a whole; its trials are runs of their own in the same group."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from sentinode.distributed.tracked_files import kept_files
from sentinode.search.records import SweepRecord, TrialRecord
from sentinode.search.sweep import Sweep, result_of
from sentinode.tracking import Bars, Chart, Loggable, Table, Tracker

ORIGIN = {"config", "budget", "dataset", "manifest_digest", "code_commit"}
COLUMNS = (
    "trial",
    "on_front",
    "winner",
    "state",
    "family",
    "quality",
    "latency_ms",
    "parameters",
    "epochs",
    "choices",
)


def track_sweep(sweep: Sweep) -> None:
    """Log the Pareto table, the front and the importance as one run of the search's group. Nothing is raised for want
    of W&B; an offline run is kept below ``wandb/`` of the search.
    """
    record = sweep.record
    with tempfile.TemporaryDirectory(prefix="sentinode-wandb-", ignore_cleanup_errors=True) as name:
        tracker = Tracker(Path(name))
        with (
            kept_files(tracker, Path(name), sweep.store),
            tracker.run(
                f"{record.name} summary",
                # Another one each time: a table that is logged twice would stay twice.
                hashlib.sha256(record.to_json()).hexdigest()[:16],
                record.model_dump(
                    mode="json", include={"config", "budget", "dataset", "manifest_digest", "code_commit"}
                ),
                group=record.name,
                job_type="search",
            ),
        ):
            tracker.log(told(record), len(record.trials))
            if record.spread is not None:
                tracker.summarise({"winner_over_seeds": record.spread.model_dump()})


def told(record: SweepRecord) -> dict[str, Loggable]:
    """Tables and charts of a search."""
    result = record.result or result_of(record)

    def row(trial: TrialRecord) -> tuple[float | str | bool | None, ...]:
        return (
            trial.number,
            trial.number in result.front,
            trial.number == result.winner,
            trial.state.value,
            trial.family,
            trial.quality(record.config.quality),
            trial.cost_of("latency"),
            trial.cost_of("parameters"),
            len(trial.epochs),
            ", ".join(f"{name}={value}" for name, value in trial.choices.items()),
        )

    values: dict[str, Loggable] = {"search/pareto": Table(COLUMNS, [row(trial) for trial in record.trials])}
    front = [record.trial(number) for number in reversed(result.front)]
    points = [(trial.cost_of("latency"), trial.quality(record.config.quality)) for trial in front]
    known = [(x, y) for x, y in points if x is not None and y is not None]
    if known:
        lines = {"Pareto front": ([x for x, _ in known], [y for _, y in known])}
        values["search/front"] = Chart("Pareto front", "latency_ms", record.config.quality, lines)
    if result.importance:
        bars = {row.choice: row.share for row in result.importance}
        values["search/importance"] = Bars("Parameter importance", "share_of_variance", bars)
    return values
