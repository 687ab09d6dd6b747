"""Measures of discrimination, from labels and scores, in numpy.

``RankedScores`` sorts the patches once, and ``ScoreCurve`` counts true and false positives at each distinct
score; every measure follows from these counts. Weights measure a resample without sorting again:

    auroc(RankedScores.of(labels, scores).curve())

A patch is called tumour if its score is at least the threshold. A measure that cannot be estimated (no
positives, nothing flagged, ...) is NaN here, and None in reports: never a number that looks like a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentinode.errors import EvaluationError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ScoreCurve:
    """True and false positives when each score >= ``thresholds_T[t]`` is flagged, for T distinct scores."""

    thresholds_T: FloatArray
    """Distinct scores, falling."""
    tp_T: IntArray
    fp_T: IntArray

    @property
    def positives(self) -> int:
        return int(self.tp_T[-1])

    @property
    def negatives(self) -> int:
        return int(self.fp_T[-1])

    def confusion(self, threshold: float) -> Confusion:
        """Counts when scores >= ``threshold`` are flagged."""
        flagged = int(np.searchsorted(-self.thresholds_T, -threshold, side="right"))
        return self.confusion_of(flagged)

    def confusion_of(self, flagged: int) -> Confusion:
        """Counts when the ``flagged`` highest distinct scores are flagged."""
        tp, fp = (int(self.tp_T[flagged - 1]), int(self.fp_T[flagged - 1])) if flagged else (0, 0)
        return Confusion(tp=tp, fp=fp, tn=self.negatives - fp, fn=self.positives - tp)

    def roc(self) -> tuple[FloatArray, FloatArray]:
        """False positive rate and sensitivity, each [T + 1], from (0, 0) to (1, 1)."""
        fpr = np.concatenate(([0.0], _divide(self.fp_T, self.negatives)))
        return fpr, np.concatenate(([0.0], _divide(self.tp_T, self.positives)))

    def precision_recall(self) -> tuple[FloatArray, FloatArray]:
        """Precision (PPV) and recall (sensitivity), each [T], by falling threshold."""
        return _divide(self.tp_T, self.tp_T + self.fp_T), _divide(self.tp_T, self.positives)


@dataclass(frozen=True)
class RankedScores:
    """N patches sorted by falling score."""

    order_N: IntArray
    labels_N: IntArray
    scores_N: FloatArray
    ends_T: IntArray | None
    """Position of the last patch of each distinct score; None where no score stands twice."""

    @classmethod
    def of(cls, labels: ArrayLike, scores: ArrayLike) -> Self:
        """Sort. Raises EvaluationError on unequal lengths, labels other than 0 and 1, NaN, or no patch."""
        labels_N, scores_N = np.asarray(labels), np.asarray(scores, np.float64)
        if labels_N.shape != scores_N.shape or labels_N.ndim != 1:
            found = f"labels {list(labels_N.shape)} and scores {list(scores_N.shape)}"
            raise EvaluationError(found, "one label and one score a patch")
        if not len(labels_N):
            raise EvaluationError("no patch to measure", "labelled patches")
        if not np.isin(labels_N, (0, 1)).all():
            raise EvaluationError("labels other than 0 and 1", "labelled patches only")
        if np.isnan(scores_N).any():
            raise EvaluationError(
                f"{int(np.isnan(scores_N).sum())} scores are NaN", "a number for each patch"
            )
        order = np.argsort(-scores_N, kind="stable")
        ranked = scores_N[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        return cls(order, labels_N[order].astype(np.int64), ranked, None if len(ends) == len(order) else ends)

    def curve(self, weights_N: IntArray | None = None) -> ScoreCurve:
        """The counts, each patch counted ``weights_N`` times (in the original order of the patches)."""
        if weights_N is None:
            tp, all_flagged = np.cumsum(self.labels_N), np.arange(1, len(self.order_N) + 1)
        else:
            weights = np.take(weights_N, self.order_N)
            all_flagged = np.cumsum(weights)
            weights *= self.labels_N
            tp = np.cumsum(weights)
        if self.ends_T is None:
            return ScoreCurve(self.scores_N, tp, all_flagged - tp)
        tp = tp[self.ends_T]
        return ScoreCurve(self.scores_N[self.ends_T], tp, all_flagged[self.ends_T] - tp)


@dataclass(frozen=True)
class Confusion:
    """Counts at one threshold."""

    tp: int
    fp: int
    tn: int
    fn: int


def auroc(curve: ScoreCurve) -> float:
    """Area under the ROC curve: the chance that a tumour patch scores above a negative one.

    Ties count half. NaN with one class only.
    """
    if not (curve.positives and curve.negatives):
        return math.nan
    steps = np.diff(curve.fp_T, prepend=0)
    twice = np.dot(steps, curve.tp_T) + np.dot(steps[1:], curve.tp_T[:-1])
    return float(twice) / (2.0 * curve.positives * curve.negatives)


def average_precision(curve: ScoreCurve) -> float:
    """Mean precision over the recalled tumour patches, without interpolation. NaN without positives."""
    if not curve.positives:
        return math.nan
    steps = np.diff(curve.tp_T, prepend=0)
    # Not np.dot: on floats it wakes BLAS threads, which on a busy machine cost 10 times the CPU time.
    return float(np.sum(steps * (curve.tp_T / np.maximum(curve.tp_T + curve.fp_T, 1)))) / curve.positives


def specificity_at_sensitivity(curve: ScoreCurve, sensitivity: float) -> float:
    """The highest specificity among thresholds whose sensitivity is at least ``sensitivity``.

    It is the share of negative patches that need not be read. NaN with one class only.
    """
    if not (curve.positives and curve.negatives):
        return math.nan
    return 1.0 - float(curve.fp_T[first_reaching(curve, sensitivity)]) / curve.negatives


def first_reaching(curve: ScoreCurve, sensitivity: float) -> int:
    """Index of the highest threshold whose sensitivity is at least ``sensitivity`` (0 < sensitivity <= 1)."""
    # Rounded before the ceiling: 0.07 * 100 is 7.000000000000001, and asks for 7 patches, not 8.
    needed = math.ceil(round(sensitivity * curve.positives, 9))
    return int(np.searchsorted(curve.tp_T, max(needed, 1)))


def accuracy(c: Confusion) -> float:
    return _ratio(c.tp + c.tn, c.tp + c.fp + c.tn + c.fn)


def sensitivity(c: Confusion) -> float:
    """Share of tumour patches that are flagged (recall)."""
    return _ratio(c.tp, c.tp + c.fn)


def specificity(c: Confusion) -> float:
    """Share of negative patches that are set aside."""
    return _ratio(c.tn, c.tn + c.fp)


def balanced_accuracy(c: Confusion) -> float:
    return (sensitivity(c) + specificity(c)) / 2


def ppv(c: Confusion) -> float:
    """Share of flagged patches that are tumour (precision), at the prevalence of these patches."""
    return _ratio(c.tp, c.tp + c.fp)


def npv(c: Confusion) -> float:
    """Share of patches set aside that are negative, at the prevalence of these patches."""
    return _ratio(c.tn, c.tn + c.fn)


def f1(c: Confusion) -> float:
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def cohens_kappa(c: Confusion) -> float:
    """Agreement with the reference beyond chance (Cohen 1960). NaN where chance alone agrees fully."""
    chance = (c.tp + c.fp) * (c.tp + c.fn) + (c.tn + c.fn) * (c.tn + c.fp)
    n = c.tp + c.fp + c.tn + c.fn
    return _ratio((c.tp + c.tn) * n - chance, n * n - chance)


def mcc(c: Confusion) -> float:
    """Matthews' correlation coefficient. NaN where a row or column of the table is empty."""
    margins = (c.tp + c.fp) * (c.tp + c.fn) * (c.tn + c.fp) * (c.tn + c.fn)
    return _ratio(c.tp * c.tn - c.fp * c.fn, math.sqrt(margins))


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV at a stated prevalence, by Bayes' rule."""
    tp, fp = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    tn, fn = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return _ratio(tp, tp + fp), _ratio(tn, tn + fn)


AT_THRESHOLD: dict[str, Callable[[Confusion], float]] = {
    "sensitivity": sensitivity,
    "specificity": specificity,
    "ppv": ppv,
    "npv": npv,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "cohens_kappa": cohens_kappa,
    "mcc": mcc,
}
"""Measures at one threshold, in the order of reports."""


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _divide(part: IntArray, whole: IntArray | int) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(part, whole), np.float64)
