"""Thresholds, chosen on validation and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from pydantic import Field

from sentinode.config import Frozen
from sentinode.errors import EvaluationError
from sentinode.evaluation import metrics
from sentinode.evaluation.guarantee import Guarantee, GuaranteeKind, guaranteed_threshold
from sentinode.evaluation.intervals import units_of
from sentinode.evaluation.metrics import RankedScores, ScoreCurve
from sentinode.evaluation.predictions import Predictions


class Aim(Frozen):
    """What a threshold is chosen for."""

    rule: Literal["youden", "sensitivity", "specificity", "threshold"]
    value: float = Field(default=1.0, gt=0, le=1)
    """Sensitivity or specificity to reach on validation, or the threshold itself; unused by youden."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``youden``, ``sensitivity:0.97``, ``specificity:0.9`` or ``threshold:0.5``. Raises ValueError."""
        rule, _, value = text.partition(":")
        return cls.model_validate(
            {"rule": rule} | ({"value": float(value)} if value or rule != "youden" else {})
        )


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
    guarantee: Guarantee | None = None
    """What is promised on new data; None for points that aim at no sensitivity."""


def choose_points(
    valid: Predictions, aims: Mapping[str, Aim], guarantee: GuaranteeKind, confidence: float
) -> tuple[OperatingPoint, ...]:
    """A threshold for each aim, by name, from labelled validation patches.

    Sensitivities are met with the guarantee wherever validation is large enough for it, else on validation
    alone, and the point says which. Raises EvaluationError on one class only.
    """
    curve = RankedScores.of(valid.labels, valid.probabilities).curve()
    tumour = valid.labels == 1
    slides_P, _ = units_of(valid.slides[tumour].tolist())
    points = []
    for name, aim in aims.items():
        if aim.rule == "youden":
            points.append(youden(curve, name))
        elif aim.rule == "specificity":
            points.append(at_specificity(curve, aim.value, name))
        elif aim.rule == "threshold":
            points.append(at_threshold(curve, aim.value, name))
        else:
            _two_classes(curve)
            score, promise = guaranteed_threshold(
                valid.probabilities[tumour], slides_P, aim.value, guarantee, confidence
            )
            chosen = (
                at_sensitivity(curve, aim.value, name)
                if score is None
                else _at_score(curve, score, name, aim)
            )
            points.append(chosen.model_copy(update={"guarantee": promise}))
    return tuple(points)


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


def at_specificity(curve: ScoreCurve, target: float, name: str) -> OperatingPoint:
    """The lowest threshold with a validation specificity of at least ``target``, 0 < target <= 1.

    Raises EvaluationError where validation holds one class only, or even the highest score flags too many.
    """
    _two_classes(curve)
    allowed = math.floor(round((1 - target) * curve.negatives, 9))
    last = int(np.searchsorted(curve.fp_T, allowed, side="right")) - 1
    if last < 0:
        raise EvaluationError(
            f"the highest score flags {curve.fp_T[0]} of {curve.negatives} negative patches of validation",
            f"a threshold with a specificity of {target:g}",
            f"give {name} a lower specificity",
        )
    return _point(
        curve, last, name, f"lowest threshold with a specificity of at least {target:g} on validation", None
    )


def at_threshold(curve: ScoreCurve, threshold: float, name: str) -> OperatingPoint:
    """A threshold that was given. Raises EvaluationError where validation holds one class only."""
    _two_classes(curve)
    found = curve.confusion(threshold)
    return OperatingPoint(
        name=name,
        threshold=threshold,
        reachable=True,
        valid_sensitivity=metrics.sensitivity(found),
        valid_specificity=metrics.specificity(found),
        chosen_by="given, not chosen on validation",
    )


def _at_score(curve: ScoreCurve, score: float, name: str, aim: Aim) -> OperatingPoint:
    last = int(np.searchsorted(-curve.thresholds_T, -score, side="right")) - 1
    how = f"highest threshold whose sensitivity of {aim.value:g} is guaranteed beyond validation"
    return _point(curve, last, name, how, aim.value)


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
