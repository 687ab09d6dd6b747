"""Does a probability mean what it says: Brier score, expected calibration error and the reliability table.

Equal-width bins as in Guo et al. 2017 (arXiv:1706.04599); the Brier score is the mean squared error
(Brier 1950).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sentinode.config import Frozen
from sentinode.evaluation.metrics import FloatArray, IntArray


class ReliabilityBin(Frozen):
    """The patches whose probability lies in one bin [low, high); the last bin holds 1 as well."""

    low: float
    high: float
    patches: int
    mean_probability: float
    positive_share: float


@dataclass(frozen=True)
class CalibrationSums:
    """Residuals laid out so that any reweighting of the N patches is measured by two sums."""

    order_N: IntArray
    """Patches by rising bin."""
    residuals_N: FloatArray
    """Probability minus label, in the order of ``order_N``."""
    squared_N: FloatArray
    """Squared error, in the original order."""
    starts_B: IntArray
    """Where each bin that holds a patch begins within ``order_N``."""

    @classmethod
    def of(cls, labels_N: NDArray[np.int8], probabilities_N: FloatArray, bins: int) -> Self:
        """``probabilities_N`` in [0, 1], ``labels_N`` 0 or 1, ``bins`` of width 1 / bins."""
        index = bin_index(probabilities_N, bins)
        order = np.argsort(index, kind="stable")
        residuals = probabilities_N - labels_N
        return cls(order, residuals[order], residuals**2, np.unique(index[order], return_index=True)[1])

    def brier(self, weights_N: IntArray) -> float:
        """Mean squared error of the probability, 0 is perfect."""
        return float(np.sum(weights_N * self.squared_N) / weights_N.sum())

    def ece(self, weights_N: IntArray) -> float:
        """Mean gap between probability and frequency over the bins, weighted by their patches."""
        gaps = np.add.reduceat(np.take(weights_N, self.order_N) * self.residuals_N, self.starts_B)
        return float(np.abs(gaps).sum() / weights_N.sum())


def bin_index(probabilities_N: FloatArray, bins: int) -> IntArray:
    """The bin of each probability, 0 to bins - 1."""
    return np.minimum((probabilities_N * bins).astype(np.int64), bins - 1)


def reliability(
    labels_N: NDArray[np.int8], probabilities_N: FloatArray, bins: int
) -> tuple[ReliabilityBin, ...]:
    """The reliability table; bins without a patch are left out."""
    index = bin_index(probabilities_N, bins)
    counts = np.bincount(index, minlength=bins)
    probability = np.bincount(index, probabilities_N, bins)
    positives = np.bincount(index, labels_N == 1, bins)
    return tuple(
        ReliabilityBin(
            low=b / bins,
            high=(b + 1) / bins,
            patches=int(counts[b]),
            mean_probability=float(probability[b] / counts[b]),
            positive_share=float(positives[b] / counts[b]),
        )
        for b in np.flatnonzero(counts)
    )
