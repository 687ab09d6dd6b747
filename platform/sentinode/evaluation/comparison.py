"""What a comparison of two models is asked for and what it found: the models behind ``comparison.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.evaluation.records import EvaluationConfig
from sentinode.schema import RESEARCH_USE_ONLY


class ComparisonConfig(Frozen):
    """How two models are compared."""

    resamples: int = Field(default=10_000, ge=100, le=1_000_000)
    level: float = Field(default=0.95, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    workload_sensitivities: tuple[float, ...] = EvaluationConfig().workload_sensitivities


class Difference(Frozen):
    """A measure of both models, and A minus B; None where not estimable."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    """Two-sided, of no difference; of the bootstrap never below 2 / (resamples + 1)."""
    method: Literal["paired bootstrap over slides", "paired bootstrap over patches", "DeLong over slides",
                    "DeLong over patches"]  # fmt: skip


class McNemar(Frozen):
    """Verdicts against the reference at each model's own threshold."""

    threshold_a: float
    threshold_b: float
    only_a_right: int
    only_b_right: int
    p_value: float
    """Exact and two-sided; 1 where the verdicts never differ."""


class Disagreement(Frozen):
    """A patch of which the verdicts differ."""

    key: str
    slide: str | None
    label: int
    probability_a: float
    probability_b: float


class ComparisonReport(Record):
    """``comparison.json``: model A against model B on the same labelled patches."""

    model_a: str
    model_b: str
    config: ComparisonConfig
    patches: int
    positives: int
    interval_unit: Literal["slide", "patch"]
    differences: dict[str, Difference]
    mcnemar: McNemar
    disagreements: tuple[Disagreement, ...]
    """Widest apart first."""
    warnings: tuple[str, ...]
    notice: str = RESEARCH_USE_ONLY
