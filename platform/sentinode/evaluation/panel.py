"""All measures of one set of patches at once, for any weighting of the patches.

The same code gives the figure (each patch counted once) and its bootstrap replicates (counted as drawn).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sentinode.evaluation import metrics
from sentinode.evaluation.calibration import CalibrationSums
from sentinode.evaluation.metrics import AT_THRESHOLD, Confusion, FloatArray, IntArray, RankedScores
from sentinode.evaluation.operating_point import OperatingPoint
from sentinode.evaluation.predictions import Predictions


def workload_name(sensitivity: float) -> str:
    """The name of ``specificity_at_sensitivity`` at one sensitivity: ``specificity_at_sensitivity_0.99``."""
    return f"specificity_at_sensitivity_{sensitivity:g}"


class MeasurePanel:
    """A statistic for ``intervals.bootstrap``: weights int64 [N] -> values float64 [M], named by ``names``.

    ``<point>/<measure>`` are the measures at an operating point; NaN marks a measure that is not estimable.
    """

    def __init__(
        self,
        labelled: Predictions,
        points: Sequence[OperatingPoint],
        sensitivities: Sequence[float],
        bins: int,
        prevalence: float | None,
    ) -> None:
        self._ranked = RankedScores.of(labelled.labels, labelled.probabilities)
        self._calibration = CalibrationSums.of(labelled.labels, labelled.probabilities, bins)
        self._sensitivities = tuple(sensitivities)
        self._prevalence = prevalence
        self.curve = self._ranked.curve()
        scores = -self.curve.thresholds_T
        # How many distinct scores a threshold flags does not depend on the weights.
        self._flagged = {p.name: int(np.searchsorted(scores, -p.threshold, side="right")) for p in points}
        at_prevalence = ("ppv_at_prevalence", "npv_at_prevalence") if prevalence is not None else ()
        self.names = (
            "auroc",
            "average_precision",
            *map(workload_name, self._sensitivities),
            "brier",
            "ece",
            *(f"{point}/{measure}" for point in self._flagged for measure in (*AT_THRESHOLD, *at_prevalence)),
        )

    def confusion(self, point: str) -> Confusion:
        """The counts at an operating point."""
        return self.curve.confusion_of(self._flagged[point])

    def __call__(self, weights_N: IntArray) -> FloatArray:
        curve = self._ranked.curve(weights_N)
        values = [metrics.auroc(curve), metrics.average_precision(curve)]
        values += [metrics.specificity_at_sensitivity(curve, s) for s in self._sensitivities]
        values += [self._calibration.brier(weights_N), self._calibration.ece(weights_N)]
        for flagged in self._flagged.values():
            found = curve.confusion_of(flagged)
            values += [measure(found) for measure in AT_THRESHOLD.values()]
            if self._prevalence is not None:
                rates = metrics.sensitivity(found), metrics.specificity(found)
                values += metrics.predictive_values(*rates, self._prevalence)
        return np.array(values)
