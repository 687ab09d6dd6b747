"""What makes answers trustworthy, for one version: the gate before verdicts, and drift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.bundle import Bundle
from sentinode.serving.drift import DriftWindow
from sentinode.serving.quality import Quality, QualityGate, QualityLimits
from sentinode.serving.trust_metrics import TrustMetrics


class Trust:
    """Around a bundle's answers, at a stated ``prevalence`` or that of validation. All of it is for the event loop,
    but for ``gate``, which any thread may ask.
    """

    def __init__(
        self, bundle: Bundle, limits: QualityLimits, metrics: TrustMetrics, prevalence: float | None = None
    ) -> None:
        self.gate = QualityGate(bundle.card, limits)
        self.drift = DriftWindow(bundle.card.scores, prevalence)
        self._counts = metrics.version(bundle.digest)

    def count(self, probabilities_B: NDArray[np.float64], quality: Quality) -> None:
        """Count a batch of B patches that was scored and looked at: drift, flags, abstentions."""
        abstained_B = quality.bits_B > 0
        self.drift.observe(probabilities_B, quality, abstained_B)
        if abstained_B.any():
            self._counts.abstentions.inc(int(abstained_B.sum()))
            for index in np.flatnonzero(abstained_B):
                for flag in quality.flags(int(index)):
                    self._counts.flags[flag].inc()
