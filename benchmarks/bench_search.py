"""Search: does early stopping save at least half the epochs of a full grid, and find the same winner?

    make bench-search        or        python benchmarks/bench_search.py --data ../shared/data/kaggle

One grid of 16 settings of the seed CNN (learning rate, batch size, augmentation) of 9 epochs, run twice by the code of
``sentinode tune`` on the same patches: every trial to its end, and with ASHA. How much is saved depends on the order
of the trials, so the curves of the full grid are then played to the same scheduler in other orders, one trial at a
time: a simulation, which needs no training because equal trainings give equal curves.

``benchmarks/out/search.json`` holds it all. Epochs are counted, so their ratio does not depend on the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness import OUT, machine, versions
from ray.tune.schedulers import TrialScheduler

from sentinode.commands.tune import TuneCommand, begin
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.synthetic import SyntheticConfig
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.ingest import ingest
from sentinode.distributed.search import search
from sentinode.distributed.search_stop import Ladders, early_stopping
from sentinode.logs import no_progress
from sentinode.search.config import Budget, SearchConfig, StopConfig
from sentinode.search.records import SweepRecord, TrialRecord
from sentinode.search.report import saved_epochs
from sentinode.search.spaces import SPACES

EPOCHS, ORDERS = 9, 200
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "kaggle"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=REAL if REAL.is_dir() else None, help="Kaggle's layout")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    given = parser.parse_args()
    os.environ["WANDB_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="sentinode-bench-") as name, ray_session("local"):
        folder = Path(name)
        manifest = ingest(source_of(given.data, folder / "data"), no_progress)
        whole = grid(folder, given.epochs, early=False)
        stopped = grid(folder, given.epochs, early=True)
    ratios, winners = simulate(whole)
    trained, full = saved_epochs(stopped)[0], saved_epochs(whole)[0]
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(("ray", "optuna", "torch")),
        "data": {split.value: part.samples for split, part in manifest.splits.items()}
        | {"origin": manifest.source},
        "rows": [row("full grid", whole), row("with early stopping", stopped)],
        "ratios": {
            "epochs_full_vs_early_stopping": full / trained,
            "seconds_full_vs_early_stopping": whole.seconds / stopped.seconds,
            "epochs_full_vs_early_stopping_simulated_orders": statistics.median(ratios),
        },
        "spread": {"epochs_full_vs_early_stopping_simulated_orders": [min(ratios), max(ratios)]},
        "same_winner": winner(whole).choices == winner(stopped).choices,
        "same_winner_in_simulated_orders": statistics.mean(winners),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "search.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in result if key not in ("machine", "versions")}, indent=2))


def source_of(data: Path | None, out: Path) -> IngestConfig:
    """Real patches, a quarter of them for validation, or synthetic ones where there are none."""
    common = {"out": str(out), "dataset": "bench", "test_fraction": 0.0, "valid_fraction": 0.25}
    if data is not None:
        return IngestConfig(source=str(data), **common)
    return IngestConfig(source="synthetic", synthetic=SyntheticConfig(patches=2400), **common)


def grid(folder: Path, epochs: int, *, early: bool) -> SweepRecord:
    """The record of the grid, searched to its end."""
    command = TuneCommand(
        data=str(folder / "data"),
        sweep=str(folder / ("early" if early else "whole")),
        search=SearchConfig(
            space="rates",
            sampler="grid",
            costs=(),
            epochs=epochs,
            stop=StopConfig(early=early, grace_epochs=1),
        ),
        budget=Budget(trials=1000),
        allow_leaks=True,  # the sample's slides are not known; what is compared is the search
    )
    sweep = begin(command)
    search(sweep, SPACES["rates"], command.scaling, Silent())
    sweep.conclude("searched")
    return sweep.record


def simulate(whole: SweepRecord) -> tuple[list[float], list[bool]]:
    """For ORDERS random orders: epochs of the full grid over those with ASHA, and whether the winner is the same."""
    config = whole.config.model_copy(update={"stop": StopConfig()})
    full, best, rng = saved_epochs(whole)[0], winner(whole), random.Random(0)
    empty = whole.model_copy(update={"trials": ()})
    longest = max(len(trial.epochs) for trial in whole.trials)
    ratios, same = [], []
    for _ in range(ORDERS):
        scheduler = early_stopping(empty.model_copy(update={"config": config}), longest)
        trained = [(trial, played(scheduler, trial)) for trial in rng.sample(whole.trials, len(whole.trials))]
        ratios.append(full / sum(epochs for _, epochs in trained))
        finished = [trial for trial, epochs in trained if epochs == len(trial.epochs)]
        same.append(max(finished, key=quality).number == best.number)
    return ratios, same


def played(scheduler: TrialScheduler, trial: TrialRecord) -> int:
    """Epochs of ``trial`` until the scheduler stops it."""
    assert isinstance(scheduler, Ladders)
    scheduler.join(trial.run, trial.number, trial.recipe.model.family)
    stand_in = SimpleNamespace(trial_id=trial.run)
    for epoch in trial.epochs:
        if scheduler.on_trial_result(None, stand_in, epoch.model_dump()) == TrialScheduler.STOP:
            return epoch.epoch
    return len(trial.epochs)


def winner(record: SweepRecord) -> TrialRecord:
    assert record.result is not None
    assert record.result.winner is not None
    return record.trial(record.result.winner)


def quality(trial: TrialRecord) -> float:
    return trial.quality("auroc") or 0.0


def row(name: str, record: SweepRecord) -> dict[str, Any]:
    best = winner(record)
    return {
        "name": name,
        "trials": len(record.trials),
        "epochs": saved_epochs(record)[0],
        "seconds": record.seconds,
        "winner": best.choices,
        "winner_valid_auroc": quality(best),
    }


class Silent:
    """An onlooker that says a line when a trial is over."""

    def begun(self, trial: TrialRecord) -> None:
        pass

    def epoch(self, trial: TrialRecord) -> None:
        pass

    def over(self, trial: TrialRecord) -> None:
        print(
            f"trial {trial.number} {trial.state.value} after {len(trial.epochs)} epochs, AUROC {quality(trial):.4f}"
        )


if __name__ == "__main__":
    main()
