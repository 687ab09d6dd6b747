"""What a search gives Ray Tune to work with: who hands out trials, who hears of them, who ends everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search_desk import BrokenOff, Cause, Desk
from sentinode.distributed.search_room import RoomWatch
from sentinode.distributed.search_trial import Told, TrialTask
from sentinode.distributed.stop_signals import StopSignals

ATTEMPTS_AFTER_LOSS = 1
"""A trial whose process is lost (a node gone, killed for memory) is begun again so often, from its checkpoint."""


class TrialSearcher(Searcher):  # type: ignore[misc]
    """Asks the desk for trials, as Ray Tune wants it."""

    def __init__(self, desk: Desk, scaling: ScalingSettings) -> None:
        super().__init__()
        self.desk, self._scaling = desk, scaling
        self.runs: dict[str, str] = {}
        """Folder of the run by Tune's name of the trial."""

    def suggest(self, trial_id: str) -> Any:
        trial = self.desk.hand_out()
        if trial is None:
            return Searcher.FINISHED
        self.runs[trial_id] = trial.run
        sweep = self.desk.sweep
        task = TrialTask(
            experiment=sweep.record.experiment(trial, sweep.store.url),
            scaling=self._scaling,
            search=sweep.record.name,
            number=trial.number,
            choices=trial.choices,
            cost=trial.cost,
        )
        return {"task": task.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass  # the desk is told by the callback

    def save(self, checkpoint_path: str) -> None:
        pass  # sweep.json has it all

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from sweep.json, never by Ray Tune")


class TrialMessenger(tune.Callback):  # type: ignore[misc]
    """Tells the desk what Ray Tune says of the trials."""

    def __init__(self, desk: Desk, runs: dict[str, str]) -> None:
        self._desk, self._runs = desk, runs
        self._actors: dict[str, str] = {}

    def run_of(self, message: str) -> str | None:
        """The run of the trial whose actor Ray names in ``message``, None where it names none."""
        return next((run for actor, run in self._actors.items() if actor in message), None)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        run = self._runs[trial.trial_id]
        actor = getattr(trial.temporary_state, "ray_actor", None)
        if actor is not None:
            # A process serves several trials, one after the other.
            self._actors[actor._actor_id.hex()] = run
        self._desk.began(run)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._desk.hear(self._runs[trial.trial_id], Told.model_validate_json(result["told"]))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._desk.ended(self._runs[trial.trial_id])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines()
        cause = f" ({lines[-1]})" if lines else ""
        why = f"its process was lost {1 + ATTEMPTS_AFTER_LOSS} times, perhaps for memory{cause}"
        self._desk.ended(self._runs[trial.trial_id], lost=why)


class TrialStopper(tune.Stopper):  # type: ignore[misc]
    """Ends everything when a signal came, a budget is spent, or no node is left that a trial fits on."""

    def __init__(self, signals: StopSignals, spent: Callable[[], str | None], room: RoomWatch) -> None:
        self._signals, self._spent, self._room = signals, spent, room
        self.broken_off: BrokenOff | None = None

    def __call__(self, trial_id: str, result: Any) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.broken_off is None:
            if self._signals.came is not None:
                self.broken_off = BrokenOff(self._signals.came, Cause.SIGNAL)
            elif (why := self._spent()) is not None:
                self.broken_off = BrokenOff(why, Cause.BUDGET)
            elif (why := self._room.gone()) is not None:
                self.broken_off = BrokenOff(why, Cause.NO_ROOM)
        return self.broken_off is not None
