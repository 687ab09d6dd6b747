"""What a heat map of one slide says in a few numbers, for a slide score.

Whole-slide classifiers of Camelyon16 drew such features from the heat map (Wang et al. 2016, arXiv:1606.05718).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from sentinode.errors import EvaluationError
from sentinode.evaluation.metrics import FloatArray, IntArray

TOP_K: Final = 10

FEATURES: Final = ("max_logit", "top_mean", "mean", "share_50", "share_90")
"""Highest probability as a logit; mean of the 10 highest; mean of all; shares of patches at 0.5 and 0.9 or more."""
CLUSTER_FEATURES: Final = ("log_cluster_mm2", "cluster_mm")
"""Of the largest group of touching cells at 0.5 or more: log(1 + area in mm^2), and extent along its longer side."""

_EDGE: Final = 1e-6
"""Probabilities nearer to 0 or 1 are held there, so that logits stay finite."""


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The N patches of one slide."""

    probabilities_N: FloatArray
    cells_N2: IntArray | None = None
    """Column and row of each patch on a regular grid; None where the places are unknown or patches sampled."""
    cell_um: float = 0.0
    """Distance of two neighbouring cells."""

    @classmethod
    def of(cls, probabilities: ArrayLike, cells: ArrayLike | None = None, cell_um: float = 0.0) -> HeatMap:
        """Check. Raises EvaluationError on no patch, probabilities outside [0, 1], or cells that do not fit."""
        probabilities_N = np.asarray(probabilities, np.float64)
        if probabilities_N.ndim != 1 or not len(probabilities_N):
            raise EvaluationError("a slide without patches", "one probability or more")
        if not ((probabilities_N >= 0) & (probabilities_N <= 1)).all():
            raise EvaluationError("a probability outside [0, 1]", "probabilities, not logits")
        if cells is None:
            return cls(probabilities_N)
        cells_N2 = np.asarray(cells, np.int64)
        if cells_N2.shape != (len(probabilities_N), 2) or not cell_um > 0:
            raise EvaluationError(
                f"cells {list(cells_N2.shape)} of {cell_um} um", f"[{len(probabilities_N)}, 2] and their size"
            )
        return cls(probabilities_N, cells_N2, cell_um)


def top_mean(probabilities_N: FloatArray, k: int) -> float:
    """Mean of the ``k`` highest, or of all where there are fewer."""
    return float(np.partition(probabilities_N, -min(k, len(probabilities_N)))[-k:].mean())


def features_of(heat_map: HeatMap) -> dict[str, float]:
    """FEATURES, and CLUSTER_FEATURES where the places of patches are known."""
    p = heat_map.probabilities_N
    highest = float(np.clip(p.max(), _EDGE, 1 - _EDGE))
    found = {
        "max_logit": float(np.log(highest / (1 - highest))),
        "top_mean": top_mean(p, TOP_K),
        "mean": float(p.mean()),
        "share_50": float((p >= 0.5).mean()),
        "share_90": float((p >= 0.9).mean()),
    }
    if heat_map.cells_N2 is not None:
        cluster = _largest_cluster(heat_map.cells_N2[p >= 0.5])
        extent = int(np.ptp(cluster, axis=0).max()) + 1 if len(cluster) else 0
        mm = heat_map.cell_um / 1000
        found["log_cluster_mm2"] = float(np.log1p(len(cluster) * mm * mm))
        found["cluster_mm"] = extent * mm
    return found


def _largest_cluster(cells_M2: IntArray) -> IntArray:
    """The cells of the largest group that touch by side or corner: int64 [K, 2]."""
    left = set(map(tuple, cells_M2.tolist()))
    largest: list[tuple[int, ...]] = []
    while left:
        group = [left.pop()]
        for x, y in group:
            around = {(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            group.extend(around)
        if len(group) > len(largest):
            largest = group
    return np.array(largest, np.int64).reshape(-1, 2)
