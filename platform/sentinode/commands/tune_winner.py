"""The winner of a search: trained again with several seeds, the best of them evaluated and ready for promotion."""

from __future__ import annotations

import hashlib
import logging

from sentinode.commands.evaluate import EvaluateCommand, describe, evaluate_run, keep_report
from sentinode.commands.tune_told import SweepTold
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search import train_again
from sentinode.distributed.search_desk import BrokenOff
from sentinode.errors import ObjectNotFoundError, TrainingError
from sentinode.experiment import read_run
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
    asked = trainings(sweep, winner)
    # Since the last process another trial may have won, with more budget, or another retraining be asked for.
    if asked != sweep.record.again:
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


def trainings(sweep: Sweep, winner: TrialRecord) -> tuple[TrialRecord, ...]:
    """The trainings of ``winner`` with other seeds than the search's: as far as they are, or yet to be done."""
    config, data = sweep.record.retrain, sweep.record.retrain.data or sweep.record.data
    recipe = winner.recipe if config.epochs is None else with_epochs(winner.recipe, config.epochs)
    found = []
    for number in range(config.seeds):
        seed = recipe.train.seed + 1 + number
        seeded = _with_seed(recipe, seed)
        name = f"winner/trial-{winner.number:04d}-seed-{seed}-{_short_digest(seeded, data)}"
        asked = TrialRecord(number=number, run=name, choices=winner.choices, recipe=seeded, cost=winner.cost)
        found.append(_known(sweep, asked, data) or asked)
    return tuple(found)


def _known(sweep: Sweep, asked: TrialRecord, data: str) -> TrialRecord | None:
    """What a former process had of ``asked``; earlier releases named its run by the seed alone."""
    for trial in sweep.record.again:
        if trial.run == asked.run or (trial.recipe == asked.recipe and _data_of(sweep, trial) == data):
            return trial
    return None


def _data_of(sweep: Sweep, trial: TrialRecord) -> str | None:
    """The data set that ``trial`` was begun on, None where it was not."""
    try:
        return read_run(sweep.store.sub(trial.run)).experiment.data
    except ObjectNotFoundError:
        return None


def _short_digest(recipe: Recipe, data: str) -> str:
    """Trained longer or on other data, a network needs a run of its own."""
    return hashlib.sha256(recipe.canonical_json() + data.encode()).hexdigest()[:8]


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


def _winner(record: SweepRecord) -> int:
    assert record.result is not None
    assert record.result.winner is not None
    return record.result.winner
