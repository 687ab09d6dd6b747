"""Lesions in the heat map of a slide: what reaches a threshold, joined where it is close, and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sentinode.evaluation.detections import Detections
from sentinode.slides.annotations import Region
from sentinode.slides.cells import points_inside
from sentinode.slides.lesions import Lesion, lesions_of
from sentinode.slides.outlines import outlines

Grid = NDArray[np.float32]
"""Probabilities [rows, columns]; NaN where nothing was scored."""

MAX_PIECES: Final = 5_000
"""Most pieces of a heat map that are outlined, the highest first: a map of noise must not take hours."""
PEAK_UM: Final = 200.0
"""Distance within which only the highest cell is a detection: a lesion smaller than this is found once."""
_LEAST: Final = 1e-9
_CONNECTED: Final = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, eq=False)
class FoundLesion:
    """One lesion that the model sees."""

    lesion: Lesion
    score: float
    """The highest probability in it."""
    mean: float
    """The mean probability of its cells."""
    number: int
    """From 1, by falling score and then size."""

    def region(self) -> Region:
        """For QuPath: class by size, measurements in micrometres."""
        lesion = self.lesion
        return Region(
            lesion.tumour,
            lesion.size.value,
            f"lesion {self.number}",
            {
                "Score": self.score,
                "Mean probability": self.mean,
                "Area um^2": lesion.area_um2,
                "Longest diameter um": lesion.longest_diameter_um,
            },
        )


def find_lesions(
    probabilities: Grid, threshold: float, cell_px: float, um_px: float, min_cells: int = 2
) -> tuple[tuple[FoundLesion, ...], int]:
    """The lesions of a heat map, highest first, and how many pieces were left out for their number.

    Cells at or above ``threshold`` are tumour; pieces of fewer than ``min_cells`` touching cells (by side or corner)
    are not. ``cell_px`` is the side of a cell in pixels of level 0, each of ``um_px`` micrometres. An outline follows
    cells, so a diameter is true to about one cell either way.
    """
    reached = np.nan_to_num(probabilities, nan=-1.0) >= max(threshold, _LEAST)
    labels, count = ndimage.label(reached, _CONNECTED)
    if not count:
        return (), 0
    index = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    highest = np.asarray(ndimage.maximum(probabilities, labels, index))
    kept = index[sizes >= min_cells]
    order = np.lexsort((-sizes[kept - 1], -highest[kept - 1]))
    kept, left_out = kept[order][:MAX_PIECES], max(0, len(kept) - MAX_PIECES)
    mask = np.isin(labels, kept)
    # Holes stay: a rim of false alarms along the capsule would swallow the metastasis within.
    lesions = lesions_of(outlines(mask, (cell_px, cell_px)), um_px, fill_holes=False)
    measured = [(_cells(lesion, mask, probabilities, cell_px), lesion) for lesion in lesions]
    ranked = sorted(measured, key=lambda pair: (-pair[0].max(), -pair[1].area_um2))
    return tuple(
        FoundLesion(lesion, float(values.max()), float(values.mean()), number)
        for number, (values, lesion) in enumerate(ranked, 1)
    ), left_out


def _cells(lesion: Lesion, mask: NDArray[np.bool_], probabilities: Grid, cell_px: float) -> Grid:
    """The probabilities of a lesion's cells. A cell of another lesion within its bounds is not among them."""

    x1, y1, x2, y2 = (round(edge / cell_px) for edge in lesion.tumour.bounds)
    rows, columns = np.nonzero(mask[y1:y2, x1:x2])
    centres = (np.stack([columns + x1, rows + y1], axis=1) + 0.5) * cell_px
    inside = points_inside(lesion.tumour, centres)
    return np.asarray(probabilities[rows[inside] + y1, columns[inside] + x1])


def find_peaks(probabilities: Grid, least: float, cell_px: float, cell_um: float) -> Detections:
    """Detections for FROC: from the highest cell down to ``least``, each silencing those within PEAK_UM.

    The points are centres of cells, in pixels of level 0. (Non-maximum suppression, as the contest's entries do.)
    """
    radius = max(1, round(PEAK_UM / cell_um))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = x * x + y * y <= radius * radius
    open_cells = np.pad(np.nan_to_num(probabilities, nan=-1.0) >= max(least, _LEAST), radius)
    rows, columns = np.nonzero(open_cells[radius:-radius, radius:-radius])
    order = np.argsort(-probabilities[rows, columns], kind="stable")
    peaks = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if open_cells[row + radius, column + radius]:
            peaks.append((row, column))
            open_cells[row : row + 2 * radius + 1, column : column + 2 * radius + 1] &= ~disc
    at = np.array(peaks, np.int64).reshape(-1, 2)
    return Detections.of(
        np.clip(probabilities[at[:, 0], at[:, 1]].astype(np.float64), 0, 1),
        (at[:, ::-1] + 0.5) * cell_px,
    )
