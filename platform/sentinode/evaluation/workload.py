"""How much reading is saved: the share of patches that may stay unread, by the sensitivity that is kept."""

from __future__ import annotations

import numpy as np

from sentinode.evaluation import metrics
from sentinode.evaluation.metrics import ScoreCurve
from sentinode.evaluation.records import WorkloadPoint

SENSITIVITIES = np.round(np.concatenate([np.arange(50, 95) / 100, np.arange(950, 1001, 5) / 1000]), 3)
"""Whole per cents from 50 %, halves from 95 %, where screening happens."""


def workload(curve: ScoreCurve, prevalence: float | None) -> tuple[WorkloadPoint, ...]:
    """The curve of reading saved, by rising sensitivity; empty with one class only.

    Time is taken as proportional to patches read. Each point is the highest threshold that reaches its
    sensitivity; ``prevalence`` is the share of tumour patches at which saving is stated as well.
    """
    if not (curve.positives and curve.negatives):
        return ()
    out = []
    for aim in SENSITIVITIES.tolist():
        found = curve.confusion_of(metrics.first_reaching(curve, aim) + 1)
        sensitivity, specificity = metrics.sensitivity(found), metrics.specificity(found)
        at_prevalence = None
        if prevalence is not None:
            at_prevalence = specificity * (1 - prevalence) + (1 - sensitivity) * prevalence
        out.append(
            WorkloadPoint(
                sensitivity=aim,
                negatives_set_aside=specificity,
                reading_saved=(found.tn + found.fn) / (curve.positives + curve.negatives),
                reading_saved_at_prevalence=at_prevalence,
            )
        )
    return tuple(out)
