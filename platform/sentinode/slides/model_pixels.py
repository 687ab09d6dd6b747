"""Regions of a slide in the pixels of a model, without seams: a pixel is the same in every region that holds it.

But for slides that OpenSlide reads and whose level is not a whole number of times smaller: it interpolates there, by up
to half a pixel of level 0 (0.12 of a pixel at a downsample of about 4).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sentinode.slides.score_grid import ScoreGrid
from sentinode.slides.slide import MAX_REGION_PX, Slide

_MARGIN_PX: Final = 2
"""Model pixels read beyond each side when made smaller: the filter of a pixel reaches over one neighbour."""


def read_model_pixels(
    slide: Slide, grid: ScoreGrid, left: int, top: int, width: int, height: int
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]; all in model pixels of ``grid``, from the slide's corner; white beyond its border.

    Raises as ``Slide.read_region``.
    """
    if grid.scale == 1:
        return _level(slide, grid, left, top, width, height)
    # A slide without small levels is read in bands, so that memory does not depend on its pyramid.
    rows = max(
        1, int(MAX_REGION_PX / 4 / ((width + 2 * _MARGIN_PX + 2) * grid.scale**2)) - 2 * _MARGIN_PX - 2
    )
    bands = [
        _smaller(slide, grid, left, at, width, min(rows, top + height - at))
        for at in range(top, top + height, rows)
    ]
    return bands[0] if len(bands) == 1 else np.concatenate(bands)


def _smaller(
    slide: Slide, grid: ScoreGrid, left: int, top: int, width: int, height: int
) -> NDArray[np.uint8]:
    """By Pillow's antialiased triangle filter; rounding may differ by one grey level from region to region."""
    box = [edge * grid.scale for edge in (left, top, left + width, top + height)]
    margin = _MARGIN_PX * grid.scale
    x1, y1 = math.floor(box[0] - margin), math.floor(box[1] - margin)
    x2, y2 = math.ceil(box[2] + margin), math.ceil(box[3] + margin)
    wide, high = width + 2 * _MARGIN_PX, height + 2 * _MARGIN_PX
    around = (
        box[0] - margin - x1,
        box[1] - margin - y1,
        box[2] + margin - x1,
        box[3] + margin - y1,
    )
    image = Image.fromarray(_level(slide, grid, x1, y1, x2 - x1, y2 - y1))
    small = np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR, box=around))
    return np.ascontiguousarray(small[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX])


def _level(slide: Slide, grid: ScoreGrid, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    """Pixels of the level; ``ceil`` finds the pixel again where a downsample is no whole number."""
    x0, y0 = (math.ceil(edge * grid.downsample) for edge in (left, top))
    return slide.read_region(x0, y0, grid.level, (width, height))
