"""The AUROC's error without resampling, for one model and for two on the same patches.

DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837): the AUROC is a mean of placement values, the
variance follows from theirs. The placement values come from ranks in O(N log N) as in Sun and Xu 2014 (IEEE
Signal Processing Letters 21:1389). Where patches share a slide the variance is Obuchowski's 1997 (Biometrics
53:567), which sums the placement values of each slide first; with a slide a patch it is DeLong's. An error that comes
from few slides is itself not well known, so intervals over slides are Student's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentinode.evaluation.intervals import beta_cdf, beta_quantile
from sentinode.evaluation.metrics import FloatArray, IntArray, RankedScores

_NORMAL = NormalDist()


@dataclass(frozen=True, eq=False)
class CorrelatedAurocs:
    """The AUROC of K models on the same patches: ``aurocs_K`` and their covariance [K, K].

    NaN where it is not estimable: one class only, or fewer than two units of a class. ``freedom`` is that of the
    errors: over slides, one less than there are slides with the class that fewer of them hold.
    """

    aurocs_K: FloatArray
    covariance_KK: FloatArray
    freedom: float = math.inf

    def interval(self, model: int, level: float) -> tuple[float, float] | None:
        """The AUROC's interval, on the logit scale so that it stays within (0, 1); None if not estimable.

        An AUROC of exactly 0 or 1 has no variance by this method, hence no interval.
        """
        auroc, variance = float(self.aurocs_K[model]), float(self.covariance_KK[model, model])
        if not (0 < auroc < 1 and variance > 0):
            return None
        centre = math.log(auroc / (1 - auroc))
        reach = student_reach(level, self.freedom) * math.sqrt(variance) / (auroc * (1 - auroc))
        low, high = (1 / (1 + math.exp(-z)) for z in (centre - reach, centre + reach))
        return low, high

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """AUROC of ``a`` minus that of ``b``, and its standard error."""
        c = self.covariance_KK
        variance = float(c[a, a] + c[b, b] - 2 * c[a, b])
        # Rounding may leave a variance of -1e-20 between equal models.
        error = math.sqrt(max(variance, 0.0)) if not math.isnan(variance) else math.nan
        return float(self.aurocs_K[a] - self.aurocs_K[b]), error


def delong(
    labels_N: ArrayLike, scores: Sequence[ArrayLike], units_N: IntArray | None = None
) -> CorrelatedAurocs:
    """AUROC and covariance of K models; ``scores`` holds K columns [N], ``units_N`` the slide of each patch.

    Without ``units_N`` each patch stands alone. Raises EvaluationError as ``RankedScores.of`` does.
    """
    labels = np.asarray(labels_N)
    for column in scores:
        RankedScores.of(labels, column)
    positive = labels == 1
    m, n, k = int(positive.sum()), int((~positive).sum()), len(scores)
    if not (m and n):
        return CorrelatedAurocs(np.full(k, math.nan), np.full((k, k), math.nan))
    placements = [_placements(np.asarray(s, np.float64), positive) for s in scores]
    aurocs = np.array([v10.mean() for v10, _ in placements])
    units = np.arange(len(labels)) if units_N is None else units_N
    tumour = np.stack(
        [_unit_sums(v - a, units, positive) for (v, _), a in zip(placements, aurocs, strict=True)]
    )
    benign = np.stack(
        [_unit_sums(v - a, units, ~positive) for (_, v), a in zip(placements, aurocs, strict=True)]
    )
    with_tumour, with_benign = (len(np.unique(units[rows])) for rows in (positive, ~positive))
    if min(with_tumour, with_benign) < 2:
        return CorrelatedAurocs(aurocs, np.full((k, k), math.nan))
    both = len(np.unique(units))
    cross = tumour @ benign.T * (both / (both - 1) / (m * n))
    covariance = tumour @ tumour.T * (with_tumour / (with_tumour - 1) / m**2)
    covariance += benign @ benign.T * (with_benign / (with_benign - 1) / n**2) + cross + cross.T
    return CorrelatedAurocs(
        aurocs, covariance, math.inf if units_N is None else min(with_tumour, with_benign) - 1
    )


def student_reach(level: float, freedom: float = math.inf) -> float:
    """Standard errors to either side of an interval: 1.96 for 95 % (normal), 12.7 with one degree of freedom."""
    if math.isinf(freedom):
        return _NORMAL.inv_cdf((1 + level) / 2)
    x = beta_quantile(1 - level, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)


def two_sided_p(difference: float, error: float, freedom: float = math.inf) -> float:
    """The chance of a difference at least as large if there were none; NaN without an error."""
    if not error > 0:
        return math.nan
    t = abs(difference) / error
    if math.isinf(freedom):
        return 2 * _NORMAL.cdf(-t)
    return beta_cdf(freedom / (freedom + t**2), freedom / 2, 0.5)


def mid_ranks(values_N: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing the mean of theirs: float64 [N]."""
    _, inverse, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], np.float64)


def _placements(scores_N: FloatArray, positive_N: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Share of negatives below each positive [m], and of positives above each negative [n]; ties count half."""
    tumour, benign = scores_N[positive_N], scores_N[~positive_N]
    overall = mid_ranks(scores_N)
    v10 = (overall[positive_N] - mid_ranks(tumour)) / len(benign)
    v01 = 1 - (overall[~positive_N] - mid_ranks(benign)) / len(tumour)
    return v10, v01


def _unit_sums(values: FloatArray, units_N: IntArray, rows_N: NDArray[np.bool_]) -> FloatArray:
    """Sum of ``values`` over each unit, zero for units without a row: float64 [units]."""
    return np.asarray(np.bincount(units_N[rows_N], values, int(units_N.max()) + 1), np.float64)
