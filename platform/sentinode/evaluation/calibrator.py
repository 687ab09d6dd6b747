"""From logit to probability: calibrators fitted on validation, and the correction for another prevalence.

Temperature (Guo et al. 2017, arXiv:1706.04599) and Platt scaling (Platt 1999) minimise the log loss by Newton's
method, of Platt's smoothed targets where the classes are separate; isotonic regression pools adjacent violators (Ayer
et al. 1955) and joins the centres of the pools by straight lines, so that it makes few new ties (centred isotonic
regression, Oron and Flournoy 2017).
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.errors import EvaluationError

CalibrationMethod = Literal["identity", "temperature", "platt", "isotonic"]
FloatArray = NDArray[np.float64]

LIMIT_SLOPE = 100.0
"""Logits that nearly tell the classes apart would drive the slope to where all probabilities are 0 or 1."""
_STEPS = 100


class Calibration(Frozen):
    """How a logit becomes a probability: ``sigmoid(a * logit + b)``, for isotonic of a table of knots.

    identity: a = 1, b = 0; temperature T: a = 1 / T, b = 0; isotonic: ``a`` and ``b`` stay 1 and 0.
    """

    kind: CalibrationMethod = "identity"
    a: float = Field(default=1.0, gt=0.0)
    b: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    """Isotonic only: (logit, probability), both rising; straight lines between, constant outside."""
    prior_shift: float = 0.0
    """Added to the logit of the calibrated probability, to move it to another prevalence."""

    @model_validator(mode="after")
    def _kind_tells_the_parameters(self) -> Self:
        if self.kind in ("identity", "isotonic") and (self.a, self.b) != (1.0, 0.0):
            raise ValueError(f"{self.kind} calibration has a=1, b=0, not a={self.a}, b={self.b}")
        if self.kind == "temperature" and self.b:
            raise ValueError(f"temperature calibration has b=0, not b={self.b}")
        if (self.kind == "isotonic") != bool(self.knots):
            raise ValueError(f"{self.kind} calibration with {len(self.knots)} knots")
        table = np.array(self.knots).reshape(-1, 2)
        if (np.diff(table[:, 0]) <= 0).any() or (np.diff(table[:, 1]) < 0).any():
            raise ValueError("knots must rise")
        if ((table[:, 1] < 0) | (table[:, 1] > 1)).any():
            raise ValueError("knots must hold probabilities in [0, 1]")
        return self

    def probabilities(self, logits_N: ArrayLike) -> FloatArray:
        """Calibrated probabilities, float64 [N], of the tumour logits [N]; without overflow."""
        z = np.asarray(logits_N, np.float64)
        if self.kind == "isotonic":
            at, given = np.array(self.knots).T
            p = np.interp(z, at, given)
            if not self.prior_shift:
                return np.asarray(p, np.float64)
            with np.errstate(divide="ignore"):
                return sigmoid(np.log(p) - np.log1p(-p) + self.prior_shift)
        return sigmoid(self.a * z + self.b + self.prior_shift)

    def at_prevalence(self, sampled: float, stated: float) -> Calibration:
        """The calibration for patches of which a share ``stated`` is tumour, fitted where it was ``sampled``.

        Bayes' rule with the same patches within each class (Saerens et al. 2002, Neural Computation 14:21).
        Raises EvaluationError unless both lie within (0, 1).
        """
        for share in (sampled, stated):
            if not 0 < share < 1:
                raise EvaluationError(f"prevalence {share}", "a share within (0, 1)")
        shift = np.log(stated / (1 - stated)) - np.log(sampled / (1 - sampled))
        return self.model_copy(update={"prior_shift": self.prior_shift + float(shift)})


def fit(kind: CalibrationMethod, labels_N: ArrayLike, logits_N: ArrayLike) -> Calibration:
    """The calibration of one kind, fitted on labels 0 and 1 [N] and tumour logits [N].

    Raises EvaluationError on one class only.
    """
    labels, logits = np.asarray(labels_N, np.float64), np.asarray(logits_N, np.float64)
    if kind == "identity":
        return Calibration()
    if not 0 < labels.mean() < 1:
        raise EvaluationError("patches of one class only", "both classes, to fit a calibration")
    finite = np.isfinite(logits)
    if not finite.all():
        raise EvaluationError(
            f"{int((~finite).sum())} logits are infinite", "finite logits", "set calibration to identity"
        )
    if kind == "isotonic":
        return Calibration(kind=kind, knots=_isotonic(labels, logits))
    a, b = _newton(_targets(labels, logits), logits, with_shift=kind == "platt")
    return Calibration(kind=kind, a=a, b=b)


def sigmoid(logits: FloatArray) -> FloatArray:
    """The logistic function, without overflow at either end."""
    e = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, e) / (1.0 + e), np.float64)


def _targets(labels_N: FloatArray, logits_N: FloatArray) -> FloatArray:
    """The labels or, where a threshold tells the classes apart, what Platt puts in their place.

    Labels would then drive the slope as far as it can go: probabilities of 0 and 1, equal for patches that differ.
    """
    tumour = labels_N == 1
    if logits_N[tumour].min() <= logits_N[~tumour].max():
        return labels_N
    tumours, negatives = int(tumour.sum()), int((~tumour).sum())
    return np.where(tumour, (tumours + 1) / (tumours + 2), 1 / (negatives + 2))


def _newton(labels_N: FloatArray, logits_N: FloatArray, with_shift: bool) -> tuple[float, float]:
    """Slope within [1 / LIMIT_SLOPE, LIMIT_SLOPE] and shift of least log loss, by damped Newton steps."""
    design = np.stack([logits_N, np.ones_like(logits_N)], 1)[:, : 1 + with_shift]
    theta = np.array([1.0, 0.0])[: 1 + with_shift]

    def loss(at: FloatArray) -> float:
        z = design @ at
        return float(np.mean(np.logaddexp(0, z) - labels_N * z))

    best = loss(theta)
    for _ in range(_STEPS):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - labels_N) / len(p)
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(p)
        step = np.linalg.solve(hessian + 1e-12 * np.eye(len(theta)), gradient)
        scale = 1.0
        while scale > 1e-8:
            new = theta - scale * step
            new[0] = np.clip(new[0], 1 / LIMIT_SLOPE, LIMIT_SLOPE)
            if (found := loss(new)) <= best:
                break
            scale /= 2
        else:
            break
        moved = float(np.abs(new - theta).max())
        theta, best = new, found
        if moved < 1e-12:
            break
    return float(theta[0]), float(theta[1]) if with_shift else 0.0


def _isotonic(labels_N: FloatArray, logits_N: FloatArray) -> tuple[tuple[float, float], ...]:
    """Mean logit and share of tumour of each pool of adjacent violators."""
    values, inverse = np.unique(logits_N, return_inverse=True)
    weights = np.bincount(inverse).astype(np.float64)
    tumour = np.bincount(inverse, labels_N)
    pools: list[tuple[float, float, float]] = []  # patches, tumour patches, sum of logits
    for patches, positives, value in zip(weights, tumour, values, strict=True):
        pool = (patches, positives, patches * value)
        while pools and pools[-1][1] * pool[0] >= pool[1] * pools[-1][0]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    return tuple((float(z / n), float(p / n)) for n, p, z in pools)
