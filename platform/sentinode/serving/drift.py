"""Whether what is asked still looks like what the model was made for: stain, scores, abstentions of late."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.scores import ScoreReference
from sentinode.serving.quality import Quality

_WINDOW: Final = 5_000
"""Patches of one half of the window: the last 5,000 to 10,000 count. At 20 bins, chance alone gives a PSI of 0.004."""
_FEWEST: Final = 500
"""Below this the population stability index is chance (0.04 is expected of 500 patches) and is not told."""


class _Half:
    def __init__(self, bins: int) -> None:
        self.patches = 0
        self.abstained = 0
        self.stain_sum = 0.0
        self.stained = 0
        self.scores_K = np.zeros(bins, np.int64)


class DriftWindow:
    """Figures over the last thousands of patches of one bundle; written by the batch thread, read by ``/metrics``.

    Scores are compared with ``reference`` as it would be at a stated ``prevalence``; None: with validation's own.
    """

    def __init__(self, reference: ScoreReference | None, prevalence: float | None = None) -> None:
        self._reference = reference
        self._prevalence = prevalence
        self._bins = len(reference.edges) - 1 if reference else 1
        self._new, self._old = _Half(self._bins), _Half(self._bins)
        self._lock = threading.Lock()

    def observe(
        self, probabilities_B: NDArray[np.float64], quality: Quality, abstained_B: NDArray[np.bool_]
    ) -> None:
        """Count the answers to B patches. Scores count where the model was asked to judge: abstentions do not."""
        counts_K = self._reference.histogram(probabilities_B[~abstained_B]) if self._reference else None
        known = quality.stain_distance_B[~np.isnan(quality.stain_distance_B)]
        with self._lock:
            half = self._new
            half.patches += len(probabilities_B)
            half.abstained += int(abstained_B.sum())
            half.stain_sum += float(known.sum())
            half.stained += len(known)
            if counts_K is not None:
                half.scores_K += counts_K
            if half.patches >= _WINDOW:
                self._old, self._new = half, _Half(self._bins)

    @property
    def abstention_rate(self) -> float:
        """Share of the patches that got no verdict; NaN before the first."""
        with self._lock:
            patches = self._new.patches + self._old.patches
            return (self._new.abstained + self._old.abstained) / patches if patches else float("nan")

    @property
    def stain_distance(self) -> float:
        """Mean Mahalanobis distance from training's stain; NaN where none is known."""
        with self._lock:
            stained = self._new.stained + self._old.stained
            return (self._new.stain_sum + self._old.stain_sum) / stained if stained else float("nan")

    @property
    def score_psi(self) -> float:
        """Population stability index of the scores against validation at the prevalence; NaN below 500 scores."""
        with self._lock:
            counts_K = self._new.scores_K + self._old.scores_K
        if self._reference is None or counts_K.sum() < _FEWEST:
            return float("nan")
        return self._reference.population_stability_index(counts_K, self._prevalence)
