"""Thresholds whose sensitivity holds beyond the validation patches: conformal risk control.

A unit is a slide with tumour where slides are known, else a tumour patch; its risk is the share of its tumour
patches that a threshold misses. If new units are exchangeable with those of validation (same scanners, same
laboratories, same sampling) then a chosen threshold keeps the risk at most alpha = 1 - sensitivity

* in expectation: (n R + 1) / (n + 1) <= alpha (Angelopoulos et al. 2022, arXiv:2208.02814);
* with confidence 1 - delta: an upper bound of the risk stays below alpha at this threshold and all lower ones
  (Bates et al. 2021, arXiv:2101.02703; as testing in fixed order, Angelopoulos et al. 2021, arXiv:2110.01052).
  The bound is exact binomial for patches (Clopper and Pearson 1934) and Hoeffding and Bentkus' for slides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sentinode.config import Frozen
from sentinode.evaluation.intervals import beta_cdf
from sentinode.evaluation.metrics import FloatArray, IntArray

GuaranteeKind = Literal["none", "expectation", "confidence"]


class Guarantee(Frozen):
    """What is promised of a threshold on new units, and on what ground."""

    kind: GuaranteeKind
    """``none`` where nothing is promised; ``words`` say why."""
    sensitivity: float = Field(ge=0, le=1)
    """The sensitivity that was asked for."""
    confidence: float | None = None
    """1 - delta, for the guarantee with confidence."""
    unit: Literal["slide", "patch"]
    units: int
    """Exchangeable units of validation: slides with tumour, or tumour patches."""
    units_needed: int | None
    """The fewest units that allow such a promise at all; None where no number does."""
    words: str


def guaranteed_threshold(
    scores_P: FloatArray, units_P: IntArray, sensitivity: float, kind: GuaranteeKind, confidence: float
) -> tuple[float | None, Guarantee]:
    """The highest score that may serve as threshold, or None, and the promise in words.

    ``scores_P`` are the scores of the P tumour patches of validation, ``units_P`` their slides (numbered from
    0 without gaps); each patch its own unit means that slides are unknown. A lower threshold keeps the
    promise too.
    """
    n = int(units_P.max()) + 1 if len(units_P) else 0
    unit: Literal["slide", "patch"] = "patch" if n == len(units_P) else "slide"
    alpha, delta = 1 - sensitivity, 1 - confidence
    needed = _units_needed(kind, unit, alpha, delta)
    threshold = None
    if kind != "none" and needed is not None and n >= needed:
        threshold = _highest(scores_P, units_P, _criterion(kind, unit, n, alpha, delta))
    promised: GuaranteeKind = "none" if threshold is None else kind
    return threshold, Guarantee(
        kind=promised,
        sensitivity=sensitivity,
        confidence=confidence if promised == "confidence" else None,
        unit=unit,
        units=n,
        units_needed=needed,
        words=_words(kind, promised, sensitivity, confidence, unit, n, needed),
    )


def hoeffding_bentkus_p(risk: float, n: int, alpha: float) -> float:
    """P-value of "the mean risk exceeds alpha" when n risks in [0, 1] have mean ``risk`` (Bates et al. 2021)."""
    if risk >= alpha:
        return 1.0
    tail = (1 - risk) * math.log((1 - risk) / (1 - alpha))
    entropy = tail + (risk * math.log(risk / alpha) if risk > 0 else 0.0)
    bentkus = math.e * binomial_cdf(math.ceil(round(n * risk, 9)), n, alpha)
    return min(1.0, math.exp(-n * entropy), bentkus)


def binomial_cdf(successes: int, trials: int, share: float) -> float:
    """The chance of at most ``successes`` of ``trials``, each with chance ``share``."""
    return 1.0 if successes >= trials else 1 - beta_cdf(share, successes + 1, trials - successes)


def _criterion(kind: GuaranteeKind, unit: str, n: int, alpha: float, delta: float) -> Callable[[float], bool]:
    """Whether a mean risk over n units keeps the promise; true for any risk below one that keeps it."""
    if kind == "expectation":
        return lambda risk: n * risk + 1 <= alpha * (n + 1) + 1e-9
    if unit == "patch":
        return lambda risk: binomial_cdf(round(n * risk), n, alpha) <= delta
    return lambda risk: hoeffding_bentkus_p(risk, n, alpha) <= delta


def _highest(scores_P: FloatArray, units_P: IntArray, holds: Callable[[float], bool]) -> float | None:
    """The highest distinct score at which the risk, the mean share missed over units, keeps the promise."""
    patches_U = np.bincount(units_P)
    order = np.argsort(scores_P, kind="stable")
    ranked = scores_P[order]
    share = 1 / (patches_U[units_P[order]] * len(patches_U))
    missed_below = np.concatenate(([0.0], np.cumsum(share)[:-1]))
    first: NDArray[np.int64] = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    low, high = 0, len(first)  # The risk grows with the threshold: bisect for the last that holds.
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if holds(float(missed_below[first[middle]])) else (low, middle)
    return float(ranked[first[low - 1]]) if low else None


def _units_needed(kind: GuaranteeKind, unit: str, alpha: float, delta: float) -> int | None:
    """With no risk at all: 1 <= alpha (n + 1), or (1 - alpha)^n <= delta, which is Hoeffding's bound as well."""
    if kind == "none" or alpha <= 0:
        return None
    if kind == "expectation":
        return math.ceil(round(1 / alpha, 9)) - 1
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def _words(
    asked: GuaranteeKind,
    promised: GuaranteeKind,
    sensitivity: float,
    confidence: float,
    unit: str,
    n: int,
    needed: int | None,
) -> str:
    units = "slides with tumour" if unit == "slide" else "tumour patches"
    if asked == "none":
        return "No guarantee was asked for: the sensitivity is that of the validation patches."
    if promised == "none":
        why = "no number of them shows it" if needed is None else f"at least {needed} are needed"
        return f"No guarantee: the {units} of validation number {n}, and {why} for a sensitivity of {sensitivity:g}."
    of = "a new slide's tumour patches" if unit == "slide" else "new tumour patches"
    sure = (
        "on average over such draws of validation and new data"
        if promised == "expectation"
        else f"with {confidence:g} confidence over the draw of validation"
    )
    return (
        f"At least {sensitivity:g} of {of} are flagged, {sure}, provided that new {units} are exchangeable "
        f"with the {n} of validation."
    )
