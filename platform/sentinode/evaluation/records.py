"""What an evaluation is asked for and what it found: the models behind ``report.json``."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from sentinode.config import Frozen, Record
from sentinode.evaluation.calibration import ReliabilityBin
from sentinode.evaluation.calibrator import Calibration, CalibrationMethod
from sentinode.evaluation.guarantee import GuaranteeKind
from sentinode.evaluation.operating_point import Aim, OperatingPoint
from sentinode.evaluation.slide_level import SlideLevelResult
from sentinode.evaluation.slide_pooling import PoolingConfig
from sentinode.schema import RESEARCH_USE_ONLY

IntervalMethod = Literal[
    "bootstrap over slides",
    "bootstrap over patches",
    "exact over patches",
    "DeLong over slides",
    "DeLong over patches",
    "none",
]


class EvaluationConfig(Frozen):
    """How predictions are evaluated."""

    screening_sensitivity: float = Field(default=0.99, gt=0, le=1)
    """Sensitivity that the `screening` threshold must reach on validation."""
    points: tuple[str, ...] = ()
    """Further thresholds as name=sensitivity:0.97, name=specificity:0.9 or name=threshold:0.5."""
    guarantee: GuaranteeKind = "expectation"
    """How a sensitivity holds on new data (conformal risk control): in expectation, with confidence, or none."""
    guarantee_confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the guarantee with confidence."""
    calibration: CalibrationMethod = "temperature"
    """How probabilities are calibrated, on validation only."""
    operating_point: str = "screening"
    """Operating point of the headline and of verdicts: screening, balanced, or one of the further ones."""
    workload_sensitivities: tuple[float, ...] = (0.95, 0.99, 1.0)
    """Sensitivities at which the share of negatives that need not be read is stated."""
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    """Share of tumour patches at which PPV and NPV are stated as well; by default only as sampled."""
    slide_pooling: PoolingConfig = PoolingConfig()
    """How patches become slide scores, where slides are known; logistic is fitted on validation slides."""
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
        values = self.workload_sensitivities
        if not all(0 < s <= 1 for s in values) or len(set(values)) != len(values):
            raise ValueError(f"workload_sensitivities must be different shares in (0, 1], found {values}")
        names = ["screening", "balanced", *(text.partition("=")[0] for text in self.points)]
        if len(set(names)) != len(names) or not all(_NAME.fullmatch(name) for name in names):
            raise ValueError(f"operating points need different plain names, found {', '.join(names)}")
        for text in self.points:
            try:
                Aim.parse(text.partition("=")[2])
            except (ValidationError, ValueError) as error:
                raise ValueError(f"operating point {text!r} is not like name=sensitivity:0.97") from error
        if self.operating_point not in names:
            raise ValueError(f"operating_point {self.operating_point!r} is none of {', '.join(names)}")
        return self

    @property
    def aims(self) -> dict[str, Aim]:
        """What each operating point is chosen for, by name."""
        further = {name: Aim.parse(rule) for name, _, rule in (text.partition("=") for text in self.points)}
        screening = Aim(rule="sensitivity", value=self.screening_sensitivity)
        return {"screening": screening, "balanced": Aim(rule="youden"), **further}


_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


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


StratumKind = Literal["slide", "centre", "lesion size"]


class Stratum(Frozen):
    """The patches of one slide, centre or lesion size, at the operating point of the headline.

    Intervals are exact, or DeLong's for AUROC; both take the patches of a stratum as independent.
    """

    kind: StratumKind
    name: str
    patches: int
    positives: int
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate


class WorstStratum(Frozen):
    """The stratum with the lowest figure among those with enough patches to tell."""

    kind: StratumKind
    name: str
    measure: Literal["sensitivity", "specificity"]
    value: float
    patches: int
    """Patches of the class that the measure counts."""


class WorkloadPoint(Frozen):
    """What is saved at one sensitivity: the shares of patches that need not be read."""

    sensitivity: float
    negatives_set_aside: float
    """The specificity."""
    reading_saved: float
    """Share of all patches set aside, at the prevalence of these patches."""
    reading_saved_at_prevalence: float | None
    """The same at the stated prevalence."""


class SplitResult(Frozen):
    """One split in figures."""

    split: str
    patches: int
    positives: int
    negatives: int
    unlabelled: int
    """Patches without a label, which no figure includes."""
    slides: int | None
    """Number of slides that patches name, None where none does."""
    interval_unit: Literal["slide", "patch"]
    """What the bootstrap draws."""
    measures: dict[str, Estimate]
    points: dict[str, PointResult]
    """By name of the operating point."""
    reliability: tuple[ReliabilityBin, ...]
    workload: tuple[WorkloadPoint, ...] = ()
    """By rising sensitivity; empty with one class only."""
    strata: tuple[Stratum, ...] = ()
    """By slide, centre and lesion size, as far as these are known."""
    worst_strata: tuple[WorstStratum, ...] = ()
    """Of each kind, by sensitivity and by specificity."""


class EvaluationReport(Record):
    """The figures of one model on one data set, as in ``report.json``."""

    model_digest: str
    manifest_digest: str
    config: EvaluationConfig
    operating_points: tuple[OperatingPoint, ...]
    calibration: Calibration = Calibration()
    """From logit to the probability that thresholds and measures use; fitted on validation."""
    calibration_at_prevalence: Calibration | None = None
    """The same for the stated prevalence: probabilities that hold where tumour is as rare as that."""
    test_uses: int = Field(default=0, ge=0)
    """How often this model has been measured on this test split, this time included. Predictions of a
    single split named test count too; 0 without any."""
    valid: SplitResult
    test: SplitResult | None
    """None where the data set has no labelled test split."""
    slide_level: SlideLevelResult | None = None
    """Of the headline split: slide scores pooled from its patches; None where slides are unknown."""
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
