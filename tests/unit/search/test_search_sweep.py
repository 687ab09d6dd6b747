"""The record of a search: kept at each change, gone on with after a kill, written by one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_parts import epoch, sweep_record, trial

from sentinode.errors import ConfigError
from sentinode.search.budget import spent, spent_cost
from sentinode.search.config import Budget, SearchConfig
from sentinode.search.records import Cost, SweepRecord, TrialState
from sentinode.search.sweep import Sweep, read_sweep, spread_of
from sentinode.storage import open_store
from sentinode.training.checkpoint import WEIGHTS_KEY, save_history
from sentinode.training.config import Recipe


def begun(folder: Path) -> Sweep:
    return Sweep.begin(open_store(str(folder)), sweep_record())


def test_what_is_noted_is_there_for_the_next_process(tmp_path: Path) -> None:
    sweep = begun(tmp_path)
    added = sweep.add({"width": 4}, Recipe())
    sweep.note(added.run, seconds=1.5, epoch=epoch(1, 0.7), cost=Cost(latency_ms=2.0, parameters=5))
    sweep.note(added.run, seconds=1.0, epoch=epoch(1, 0.9), cost=Cost(latency_ms=3.0, parameters=5))
    record, _ = read_sweep(sweep.store)
    assert record == sweep.record
    assert record.trial(0).choices == {"width": 4}
    assert [line.valid_auroc for line in record.trial(0).epochs] == [0.7], "an epoch counts once"
    assert record.trial(0).seconds == 2.5
    assert record.trial(0).cost == Cost(latency_ms=2.0, parameters=5)
    assert SweepRecord.from_json(record.to_json(), "here") == record


def test_a_search_is_not_begun_twice(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        begun(tmp_path)


def test_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no search"):
        Sweep.resume(open_store(str(tmp_path)), sweep_record())


def test_after_a_kill_finished_trials_stay_and_others_wait_with_what_their_runs_kept(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    Sweep.begin(
        store,
        sweep_record(
            trial(0, 0.7, 0.8),
            trial(1, 0.6, state=TrialState.RUNNING),
            trial(2, state=TrialState.RUNNING),
            trial(3, state=TrialState.FAILED),
            seconds=50.0,
        ),
    )
    save_history(store.sub("trials/0001"), (epoch(1, 0.6), epoch(2, 0.65)))
    save_history(store.sub("trials/0002"), (epoch(1, 0.9),))
    store.put(f"trials/0002/{WEIGHTS_KEY}", b"weights")
    sweep = Sweep.resume(store, sweep_record(budget=Budget(trials=99)))
    states = [found.state for found in sweep.record.trials]
    assert states == [TrialState.FINISHED, TrialState.WAITING, TrialState.FINISHED, TrialState.FAILED]
    assert [len(found.epochs) for found in sweep.record.trials] == [2, 2, 1, 0]
    assert sweep.record.budget.trials == 99
    assert sweep.seconds >= 50.0


def test_other_settings_are_another_search(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(ConfigError, match="seed 0 there, 5 here"):
        Sweep.resume(open_store(str(tmp_path)), sweep_record(config=SearchConfig(seed=5)))


def test_two_processes_do_not_write_one_search(tmp_path: Path) -> None:
    first = begun(tmp_path)
    second = Sweep.resume(first.store, sweep_record())
    second.add({}, Recipe())
    with pytest.raises(ConfigError, match="another process"):
        first.add({}, Recipe())


def test_budgets() -> None:
    budget = Budget(trials=2, hours=1.0, cost=3.0, price=2.0)
    trials = [trial(0, seconds=1800.0), trial(1, seconds=1800.0)]
    assert spent_cost(budget, trials, workers=1) == pytest.approx(2.0)
    assert spent(budget, 3599.0, 2.9) is None
    assert "time budget of 1 h" in (spent(budget, 3600.0, 0.0) or "")
    assert "cost budget of 3" in (spent(budget, 0.0, 3.0) or "")


def test_no_more_is_drawn_than_the_budget_allows(tmp_path: Path) -> None:
    sweep = Sweep.begin(open_store(str(tmp_path)), sweep_record(budget=Budget(trials=1)))
    assert sweep.may_draw()
    sweep.add({}, Recipe())
    assert not sweep.may_draw()


def test_spread_over_seeds() -> None:
    spread = spread_of([0.8, 0.9])
    assert spread.mean == pytest.approx(0.85)
    assert spread.sd == pytest.approx(0.0707107, rel=1e-5)
    assert spread_of([0.8]).sd is None
