"""A search under way: its record, kept in the store whenever something changes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any, Self

from sentinode.errors import ConfigError, ObjectNotFoundError, PreconditionFailedError
from sentinode.search.budget import spent, spent_cost
from sentinode.search.front import choose_winner, pareto_front
from sentinode.search.importance import importance
from sentinode.search.records import (
    SWEEP_KEY,
    Cost,
    Spread,
    SweepRecord,
    SweepResult,
    TrialRecord,
    TrialState,
)
from sentinode.search.space import Choice
from sentinode.storage import Store
from sentinode.training.checkpoint import WEIGHTS_KEY, load_history
from sentinode.training.config import Recipe
from sentinode.training.metrics import EpochRecord


class Sweep:
    """The only writer of ``sweep.json``. Not for several threads at once."""

    def __init__(self, store: Store, record: SweepRecord, etag: str | None) -> None:
        self.store, self.record = store, record
        self._etag = etag
        self._began_s = time.monotonic() - record.seconds

    @classmethod
    def begin(cls, store: Store, record: SweepRecord) -> Self:
        """A new search. Raises ConfigError where ``store`` holds one already."""
        try:
            etag = store.put(SWEEP_KEY, record.to_json(), if_none_match=True)
        except PreconditionFailedError as error:
            raise ConfigError(
                f"{store.url} holds a search already",
                "a new URL, or --resume",
                f"sentinode tune --resume --sweep {store.url}, or choose another --sweep",
            ) from error
        return cls(store, record, etag)

    @classmethod
    def resume(cls, store: Store, new: SweepRecord) -> Self:
        """The search in ``store``, to go on with as ``new`` says: what its former process left undone is waiting.

        Budgets and retraining may be others. Raises ConfigError where there is none, or one of other settings.
        """
        record, etag = read_sweep(store)
        _check_same(record, new, store.url)
        changes = {"state": "running", "budget": new.budget, "retrain": new.retrain}
        sweep = cls(store, record.model_copy(update=changes), etag)
        for trial in (*record.trials, *record.again):
            if not trial.is_over:
                sweep.change(trial.run, **_what_is_kept(store.sub(trial.run), trial))
        return sweep

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def cost(self) -> float:
        return spent_cost(self.record.budget, self.record.trials, self.record.workers)

    def spent(self) -> str | None:
        """Why no more may be done; None while the budgets last."""
        return spent(self.record.budget, self.seconds, self.cost)

    def may_draw(self) -> bool:
        return len(self.record.trials) < self.record.budget.trials and self.spent() is None

    def add(self, choices: dict[str, Choice], recipe: Recipe) -> TrialRecord:
        """Note a new trial before it is begun, so that a kill loses none."""
        number = len(self.record.trials)
        trial = TrialRecord(number=number, run=f"trials/{number:04d}", choices=choices, recipe=recipe)
        self.update(trials=(*self.record.trials, trial))
        return trial

    def change(self, run: str, **changes: Any) -> TrialRecord:
        """Change the record of the trial whose run is kept in folder ``run``."""
        changed = self.record.find(run).model_copy(update=changes)

        def put(trials: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
            return tuple(changed if trial.run == run else trial for trial in trials)

        self.update(trials=put(self.record.trials), again=put(self.record.again))
        return changed

    def note(
        self,
        run: str,
        *,
        seconds: float,
        cost: Cost | None = None,
        epoch: EpochRecord | None = None,
        **changes: Any,
    ) -> TrialRecord:
        """Change a trial's record by what its process tells: ``seconds`` more, its cost, an epoch, and other changes.

        An epoch that is known already, as after a resume, is left out; of two latencies the lower one was less
        disturbed.
        """
        trial = self.record.find(run)
        if cost is not None and (trial.cost is None or cost.latency_ms < trial.cost.latency_ms):
            changes["cost"] = cost
        if epoch is not None and epoch.epoch == len(trial.epochs) + 1:
            changes["epochs"] = (*trial.epochs, epoch)
        return self.change(run, seconds=trial.seconds + seconds, **changes)

    def update(self, **changes: Any) -> None:
        """Change the record and keep it."""
        self.record = self.record.model_copy(update={"seconds": self.seconds, **changes})
        self._save()

    def withdraw(self) -> None:
        """Remove the record of a search that has no trial yet."""
        if not self.record.trials:
            self.store.delete(SWEEP_KEY)

    def conclude(self, state: str) -> SweepResult:
        """Work out the result of the trials so far, and keep it."""
        result = result_of(self.record)
        self.update(state=state, result=result)
        return result

    def _save(self) -> None:
        try:
            self._etag = self.store.put(SWEEP_KEY, self.record.to_json(), if_match=self._etag)
        except PreconditionFailedError as error:
            raise ConfigError(
                f"{self.store.locate(SWEEP_KEY)} was changed or removed by another process ({error.found})",
                "one process at a time on a search, and a store that keeps it",
                "end the other one, then resume",
            ) from error


def read_sweep(store: Store) -> tuple[SweepRecord, str]:
    """The record of the search in ``store``, and its etag. Raises ConfigError where there is none."""
    try:
        data, etag = store.get_with_etag(SWEEP_KEY)
    except ObjectNotFoundError as error:
        raise ConfigError(
            f"{store.url} holds no search", f"a {SWEEP_KEY}", "begin one: leave out --resume"
        ) from error
    return SweepRecord.from_json(data, store.locate(SWEEP_KEY)), etag


def result_of(record: SweepRecord) -> SweepResult:
    """Front, winner and importance of the trials that have figures."""
    points = {
        trial.number: values
        for trial in record.trials
        if (values := trial.objectives(record.config)) is not None
    }
    winner, why = choose_winner(record.trials, record.config)
    measured = [record.trial(number) for number in points]
    return SweepResult(
        front=tuple(pareto_front(points)),
        winner=winner,
        why=why,
        importance=importance([t.choices for t in measured], [points[t.number][0] for t in measured]),
    )


def spread_of(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation of ``values``, at least one."""
    found = tuple(values)
    return Spread(values=found, mean=mean(found), sd=stdev(found) if len(found) > 1 else None)


def _check_same(old: SweepRecord, new: SweepRecord, url: str) -> None:
    there, here = (
        {"manifest": r.manifest_digest[:12], "workers": r.workers, **r.config.model_dump()}
        for r in (old, new)
    )
    differing = [
        f"{name} {there[name]!r} there, {here[name]!r} here" for name in there if there[name] != here[name]
    ]
    if differing:
        raise ConfigError(
            f"the search {url} has other settings: {'; '.join(differing)}",
            "the settings it was begun with; only budgets and retraining may change",
            "leave them out: with --resume they are the defaults",
        )


def _what_is_kept(run: Store, trial: TrialRecord) -> dict[str, Any]:
    """What a trial's run knows that the record may not: the process was killed between the two."""
    history = tuple(load_history(run))
    epochs = history if len(history) > len(trial.epochs) else trial.epochs
    done = run.stat(WEIGHTS_KEY) is not None
    return {"epochs": epochs, "state": TrialState.FINISHED if done else TrialState.WAITING, "reason": ""}
