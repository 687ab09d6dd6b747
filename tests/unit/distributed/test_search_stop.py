"""Early stopping without a Ray that runs: who is stopped, among whom, and what a resumed trial is judged by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from search_parts import epoch, sweep_record, trial

from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search_stop import Ladders, early_stopping
from sentinode.distributed.search_trial import TrialTask
from sentinode.experiment import Experiment
from sentinode.models.families import P4mDensenetConfig, SeedCnnConfig, usual_preprocess
from sentinode.search.config import SearchConfig, StopConfig
from sentinode.search.records import SweepRecord, TrialRecord
from sentinode.training.config import Recipe, TrainConfig

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
FAST = (0.80, 0.82, 0.83, 0.84, 0.85, 0.85, 0.85, 0.85, 0.85)
SLOW = (0.60, 0.65, 0.70, 0.76, 0.82, 0.86, 0.88, 0.89, 0.90)


def of_family(number: int, model: SeedCnnConfig | P4mDensenetConfig, *aurocs: float) -> TrialRecord:
    recipe = Recipe(model=model, preprocess=usual_preprocess(model), train=TrainConfig(epochs=9))
    return trial(number, *aurocs, recipe=recipe)


def scheduler(record: SweepRecord) -> Ladders:
    found = early_stopping(record, longest=9)
    assert isinstance(found, Ladders)
    return found


def play(ladders: Ladders, tested: TrialRecord) -> int:
    """Epochs until it is stopped."""
    ladders.join(tested.run, tested.number, tested.recipe.model.family)
    for record in tested.epochs:
        stand_in = SimpleNamespace(trial_id=tested.run)
        if ladders.on_trial_result(None, stand_in, record.model_dump()) == STOP:
            return record.epoch
    return len(tested.epochs)


def test_trials_of_a_former_process_are_known() -> None:
    former = sweep_record(*(trial(n, 0.7 + n / 100, 0.8, 0.85, 0.9) for n in range(6)))
    assert play(scheduler(former), trial(6, 0.6, 0.9)) == 1
    assert play(scheduler(former), trial(7, 0.9, 0.9)) == 2


def test_without_early_stopping_nothing_is_judged() -> None:
    record = sweep_record(config=SearchConfig(stop=StopConfig(early=False)))
    assert type(early_stopping(record, longest=9)) is FIFOScheduler


@pytest.mark.parametrize(("longest", "grace"), [(1, 1), (3, 3), (3, 5)])
def test_trials_as_long_as_their_grace_are_trained_to_their_end(longest: int, grace: int) -> None:
    record = sweep_record(config=SearchConfig(stop=StopConfig(grace_epochs=grace)))
    assert type(early_stopping(record, longest)) is FIFOScheduler


def test_no_trial_is_stopped_at_its_last_epoch() -> None:
    """The rungs are at 1 and 3 of 9 epochs: what is judged there and goes on is trained to its end."""
    former = sweep_record(*(trial(n, *[0.9] * 9) for n in range(6)))
    assert play(scheduler(former), trial(6, *[0.9] * 8, 0.1)) == 9


@pytest.mark.parametrize(("within_family", "slow_ends_after"), [(True, 9), (False, 1)])
def test_a_family_that_starts_slowly_is_judged_among_its_like(
    within_family: bool, slow_ends_after: int
) -> None:
    config = SearchConfig(stop=StopConfig(within_family=within_family))
    ladders = scheduler(sweep_record(config=config))
    fast = [of_family(n, SeedCnnConfig(), *FAST) for n in range(4)]
    assert [play(ladders, one) for one in fast] == [9] * 4
    slow, slower = (of_family(n, P4mDensenetConfig(), *(x - n / 100 for x in SLOW)) for n in (4, 5))
    assert play(ladders, slow) == slow_ends_after
    assert play(ladders, slower) == 1, "and loses there"


def test_a_resumed_trial_is_not_judged_again_by_what_it_had_passed() -> None:
    """It passed the first rung as the only one there; two that came later were better."""
    first = trial(0, 0.6, 0.7)
    ladders = scheduler(sweep_record(first, trial(1, 0.9), trial(2, 0.9)))
    task = TrialTask(
        experiment=Experiment.of(first.recipe, "/data", "/sweep/trials/0000"),
        scaling=ScalingSettings(num_workers=1),
        search="test",
        number=0,
        choices={},
        cost=None,
    )
    resumed = SimpleNamespace(trial_id="as-tune-calls-it", config={"task": task.model_dump_json()})
    ladders.on_trial_add(None, resumed)
    for record in first.epochs:
        assert ladders.on_trial_result(None, resumed, record.model_dump()) == GO_ON
    assert ladders.on_trial_result(None, resumed, epoch(3, 0.71).model_dump()) == GO_ON, (
        "the next rung's first"
    )
    ladders.on_trial_complete(None, resumed, {"done": True})
