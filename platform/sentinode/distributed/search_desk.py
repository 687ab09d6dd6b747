"""The desk of a search: trials are handed out here, and what comes of them is noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from sentinode.distributed.search_trial import Told
from sentinode.search.records import TrialRecord, TrialState
from sentinode.search.sweep import Sweep


class SweepOnlooker(Protocol):
    """Is told how a search goes on."""

    def begun(self, trial: TrialRecord) -> None: ...

    def epoch(self, trial: TrialRecord) -> None: ...

    def over(self, trial: TrialRecord) -> None: ...


class Desk:
    """Hands out trials and notes what comes of them. All of it happens in the driver's main thread."""

    def __init__(
        self,
        sweep: Sweep,
        next_trial: Callable[[], TrialRecord | None],
        learn: Callable[[TrialRecord], None],
        onlooker: SweepOnlooker,
    ) -> None:
        self.sweep, self._next, self._learn, self._onlooker = sweep, next_trial, learn, onlooker
        self._since: dict[str, float] = {}

    def hand_out(self) -> TrialRecord | None:
        trial = self._next()
        return None if trial is None else self.sweep.change(trial.run, state=TrialState.RUNNING, reason="")

    def began(self, run: str) -> None:
        self._since[run] = time.monotonic()
        self._onlooker.begun(self.sweep.record.find(run))

    def hear(self, run: str, told: Told) -> None:
        """Note what a trial reports."""
        self._count_time(run)
        if told.cost is not None:
            self.sweep.costs(run, told.cost)
        if told.epoch is not None and self.sweep.epoch(run, told.epoch):
            self._onlooker.epoch(self.sweep.record.find(run))
        if told.finished:
            self._end(run, TrialState.FINISHED)
        if told.failure is not None:
            self._end(run, TrialState.FAILED, told.failure)

    def ended(self, run: str) -> None:
        """A trial is over that may not have said so itself: then it was stopped early."""
        if not self.sweep.record.find(run).is_over:
            self._count_time(run)
            self._end(run, TrialState.STOPPED)

    def lost(self, run: str, why: str) -> None:
        """A trial's process has ended without a word."""
        if not self.sweep.record.find(run).is_over:
            self._end(run, TrialState.FAILED, why)

    def break_off(self, why: str) -> None:
        """Note those that are under way: a resumed search goes on with them."""
        for trial in (*self.sweep.record.trials, *self.sweep.record.again):
            if trial.state is TrialState.RUNNING:
                self._onlooker.over(self.sweep.change(trial.run, state=TrialState.INTERRUPTED, reason=why))

    def _end(self, run: str, state: TrialState, reason: str = "") -> None:
        trial = self.sweep.change(run, state=state, reason=reason)
        self._learn(trial)
        self._onlooker.over(trial)

    def _count_time(self, run: str) -> None:
        now = time.monotonic()
        more = now - self._since.get(run, now)
        self._since[run] = now
        self.sweep.change(run, seconds=self.sweep.record.find(run).seconds + more)
