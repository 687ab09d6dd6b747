"""What is kept of a search: ``sweep.json`` in its folder, and below ``trials/`` a run for each trial."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.experiment import Experiment
from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.search.config import Budget, CostName, Quality, RetrainConfig, SearchConfig
from sentinode.search.space import Choice
from sentinode.storage import StoreUrl
from sentinode.training.config import Recipe
from sentinode.training.metrics import EpochRecord, best_epoch

SWEEP_KEY: Final = "sweep.json"


class TrialState(StrEnum):
    """How far a trial is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """Ended by early stopping: others did better at the same epoch."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Broken off by a signal or a spent budget; a resumed search goes on with it."""


OVER: Final = frozenset({TrialState.FINISHED, TrialState.STOPPED, TrialState.FAILED})
"""States in which a trial is never run again."""


class Cost(Frozen):
    """What a network costs, measured before it is trained."""

    latency_ms: float = Field(gt=0)
    """Milliseconds per patch: ONNX Runtime, float32, batches of 32, the fastest of several; on a CPU the time of
    one thread on its core.
    """
    parameters: int = Field(ge=0)


class TrialRecord(Frozen):
    """One trial: what was drawn, how it went."""

    number: int = Field(ge=0)
    """From 0, in the order of drawing."""
    run: str = Field(pattern=r"^[a-z0-9/-]+$")
    """Folder of its run below the search's."""
    choices: dict[str, Choice]
    """What was drawn, by name."""
    recipe: Recipe
    state: TrialState = TrialState.WAITING
    reason: str = ""
    """Why it failed or was broken off."""
    cost: Cost | None = None
    epochs: tuple[EpochRecord, ...] = ()
    seconds: float = Field(default=0.0, ge=0)
    """Wall time of its training, all attempts together."""

    @property
    def family(self) -> str:
        model = self.recipe.model
        return model.family if model.family != "timm" else f"timm {model.name}"

    @property
    def best(self) -> EpochRecord | None:
        """The epoch whose weights are kept, None before the first one ends."""
        return best_epoch(self.epochs, self.recipe.train.best_by)

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    def quality(self, name: Quality) -> float | None:
        """The objective at the best epoch; None before the first one ends."""
        best = self.best
        if best is None:
            return None
        return best.valid_auroc if name == "auroc" else best.valid_specificity

    def cost_of(self, name: CostName) -> float | None:
        if self.cost is None:
            return None
        return self.cost.latency_ms if name == "latency" else float(self.cost.parameters)

    def objectives(self, config: SearchConfig) -> tuple[float, ...] | None:
        """Quality, then costs; None where one of them is not known."""
        values = (self.quality(config.quality), *(self.cost_of(name) for name in config.costs))
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(values) and self.state is not TrialState.FAILED else None


class SearchPart(Frozen):
    """Which trial of which search a run is, for tracking."""

    search: str
    """Its name."""
    trial: int
    choices: dict[str, Choice]
    cost: Cost | None = None


class Spread(Frozen):
    """A figure over several seeds."""

    values: tuple[float, ...]
    mean: float
    sd: float | None
    """Sample standard deviation; None with one seed."""


class Importance(Frozen):
    """How much one choice tells about the quality."""

    choice: str
    share: float = Field(ge=0, le=1)
    """Share of the variance over trials that goes with this choice alone (adjusted eta squared)."""
    trials: int
    """Trials that had to make this choice."""


class SweepResult(Frozen):
    """What a search came to, of the trials that are over so far."""

    front: tuple[int, ...]
    """Numbers of the Pareto-optimal trials, the best quality first."""
    winner: int | None
    """Number of the winner; None where no trial qualifies."""
    why: str
    """How the winner was chosen, or why there is none, in a sentence."""
    importance: tuple[Importance, ...]


class SweepRecord(Record):
    """``sweep.json``."""

    name: str
    data: StoreUrl
    dataset: str
    manifest_digest: str
    code_commit: str
    versions: dict[str, str]
    started_at: str
    """UTC, ISO 8601."""
    machine: str
    """Where costs were measured."""
    config: SearchConfig
    budget: Budget
    retrain: RetrainConfig
    workers: int = Field(ge=1)
    """Of each trial."""
    state: str = Field(default="running", pattern="^(running|interrupted|searched|finished)$")
    """searched: all trials are over; finished: the winner was trained again and evaluated, where asked for."""
    seconds: float = Field(default=0.0, ge=0)
    """Wall time of the search, all processes together."""
    trials: tuple[TrialRecord, ...] = ()
    result: SweepResult | None = None
    again: tuple[TrialRecord, ...] = ()
    """The winner, trained again with other seeds; numbers count from 0, runs lie below ``winner/``."""
    spread: Spread | None = None
    """Quality over the seeds of ``again``."""
    evaluated_run: str | None = None
    """URL of the run that was evaluated: the winner's best seed, for ``sentinode promote``."""
    notice: str = RESEARCH_USE_ONLY

    def trial(self, number: int) -> TrialRecord:
        return self.trials[number]

    def find(self, run: str) -> TrialRecord:
        """The trial, or the winner's retraining, whose run is kept in folder ``run``."""
        return next(trial for trial in (*self.trials, *self.again) if trial.run == run)

    def experiment(self, trial: TrialRecord, sweep: str) -> Experiment:
        """What ``trial`` trains; ``sweep`` is the search's URL."""
        data = self.data if trial in self.trials else self.retrain.data or self.data
        return Experiment.of(trial.recipe, data, f"{sweep.rstrip('/')}/{trial.run}")
