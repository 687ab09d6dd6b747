"""How a share of patches (a sensitivity, as a rule) changes from one model to another on the same patches.

The change is the share gained minus the share lost. Its interval joins the exact intervals of both shares (MOVER, Zou
and Donner 2008, Statistics in Medicine 27:1693, with Clopper and Pearson's), which neither vanishes where the models
never differ nor asks for large samples. Over several slides it is widened, where needed, to that of the ratio
estimator (Cochran 1977, chapter 6; Student's t), which lets patches of a slide go together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sentinode.config import Frozen
from sentinode.errors import EvaluationError
from sentinode.evaluation.delong import student_reach
from sentinode.evaluation.intervals import clopper_pearson
from sentinode.evaluation.metrics import IntArray


class PairedChange(Frozen):
    """The new model's share minus the old one's, on ``patches`` patches."""

    patches: int
    slides: int | None
    """None where slides are unknown."""
    gained: int
    """Patches that only the new model flags."""
    lost: int
    """Patches that only the old model flags."""
    change: float
    low: float
    high: float


def paired_change(
    old_N: NDArray[np.bool_], new_N: NDArray[np.bool_], level: float, units_N: IntArray | None = None
) -> PairedChange:
    """The change from ``old_N`` to ``new_N`` (whether each flags a patch); ``units_N`` numbers the patches' slides.

    Raises EvaluationError without a patch.
    """
    n = len(old_N)
    if not n:
        raise EvaluationError("no patch", "at least one, to compare two models")
    gains_N, losses_N = new_N & ~old_N, old_N & ~new_N
    gained, lost = int(gains_N.sum()), int(losses_N.sum())
    change = (gained - lost) / n
    (gain_low, gain_high), (loss_low, loss_high) = (clopper_pearson(k, n, level) for k in (gained, lost))
    low = change - math.hypot(gained / n - gain_low, loss_high - lost / n)
    high = change + math.hypot(gain_high - gained / n, lost / n - loss_low)
    slides = None if units_N is None else len(np.unique(units_N))
    if units_N is not None and slides is not None and slides > 1:
        moved_U = np.bincount(units_N, gains_N.astype(np.int64) - losses_N.astype(np.int64))
        patches_U = np.bincount(units_N)
        squares = float(((moved_U - change * patches_U) ** 2).sum())
        reach = student_reach(level, slides - 1) * math.sqrt(squares * slides / (slides - 1)) / n
        low, high = min(low, change - reach), max(high, change + reach)
    return PairedChange(
        patches=n, slides=slides, gained=gained, lost=lost, change=change, low=max(low, -1), high=min(high, 1)
    )
