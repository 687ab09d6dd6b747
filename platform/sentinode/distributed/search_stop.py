"""Early stopping: asynchronous successive halving (ASHA), each trial among its like."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from sentinode.distributed.search_trial import RUNG_FIGURES, TrialTask
from sentinode.search.config import SearchConfig
from sentinode.search.records import SweepRecord


def early_stopping(record: SweepRecord, longest: int) -> FIFOScheduler:
    """The scheduler for trials of at most ``longest`` epochs, which knows how those of ``record`` did."""
    config = record.config
    if not config.stop.early or config.stop.grace_epochs >= longest:
        return FIFOScheduler()
    ladders = Ladders(lambda: _asha(config, longest), within_family=config.stop.within_family)
    for trial in record.trials:
        ladders.join(trial.run, trial.number, trial.recipe.model.family)
        for epoch in trial.epochs:
            ladders.on_trial_result(None, SimpleNamespace(trial_id=trial.run), epoch.model_dump())
    return ladders


class Ladders(FIFOScheduler):  # type: ignore[misc]
    """A ladder of rungs for each family of networks, or one for all.

    Families learn at different speeds: on one ladder those that start slowly lose every comparison at the first rungs,
    however good they become. Within a family the same number of epochs says the same of each trial. The first trial of
    a family has nobody to lose against and is trained to its end.
    """

    def __init__(self, ladder: Callable[[], ASHAScheduler], *, within_family: bool) -> None:
        super().__init__()
        self._new, self._within_family = ladder, within_family
        self._ladders: dict[str, ASHAScheduler] = {}
        self._places: dict[str, tuple[ASHAScheduler, Any]] = {}
        """By Ray Tune's name of the trial: its ladder, and who it is there."""

    def join(self, trial_id: str, number: int, family: str) -> None:
        """Put trial ``number``, which Ray Tune now calls ``trial_id``, on the ladder of ``family``.

        A resumed trial tells its former epochs again under another name, and is not judged by them a second time.
        """
        name = family if self._within_family else ""
        if name not in self._ladders:
            self._ladders[name] = self._new()
        there = SimpleNamespace(trial_id=str(number))
        self._ladders[name].on_trial_add(None, there)
        self._places[trial_id] = self._ladders[name], there

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        task = TrialTask.model_validate_json(trial.config["task"])
        self.join(trial.trial_id, task.number, task.experiment.model.family)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ladder, there = self._places[trial.trial_id]
        answer: str = ladder.on_trial_result(tune_controller, there, result)
        return answer


def _asha(config: SearchConfig, longest: int) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="epoch",
        metric=RUNG_FIGURES[config.quality],
        mode="max",
        # No rung at the very end: a trial that has come so far is finished.
        max_t=longest - 1,
        grace_period=config.stop.grace_epochs,
        reduction_factor=config.stop.reduction,
        stop_last_trials=False,
    )
