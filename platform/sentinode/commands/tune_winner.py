"""The winner of a search: trained again with several seeds, the best of them evaluated and ready for promotion."""

from __future__ import annotations

import logging

from sentinode.commands.evaluate import EvaluateCommand, describe, evaluate_run, keep_report
from sentinode.commands.tune_told import SweepTold
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search import train_again
from sentinode.distributed.search_desk import BrokenOff
from sentinode.errors import TrainingError
from sentinode.search.records import SweepRecord, TrialRecord, TrialState
from sentinode.search.sampler import with_epochs
from sentinode.search.sweep import Sweep, spread_of
from sentinode.training.config import Recipe

log = logging.getLogger(__name__)


def settle_winner(
    sweep: Sweep, scaling: ScalingSettings, told: SweepTold, concurrent: int | None = None
) -> BrokenOff | None:
    """Train and evaluate the winner of ``sweep`` within a Ray session; why it was broken off, None where it was not.

    Raises TrainingError where it fails with every seed.
    """
    winner = sweep.record.trial(_winner(sweep.record))
    asked = trainings(sweep.record, winner)
    # With more budget another trial may have won since the last process.
    if [trial.run for trial in asked] != [trial.run for trial in sweep.record.again]:
        sweep.update(again=asked, spread=None, evaluated_run=None)
    broken_off = train_again(sweep, scaling, told, concurrent)
    if broken_off is not None:
        return broken_off
    done = [trial for trial in sweep.record.again if trial.state is TrialState.FINISHED]
    values = {
        trial.run: value
        for trial in done
        if (value := trial.quality(sweep.record.config.quality)) is not None
    }
    if not values:
        reasons = "; ".join(trial.reason for trial in sweep.record.again)
        raise TrainingError(
            f"the winner, trial {winner.number}, fails with every seed: {reasons}", "one that trains"
        )
    spread = spread_of(values.values())
    sweep.update(spread=spread)
    said = "" if spread.sd is None else f", standard deviation {spread.sd:.4f}"
    log.info("trial %d over %d seeds: mean %.4f%s", winner.number, len(values), spread.mean, said)
    best = f"{sweep.store.url}/{max(values, key=lambda run: values[run])}"
    if sweep.record.evaluated_run != best:
        found = evaluate_run(EvaluateCommand(run=best, again=True), told.progress)
        keep_report(found)
        for line in describe(found.report):
            log.info("%s", line)
    sweep.update(state="finished", evaluated_run=best)
    return None


def trainings(record: SweepRecord, winner: TrialRecord) -> tuple[TrialRecord, ...]:
    """The trainings of ``winner`` with other seeds than the search's, yet to be done."""
    config = record.retrain
    recipe = winner.recipe if config.epochs is None else with_epochs(winner.recipe, config.epochs)
    return tuple(
        TrialRecord(
            number=seed,
            run=f"winner/trial-{winner.number:04d}-seed-{recipe.train.seed + 1 + seed}",
            choices=winner.choices,
            recipe=_with_seed(recipe, recipe.train.seed + 1 + seed),
            cost=winner.cost,
        )
        for seed in range(config.seeds)
    )


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


def _winner(record: SweepRecord) -> int:
    assert record.result is not None
    assert record.result.winner is not None
    return record.result.winner
