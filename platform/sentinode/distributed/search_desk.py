"""The desk of a search: trials are handed out here, and what comes of them is noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from sentinode.distributed.search_trial import Told
from sentinode.search.records import TrialRecord, TrialState
from sentinode.search.sweep import Sweep


class SweepOnlooker(Protocol):
    """Is told how a search goes on."""

    def begun(self, trial: TrialRecord) -> None: ...

    def epoch(self, trial: TrialRecord) -> None: ...

    def over(self, trial: TrialRecord) -> None: ...


class Cause(Enum):
    """What broke a search off."""

    SIGNAL = auto()
    BUDGET = auto()
    NO_ROOM = auto()
    """Nodes were lost, and none came that a trial would fit on."""


@dataclass(frozen=True)
class BrokenOff:
    """Why trials were broken off."""

    why: str
    cause: Cause

    @property
    def interrupted(self) -> bool:
        """Whether nothing more may be done now; a spent budget of the search leaves time for its winner."""
        return self.cause is not Cause.BUDGET


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
        self._ahead: TrialRecord | None = None
        self._again: list[TrialRecord] = []
        self._losses = Counter[str]()
        self._since: dict[str, float] = {}

    def has_more(self) -> bool:
        """Whether there is a trial to hand out."""
        if self._ahead is None:
            self._ahead = self._again.pop(0) if self._again else self._next()
        return self._ahead is not None

    def hand_out(self) -> TrialRecord | None:
        """The next trial, None after the last."""
        if not self.has_more():
            return None
        assert self._ahead is not None
        trial, self._ahead = self._ahead, None
        return self.sweep.change(trial.run, state=TrialState.RUNNING, reason="")

    def began(self, run: str) -> None:
        """A trial's process is up."""
        self._since[run] = time.monotonic()
        self._onlooker.begun(self.sweep.record.find(run))

    def hear(self, run: str, told: Told) -> None:
        """Note what a trial reports."""
        known = len(self.sweep.record.find(run).epochs)
        changes: dict[str, object] = {}
        if told.finished:
            changes["state"] = TrialState.FINISHED
        if told.failure is not None:
            changes |= {"state": TrialState.FAILED, "reason": told.failure}
        trial = self.sweep.note(run, seconds=self._more(run), cost=told.cost, epoch=told.epoch, **changes)
        if len(trial.epochs) > known:
            self._onlooker.epoch(trial)
        if trial.is_over:
            self._close(trial)

    def ended(self, run: str, lost: str | None = None) -> None:
        """A trial's process has ended. If it has not said how, it was stopped early, or ``lost`` for a reason."""
        if self.sweep.record.find(run).is_over:
            return
        state = TrialState.STOPPED if lost is None else TrialState.FAILED
        self._close(self.sweep.note(run, seconds=self._more(run), state=state, reason=lost or ""))

    def killed_for_memory(self, run: str | None, attempts_after: int) -> None:
        """All processes have ended because Ray killed that of ``run`` (of one of them, where None) for its memory.

        Every trial under way is handed out again; not so the one at fault once it was killed more than
        ``attempts_after`` times.
        """
        for trial in (*self.sweep.record.trials, *self.sweep.record.again):
            if trial.state is not TrialState.RUNNING:
                continue
            self._losses[trial.run] += run in (trial.run, None)
            if self._losses[trial.run] > attempts_after:
                self.ended(trial.run, lost="out of memory: its process was killed for it")
            else:
                self._again.append(self.sweep.change(trial.run, state=TrialState.WAITING))

    def break_off(self, why: str) -> None:
        """Note those that are under way: a resumed search goes on with them."""
        for trial in (*self.sweep.record.trials, *self.sweep.record.again):
            if trial.state is TrialState.RUNNING:
                more, state = self._more(trial.run), TrialState.INTERRUPTED
                self._onlooker.over(self.sweep.note(trial.run, seconds=more, state=state, reason=why))

    def _close(self, trial: TrialRecord) -> None:
        self._learn(trial)
        self._onlooker.over(trial)

    def _more(self, run: str) -> float:
        """Seconds since a trial was last heard of."""
        now = time.monotonic()
        more = now - self._since.get(run, now)
        self._since[run] = now
        return more
