"""Polygons and the cells of a heat map."""

from __future__ import annotations

from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from sentinode.slides.annotations import Shape
from sentinode.slides.outlines import rasterised

_FINER: Final = 4
"""Pixels drawn along a side of a cell."""
_MAX_FINE_PX: Final = 128 << 20


def cells_covered(shape: Shape, rows: int, columns: int, cell_px: float) -> NDArray[np.bool_]:
    """bool [rows, columns]: the cells of side ``cell_px`` of which ``shape`` covers more than a quarter.

    Of very many cells, those whose centre it covers, so that memory is bounded.
    """
    if rows * columns * _FINER**2 > _MAX_FINE_PX:
        return rasterised(shape, (0.0, 0.0), 1 / cell_px, columns, rows)
    fine = rasterised(shape, (0.0, 0.0), _FINER / cell_px, columns * _FINER, rows * _FINER)
    # The edge of a polygon is drawn as well: a quarter is what an edge alone may cover.
    return np.asarray(fine.reshape(rows, _FINER, columns, _FINER).mean(axis=(1, 3)) > 1 / _FINER)


def points_inside(shape: Shape, xy_N2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool [N]: which points lie in ``shape``."""
    shapely.prepare(shape)
    return np.asarray(shapely.contains_xy(shape, xy_N2[:, 0], xy_N2[:, 1]), np.bool_)
