"""What a model said at places of slides that ``sentinode score`` has scored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sentinode.errors import ObjectNotFoundError
from sentinode.evaluation.cells_table import cells_of
from sentinode.evaluation.slide_record import SlideScore, record_key
from sentinode.storage import Store

Points = NDArray[np.float64]

HeatAt = Callable[[str, Points], Points | None]
"""Probabilities [N] of a slide, by name, at points [N, 2] in level-0 pixels; None where the slide was not scored."""


def nowhere(slide: str, points_N2: Points) -> None:
    """No slide was scored."""


def heat_of(scores: Store) -> HeatAt:
    """Reads the heat maps in ``scores`` as they are asked for. A point that was not scored has probability 0.

    The function raises EvaluationError where a heat map is damaged, StoreError.
    """

    def at(slide: str, points_N2: Points) -> Points | None:
        try:
            record = SlideScore.from_json(scores.get(record_key(slide)), scores.locate(record_key(slide)))
            grid, cell_um = cells_of(scores, record)
        except ObjectNotFoundError:
            return None
        if record.um_px is None:
            return None
        cells = (points_N2 * record.um_px / cell_um).astype(int)
        columns, rows = (np.clip(cells[:, i], 0, grid.shape[1 - i] - 1) for i in (0, 1))
        found: Points = np.nan_to_num(grid[rows, columns].astype(np.float64))
        return found

    return at
