"""Thresholds, chosen on validation and nowhere else."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from sentinode.config import Frozen
from sentinode.errors import EvaluationError
from sentinode.evaluation import metrics
from sentinode.evaluation.metrics import ScoreCurve


class OperatingPoint(Frozen):
    """A patch is called tumour if its probability is at least ``threshold``."""

    name: str
    threshold: float = Field(ge=0, le=1)
    reachable: bool
    """False where the aim is met only by flagging every patch; the threshold is then 0."""
    target_sensitivity: float | None = None
    """The sensitivity asked for; None for points chosen otherwise."""
    valid_sensitivity: float
    """Measured on the validation patches from which the threshold was chosen."""
    valid_specificity: float
    chosen_by: str
    """How the threshold was chosen, as a sentence."""


def at_sensitivity(curve: ScoreCurve, target: float, name: str) -> OperatingPoint:
    """The highest threshold with a validation sensitivity of at least ``target``, 0 < target <= 1.

    Raises EvaluationError where validation holds one class only, or ``target`` is out of range.
    """
    _two_classes(curve)
    if not 0 < target <= 1:
        raise EvaluationError(f"target sensitivity {target}", "a share in (0, 1]")
    last = metrics.first_reaching(curve, target)
    aim = f"highest threshold with a sensitivity of at least {target:g} on {curve.positives} tumour patches"
    if target < 1 and math.ceil(round(target * curve.positives, 9)) == curve.positives:
        aim += " (so few that none may be missed)"
    return _point(curve, last, name, f"{aim} of validation", target)


def youden(curve: ScoreCurve, name: str = "balanced") -> OperatingPoint:
    """The threshold with the highest sensitivity + specificity (Youden 1950).

    Of equals the lowest threshold is taken: a missed metastasis weighs more than a false alarm.
    Raises EvaluationError where validation holds one class only.
    """
    _two_classes(curve)
    # In whole numbers, so that equals are equal.
    gain = curve.tp_T * curve.negatives - curve.fp_T * curve.positives
    last = len(gain) - 1 - int(np.argmax(gain[::-1]))
    return _point(curve, last, name, "highest sensitivity + specificity (Youden) on validation", None)


def _point(curve: ScoreCurve, last: int, name: str, how: str, target: float | None) -> OperatingPoint:
    reachable = curve.fp_T[last] < curve.fp_T[-1]
    if not reachable:
        last = len(curve.thresholds_T) - 1
        how += "; not reachable but by flagging every patch"
    found = curve.confusion_of(last + 1)
    return OperatingPoint(
        name=name,
        threshold=_between(curve, last) if reachable else 0.0,
        reachable=bool(reachable),
        target_sensitivity=target,
        valid_sensitivity=metrics.sensitivity(found),
        valid_specificity=metrics.specificity(found),
        chosen_by=how,
    )


def _between(curve: ScoreCurve, last: int) -> float:
    """Half way to the next lower probability, so that another runtime's rounding flips no verdict."""
    upper, lower = float(curve.thresholds_T[last]), float(curve.thresholds_T[last + 1])
    middle = (upper + lower) / 2
    return middle if middle > lower else upper


def _two_classes(curve: ScoreCurve) -> None:
    if not (curve.positives and curve.negatives):
        raise EvaluationError(
            f"validation has {curve.positives} tumour and {curve.negatives} negative patches",
            "both classes",
            "choose a larger valid fraction, or give the threshold yourself",
        )
