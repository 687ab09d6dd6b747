"""What an evaluation is asked for and what it found: the models behind ``report.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sentinode.config import Frozen, Record
from sentinode.evaluation.calibration import ReliabilityBin
from sentinode.evaluation.operating_point import OperatingPoint
from sentinode.schema import RESEARCH_USE_ONLY

IntervalMethod = Literal["bootstrap over slides", "bootstrap over patches", "exact over patches", "none"]


class EvaluationConfig(Frozen):
    """How predictions are evaluated."""

    screening_sensitivity: float = Field(default=0.99, gt=0, le=1)
    """Sensitivity that the `screening` threshold must reach on validation."""
    target_sensitivities: tuple[float, ...] = ()
    """Further thresholds, by sensitivity in (0, 1]; named `sensitivity-95`, `sensitivity-99_5` and so on."""
    operating_point: str = "screening"
    """Operating point of the headline and of verdicts: screening, balanced, or one of the further ones."""
    workload_sensitivities: tuple[float, ...] = (0.95, 0.99, 1.0)
    """Sensitivities at which the share of negatives that need not be read is stated."""
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    """Share of tumour patches at which PPV and NPV are stated as well; by default only as sampled."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Bootstrap resamples."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level of all intervals."""
    reliability_bins: int = Field(default=15, ge=2, le=100)
    """Equal-width bins of the reliability plot and of ECE."""
    seed: int = Field(default=0, ge=0)
    """Seed of the bootstrap."""

    @model_validator(mode="after")
    def _check(self) -> EvaluationConfig:
        for name in ("target_sensitivities", "workload_sensitivities"):
            values = getattr(self, name)
            if not all(0 < s <= 1 for s in values) or len(set(values)) != len(values):
                raise ValueError(f"{name} must be different shares in (0, 1], found {values}")
        if self.operating_point not in self.points:
            raise ValueError(f"operating_point {self.operating_point!r} is none of {', '.join(self.points)}")
        return self

    @property
    def points(self) -> dict[str, float | None]:
        """Name of each operating point and the sensitivity it must reach, None for `balanced`."""
        further = {f"sensitivity-{100 * s:g}".replace(".", "_"): s for s in self.target_sensitivities}
        return {"screening": self.screening_sensitivity, "balanced": None, **further}


class Estimate(Frozen):
    """A figure and its interval; None where it cannot be estimated from these patches."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: IntervalMethod = "none"
    """How the interval was made; ``exact`` is Clopper and Pearson's."""


class PointResult(Frozen):
    """One split at one operating point."""

    tp: int
    fp: int
    tn: int
    fn: int
    measures: dict[str, Estimate]


class SplitResult(Frozen):
    """One split in figures."""

    split: str
    patches: int
    positives: int
    negatives: int
    unlabelled: int
    """Patches without a label, which no figure includes."""
    slides: int | None
    """Number of slides, None where unknown."""
    interval_unit: Literal["slide", "patch"]
    """What the bootstrap draws."""
    measures: dict[str, Estimate]
    points: dict[str, PointResult]
    """By name of the operating point."""
    reliability: tuple[ReliabilityBin, ...]


class EvaluationReport(Record):
    """The figures of one model on one data set, as in ``report.json``."""

    model_digest: str
    manifest_digest: str
    config: EvaluationConfig
    operating_points: tuple[OperatingPoint, ...]
    valid: SplitResult
    test: SplitResult | None
    """None where the data set has no labelled test split."""
    summary: str
    """The headline as plain sentences."""
    warnings: tuple[str, ...]
    notice: str = RESEARCH_USE_ONLY

    @property
    def headline(self) -> SplitResult:
        """The split whose figures count: test, or validation where there is no test."""
        return self.test or self.valid

    @property
    def verdict_point(self) -> OperatingPoint:
        """The operating point of the headline and of verdicts."""
        return next(p for p in self.operating_points if p.name == self.config.operating_point)
