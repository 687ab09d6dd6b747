"""Two models on the same patches: paired differences with intervals, and where they disagree.

Differences are resampled in pairs (one draw of slides or patches serves both models); for AUROC DeLong's test
is given too; McNemar's exact test (McNemar 1947) compares verdicts and takes patches as independent.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from sentinode.errors import EvaluationError
from sentinode.evaluation import metrics
from sentinode.evaluation.comparison import (
    ComparisonConfig,
    ComparisonReport,
    Difference,
    Disagreement,
    McNemar,
)
from sentinode.evaluation.delong import delong, student_reach, two_sided_p
from sentinode.evaluation.guarantee import binomial_cdf
from sentinode.evaluation.intervals import bootstrap, percentile_interval, units_of
from sentinode.evaluation.metrics import AT_THRESHOLD, FloatArray, IntArray, RankedScores
from sentinode.evaluation.panel import workload_name
from sentinode.evaluation.predictions import Predictions


def compare(
    a: Predictions,
    b: Predictions,
    config: ComparisonConfig,
    threshold_a: float = 0.5,
    threshold_b: float = 0.5,
) -> ComparisonReport:
    """Compare on the patches of both, which must be the same and carry the same labels.

    Raises EvaluationError where they are not, where no patch is labelled, or where a class is missing.
    """
    a, b = _aligned(a, b)
    slides = a.slides.tolist()
    units_N, n_units = units_of(slides)
    by_slide = any(slide is not None for slide in slides)
    panel = _PairPanel(a, b, config.workload_sensitivities, threshold_a, threshold_b)
    values = panel(np.ones(len(a), np.int64))
    replicates = bootstrap(panel, units_N, n_units, config.resamples, config.seed)
    half = len(panel.names)
    differences = {
        name: _resampled(
            values[i], values[half + i], replicates[:, i] - replicates[:, half + i], by_slide, config
        )
        for i, name in enumerate(panel.names)
    }
    differences["auroc_delong"] = _delong(a, b, units_N if by_slide else None, config.level)
    warnings = []
    if by_slide:
        warnings.append("McNemar's p-value takes patches as independent: within slides they are not.")
    else:
        warnings.append("Slides are unknown: intervals are over patches, the true uncertainty is larger.")
    return ComparisonReport(
        model_a=a.model_digest,
        model_b=b.model_digest,
        config=config,
        patches=len(a),
        positives=int(a.labels.sum()),
        interval_unit="slide" if by_slide else "patch",
        differences=differences,
        mcnemar=mcnemar(a, b, threshold_a, threshold_b),
        disagreements=_disagreements(a, b, threshold_a, threshold_b),
        warnings=tuple(warnings),
    )


def mcnemar(a: Predictions, b: Predictions, threshold_a: float, threshold_b: float) -> McNemar:
    """The exact test on the same labelled patches in the same order."""
    right_a = (a.probabilities >= threshold_a) == (a.labels == 1)
    right_b = (b.probabilities >= threshold_b) == (b.labels == 1)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = min(1.0, 2 * binomial_cdf(min(only_a, only_b), only_a + only_b, 0.5)) if only_a + only_b else 1.0
    return McNemar(
        threshold_a=threshold_a, threshold_b=threshold_b, only_a_right=only_a, only_b_right=only_b, p_value=p
    )


class _PairPanel:
    """A statistic for ``bootstrap``: all measures of A, then all of B."""

    def __init__(
        self, a: Predictions, b: Predictions, sensitivities: tuple[float, ...], at_a: float, at_b: float
    ) -> None:
        self._sides = [(RankedScores.of(p.labels, p.probabilities), at) for p, at in ((a, at_a), (b, at_b))]
        self._sensitivities = sensitivities
        self.names = ("auroc", "average_precision", *map(workload_name, sensitivities), *AT_THRESHOLD)

    def __call__(self, weights_N: IntArray) -> FloatArray:
        values: list[float] = []
        for ranked, threshold in self._sides:
            curve = ranked.curve(weights_N)
            values += [metrics.auroc(curve), metrics.average_precision(curve)]
            values += [metrics.specificity_at_sensitivity(curve, s) for s in self._sensitivities]
            found = curve.confusion(threshold)
            values += [measure(found) for measure in AT_THRESHOLD.values()]
        return np.array(values)


def _resampled(
    a: float, b: float, replicates_R: FloatArray, by_slide: bool, config: ComparisonConfig
) -> Difference:
    method: Literal["paired bootstrap over slides", "paired bootstrap over patches"] = (
        "paired bootstrap over slides" if by_slide else "paired bootstrap over patches"
    )
    told_a, told_b = (None if np.isnan(v) else float(v) for v in (a, b))
    if told_a is None or told_b is None:
        return Difference(a=told_a, b=told_b, difference=None, method=method)
    found = Difference(a=told_a, b=told_b, difference=told_a - told_b, method=method)
    interval = percentile_interval(replicates_R, config.level)
    if interval is None:
        return found
    drawn = replicates_R[~np.isnan(replicates_R)]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return found.model_copy(update={"low": interval[0], "high": interval[1], "p_value": p})


def _delong(a: Predictions, b: Predictions, units_N: IntArray | None, level: float) -> Difference:
    areas = delong(a.labels, [a.probabilities, b.probabilities], units_N)
    difference, error = areas.difference(0, 1)
    both = float(areas.aurocs_K[0]), float(areas.aurocs_K[1])
    found = Difference(
        a=both[0],
        b=both[1],
        difference=difference,
        method="DeLong over patches" if units_N is None else "DeLong over slides",
    )
    if not error > 0:
        return found
    reach = student_reach(level, areas.freedom) * error
    p = two_sided_p(difference, error, areas.freedom)
    return found.model_copy(update={"low": difference - reach, "high": difference + reach, "p_value": p})


def _disagreements(a: Predictions, b: Predictions, at_a: float, at_b: float) -> tuple[Disagreement, ...]:
    rows = np.flatnonzero((a.probabilities >= at_a) != (b.probabilities >= at_b))
    rows = rows[np.argsort(-np.abs(a.probabilities[rows] - b.probabilities[rows]), kind="stable")]
    return tuple(
        Disagreement(
            key=str(a.keys[i]),
            slide=a.slides[i],
            label=int(a.labels[i]),
            probability_a=float(a.probabilities[i]),
            probability_b=float(b.probabilities[i]),
        )
        for i in rows
    )


def _aligned(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """The labelled patches of both, by rising key."""
    a, b = (p.select(np.argsort(p.keys, kind="stable")) for p in (a.labelled(), b.labelled()))
    if a.keys.tolist() != b.keys.tolist():
        only = np.setxor1d(a.keys, b.keys)
        raise EvaluationError(
            f"{len(only)} labelled patches stand in one of the two only, e.g. {only[0]}",
            "predictions of the same patches",
            "predict the same split with both",
        )
    differing = np.flatnonzero(a.labels != b.labels)
    if len(differing):
        raise EvaluationError(
            f"the two label {len(differing)} patches differently, e.g. {a.keys[differing[0]]}",
            "one reference",
            "give both the same --reference",
        )
    if not 0 < int(a.labels.sum()) < len(a):
        raise EvaluationError(f"{int(a.labels.sum())} tumour patches of {len(a)}", "both classes")
    return a, b
