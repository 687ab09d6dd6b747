"""The evaluation: thresholds from validation, every measure with its interval, and what to be careful about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from sentinode.config import Frozen, Record
from sentinode.errors import EvaluationError, LeakError
from sentinode.evaluation import cautions
from sentinode.evaluation.calibration import ReliabilityBin, reliability
from sentinode.evaluation.intervals import bootstrap, clopper_pearson, percentile_interval, units_of
from sentinode.evaluation.metrics import Confusion, FloatArray, RankedScores
from sentinode.evaluation.operating_point import OperatingPoint, at_sensitivity, youden
from sentinode.evaluation.panel import MeasurePanel
from sentinode.evaluation.predictions import Predictions

RESEARCH_USE = "For research use only. Not a medical device; not for diagnosis or treatment decisions."


class EvaluationConfig(Frozen):
    """How predictions are evaluated."""

    screening_sensitivity: float = Field(default=0.99, gt=0, le=1)
    """Sensitivity that the `screening` threshold must reach on validation."""
    target_sensitivities: tuple[float, ...] = ()
    """Further thresholds, one for each sensitivity in (0, 1]; named `sensitivity-0.95` and so on."""
    operating_point: str = "screening"
    """The operating point of the headline and of verdicts: screening, balanced, or one of the further ones."""
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
        further = {f"sensitivity-{s:g}": s for s in self.target_sensitivities}
        return {"screening": self.screening_sensitivity, "balanced": None, **further}


class Estimate(Frozen):
    """A figure and its interval; None where it cannot be estimated from these patches."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: Literal["bootstrap over slides", "bootstrap over patches", "exact over patches", "none"] = "none"
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
    notice: str = RESEARCH_USE

    @property
    def headline(self) -> SplitResult:
        """The split whose figures count: test, or validation where there is no test."""
        return self.test or self.valid

    @property
    def verdict_point(self) -> OperatingPoint:
        """The operating point of the headline and of verdicts."""
        return next(p for p in self.operating_points if p.name == self.config.operating_point)


def evaluate(valid: Predictions, test: Predictions | None, config: EvaluationConfig) -> EvaluationReport:
    """Choose thresholds on ``valid``, measure both splits with intervals, and say what to be careful about.

    Unlabelled patches are left out and counted. Raises EvaluationError where validation lacks a class, where ``test``
    holds no label, or where the two come from different models or data sets; LeakError where they share a patch.
    """
    if test is not None:
        _check_pair(valid, test)
    curve = _ranked(valid, "validation").curve()
    points = tuple(
        youden(curve, name) if target is None else at_sensitivity(curve, target, name)
        for name, target in config.points.items()
    )
    valid_result = _measure(valid, points, config)
    test_result = None if test is None else _measure(test, points, config)
    verdict_point = next(p for p in points if p.name == config.operating_point)
    headline = test_result or valid_result
    return EvaluationReport(
        model_digest=valid.model_digest,
        manifest_digest=valid.manifest_digest,
        config=config,
        operating_points=points,
        valid=valid_result,
        test=test_result,
        summary=cautions.summary(headline, verdict_point, config.level),
        warnings=cautions.warnings(valid, test, headline, points),
    )


def _measure(
    predictions: Predictions, points: tuple[OperatingPoint, ...], config: EvaluationConfig
) -> SplitResult:
    split = str(predictions.splits[0]) if len(predictions) else "empty"
    _ranked(predictions, split)
    labelled = predictions.labelled()
    panel = MeasurePanel(
        labelled, points, config.workload_sensitivities, config.reliability_bins, config.prevalence
    )
    slides = [slide for slide in labelled.slides.tolist() if slide is not None]
    units, n_units = units_of(labelled.slides.tolist())
    values = panel(np.ones(len(labelled), np.int64))
    replicates = bootstrap(panel, units, n_units, config.resamples, config.seed)
    by_slide = bool(slides)
    estimates = {
        name: _estimate(values[i], replicates[:, i], by_slide, config.level)
        for i, name in enumerate(panel.names)
    }
    return SplitResult(
        split=split,
        patches=len(labelled),
        positives=panel.curve.positives,
        negatives=panel.curve.negatives,
        unlabelled=len(predictions) - len(labelled),
        slides=len(set(slides)) if labelled.slides_known else None,
        interval_unit="slide" if by_slide else "patch",
        measures={name: e for name, e in estimates.items() if "/" not in name},
        points={p.name: _at_point(p.name, panel, estimates, by_slide, config.level) for p in points},
        reliability=reliability(labelled.labels, labelled.probabilities, config.reliability_bins),
    )


def _estimate(value: float, replicates_R: FloatArray, by_slide: bool, level: float) -> Estimate:
    if math.isnan(value):
        return Estimate(value=None)
    interval = percentile_interval(replicates_R, level)
    if interval is None:
        return Estimate(value=float(value))
    method: Literal["bootstrap over slides", "bootstrap over patches"] = (
        "bootstrap over slides" if by_slide else "bootstrap over patches"
    )
    return Estimate(value=float(value), low=interval[0], high=interval[1], method=method)


def _at_point(
    point: str, panel: MeasurePanel, estimates: Mapping[str, Estimate], by_slide: bool, level: float
) -> PointResult:
    """Proportions get exact intervals where patches are the unit, or where the bootstrap has no width to show."""
    found = panel.confusion(point)
    measures = {
        name.removeprefix(f"{point}/"): e for name, e in estimates.items() if name.startswith(f"{point}/")
    }
    for name, (successes, trials) in _proportions(found).items():
        if trials and (not by_slide or measures[name].method == "none"):
            low, high = clopper_pearson(successes, trials, level)
            measures[name] = Estimate(
                value=measures[name].value, low=low, high=high, method="exact over patches"
            )
    return PointResult(tp=found.tp, fp=found.fp, tn=found.tn, fn=found.fn, measures=measures)


def _proportions(c: Confusion) -> dict[str, tuple[int, int]]:
    """Measures that are counts out of counts."""
    return {
        "sensitivity": (c.tp, c.tp + c.fn),
        "specificity": (c.tn, c.tn + c.fp),
        "ppv": (c.tp, c.tp + c.fp),
        "npv": (c.tn, c.tn + c.fn),
        "accuracy": (c.tp + c.tn, c.tp + c.fp + c.tn + c.fn),
    }


def _ranked(predictions: Predictions, split: str) -> RankedScores:
    labelled = predictions.labelled()
    if not len(labelled):
        raise EvaluationError(
            f"none of the {len(predictions)} patches of {split} carries a label",
            "labelled patches",
            "leave this split out, or write a submission instead",
        )
    return RankedScores.of(labelled.labels, labelled.probabilities)


def _check_pair(valid: Predictions, test: Predictions) -> None:
    for name in ("model_digest", "manifest_digest"):
        ours, theirs = getattr(valid, name), getattr(test, name)
        if ours != theirs:
            raise EvaluationError(
                f"{name} {ours!r} in validation and {theirs!r} in test",
                "both splits of one data set, predicted by one model",
                "predict both splits again",
            )
    shared = np.intersect1d(valid.keys, test.keys)
    if len(shared):
        raise LeakError(
            f"{len(shared)} patches stand in validation and in test, e.g. {shared[0]}",
            "splits without a common patch",
            "ingest again: it removes duplicates over splits",
        )
