"""What a search is told: objectives, sampler, early stopping, budgets, and what becomes of the winner."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.storage import StoreUrl

Quality = Literal["auroc", "specificity"]
CostName = Literal["latency", "parameters"]
Sampler = Literal["auto", "tpe", "nsga2", "random", "grid"]

QUALITY_NAMES: dict[Quality, str] = {
    "auroc": "validation AUROC",
    "specificity": "validation specificity at 99 % sensitivity",
}
COST_NAMES: dict[CostName, str] = {"latency": "ms per patch", "parameters": "parameters"}


class StopConfig(Frozen):
    """Asynchronous successive halving (ASHA; Li et al. 2020, "A system for massively parallel hyperparameter
    tuning").
    """

    early: bool = True
    """End trials that do worse than the others did at the same epoch."""
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that every trial gets."""
    reduction: int = Field(default=3, ge=2)
    """At epoch grace, grace * reduction, ... the best 1 / reduction of the trials go on."""
    within_family: bool = True
    """Compare trials of one family of networks only; else those that learn slowly at first are stopped for it."""


class Budget(Frozen):
    """Where a search ends, whatever comes first; training the winner again comes on top. A search that is resumed may
    be given more.
    """

    trials: int = Field(default=24, ge=1)
    """Trials, those that failed included."""
    hours: float | None = Field(default=None, gt=0)
    """Wall time of the search, all its processes together; trials under way are broken off then."""
    cost: float | None = Field(default=None, gt=0)
    """Most that the workers' time may cost, at price; trials under way are broken off then."""
    price: float = Field(default=1.0, ge=0)
    """Of one worker for one hour, in any currency; 1 makes the cost worker hours."""


class RetrainConfig(Frozen):
    """The winner trained again: how much of its figure is luck. A search that is resumed may be given other values."""

    seeds: int = Field(default=3, ge=0)
    """Seeds to train it with, each other than the search's; 0 leaves it at the search."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs of each; by default those of the search."""
    data: StoreUrl | None = None
    """Data set to train it on; by default that of the search."""


class SearchConfig(Frozen):
    """What is searched, and by which rules. Two processes that work on one search must agree on it."""

    space: str = "two-core"
    """Search space."""
    quality: Quality = "auroc"
    """What is to be high on the validation split: AUROC, or specificity at 99 % sensitivity."""
    costs: tuple[CostName, ...] = ("latency",)
    """What is to be low at the same time: measured inference time per patch, parameters, or nothing."""
    latency_budget_ms: float | None = Field(default=None, gt=0)
    """The winner may take no longer for a patch (ONNX Runtime, one thread of the machine that trains)."""
    sampler: Sampler = "auto"
    """tpe, also with several objectives, is what auto takes: choices of a space depend on its family, and nsga2
    draws those by chance. grid: every combination of a space without numbers."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs of a trial that is not stopped; by default the space's."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the sampler. Trials train with the seed of their recipe."""
    stop: StopConfig = StopConfig()
    """Early stopping."""

    @model_validator(mode="after")
    def _check_costs(self) -> Self:
        if len(set(self.costs)) != len(self.costs):
            raise ConfigError(f"costs are {', '.join(self.costs)}", "each cost once")
        return self

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives: the quality, which is to be high, then the costs, which are to be low."""
        return self.quality, *self.costs
