"""What is noted of trials, and what early stopping is told of them, without a Ray that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from search_parts import epoch, sweep_record

from sentinode.distributed.search_desk import Desk
from sentinode.distributed.search_trial import Told, reason_of
from sentinode.errors import TrainingError
from sentinode.search.records import Cost, TrialRecord, TrialState
from sentinode.search.sweep import Sweep
from sentinode.storage import open_store
from sentinode.training.config import Recipe


class Notes:
    """An onlooker that notes the states it is told of."""

    def __init__(self) -> None:
        self.over_with: list[TrialState] = []

    def begun(self, trial: TrialRecord) -> None:
        assert trial.state is TrialState.RUNNING

    def epoch(self, trial: TrialRecord) -> None:
        assert trial.epochs

    def over(self, trial: TrialRecord) -> None:
        self.over_with.append(trial.state)


def desk(folder: Path) -> tuple[Desk, Notes, list[TrialRecord]]:
    sweep = Sweep.begin(open_store(str(folder)), sweep_record())
    notes, learnt = Notes(), list[TrialRecord]()
    return Desk(sweep, lambda: sweep.add({}, Recipe()), learnt.append, notes), notes, learnt


def test_a_trial_ends_as_it_says_or_else_was_stopped(tmp_path: Path) -> None:
    at, notes, learnt = desk(tmp_path)
    runs = [handed.run for handed in (at.hand_out() for _ in range(5)) if handed is not None]
    for run in runs:
        at.began(run)
        at.hear(run, Told(cost=Cost(latency_ms=1.0, parameters=1)))
        at.hear(run, Told(epoch=epoch(1, 0.7)))
    at.hear(runs[0], Told(finished=True))
    at.hear(runs[1], Told(failure="out of memory"))
    at.ended(runs[0])  # as Tune says of every trial that ends
    at.ended(runs[1])
    at.ended(runs[2])
    at.ended(runs[3], lost="its process was lost")
    at.break_off("SIGINT came")
    states = [
        TrialState.FINISHED,
        TrialState.FAILED,
        TrialState.STOPPED,
        TrialState.FAILED,
        TrialState.INTERRUPTED,
    ]
    assert [found.state for found in at.sweep.record.trials] == states == notes.over_with
    assert [found.reason for found in at.sweep.record.trials][3:] == ["its process was lost", "SIGINT came"]
    assert [record.number for record in learnt] == [0, 1, 2, 3], "one that was broken off is not over"
    assert all(found.seconds >= 0 and len(found.epochs) == 1 for found in at.sweep.record.trials)


def test_after_a_kill_for_memory_all_go_on_but_the_one_that_is_killed_twice(tmp_path: Path) -> None:
    at, _, _ = desk(tmp_path)
    greedy, modest = at.hand_out(), at.hand_out()
    assert greedy is not None
    assert modest is not None
    at.killed_for_memory(greedy.run, attempts_after=1)
    assert [handed.run for handed in (at.hand_out(), at.hand_out()) if handed] == [greedy.run, modest.run]
    at.killed_for_memory(greedy.run, attempts_after=1)
    states = [found.state for found in at.sweep.record.trials]
    assert states == [TrialState.FAILED, TrialState.WAITING]
    assert "out of memory" in at.sweep.record.trials[0].reason
    handed = at.hand_out()
    assert handed is not None
    assert handed.run == modest.run


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrainingError("the loss is nan", "a finite one"), "the loss is nan"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory (CUDA out of memory)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes\nat x"),
            "out of memory (DefaultCPU",
        ),
        (ValueError(""), "ValueError: no message"),
    ],
)
def test_reasons_are_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error).startswith(reason)
    assert "\n" not in reason_of(error)
