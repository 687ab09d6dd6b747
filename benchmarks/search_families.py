"""Does early stopping give families that start slowly their chance? A search that stopped nothing, played again.

    sentinode tune --data DATA --sweep SWEEP --search.sampler random --search.stop.no-early --retrain.seeds 0
    python benchmarks/search_families.py SWEEP

Its learning curves are measured; which trials would have been stopped is a simulation: they are told to the scheduler
in 200 random orders, one trial at a time, once on one ladder for all and once on a ladder for each family.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from typing import Any

from bench_search import ORDERS, played, quality

from sentinode.distributed.search_stop import early_stopping
from sentinode.search.config import StopConfig
from sentinode.search.records import SweepRecord, TrialRecord
from sentinode.search.sweep import read_sweep
from sentinode.storage import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sweep", help="URL of a search with --search.stop.no-early")
    record, _ = read_sweep(open_store(parser.parse_args().sweep))
    whole = [trial for trial in record.trials if len(trial.epochs) == trial.recipe.train.epochs]
    families = sorted({trial.family for trial in whole})
    best = {name: max((t for t in whole if t.family == name), key=quality) for name in families}
    found: dict[str, Any] = {
        "trials": {name: sum(trial.family == name for trial in whole) for name in families},
        "epochs": max(len(trial.epochs) for trial in whole),
        "best_auroc": {name: quality(trial) for name, trial in best.items()},
        "best_auroc_after_one_epoch": {name: trial.epochs[0].valid_auroc for name, trial in best.items()},
    }
    for ladders, within_family in (("one ladder", False), ("a ladder for each family", True)):
        found[ladders] = simulate(record, whole, best, within_family)
    print(json.dumps(found, indent=2))


def simulate(
    record: SweepRecord, whole: list[TrialRecord], best: dict[str, TrialRecord], within_family: bool
) -> dict[str, Any]:
    """Over ORDERS orders: epochs saved, how often the best of all and of each family is trained to its end, and what
    AUROC is lost for it.
    """
    stop = StopConfig(within_family=within_family)
    empty = record.model_copy(
        update={"trials": (), "config": record.config.model_copy(update={"stop": stop})}
    )
    longest = max(len(trial.epochs) for trial in whole)
    full, rng = sum(len(trial.epochs) for trial in whole), random.Random(0)
    winner = max(whole, key=quality)
    saved, lost, kept, winners = [], [], dict.fromkeys(best, 0), 0
    for _ in range(ORDERS):
        scheduler = early_stopping(empty, longest)
        trained = {trial.number: played(scheduler, trial) for trial in rng.sample(whole, len(whole))}
        finished = [trial for trial in whole if trained[trial.number] == len(trial.epochs)]
        saved.append(1 - sum(trained.values()) / full)
        lost.append(quality(winner) - max(map(quality, finished)))
        winners += winner in finished
        for name, trial in best.items():
            kept[name] += trial in finished
    return {
        "epochs_saved_median": statistics.median(saved),
        "epochs_saved_range": [min(saved), max(saved)],
        "winner_trained_to_its_end": winners / ORDERS,
        "best_of_family_trained_to_its_end": {name: count / ORDERS for name, count in kept.items()},
        "auroc_lost_mean": statistics.mean(lost),
        "auroc_lost_most": max(lost),
    }


if __name__ == "__main__":
    main()
