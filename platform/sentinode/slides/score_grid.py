"""The grid of a heat map on a slide: cells, the level they are read from, and the tiles in which they are scored.

Three scales meet here: pixels of the slide's level 0; pixels of the level that is read; and pixels of the model,
which has seen patches at one size of pixels. A cell is ``stride_px`` model pixels wide, and the patch that judges
it stands around its centre. With a stride of 32, a cell is the square that PatchCamelyon's label speaks of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sentinode.config import Frozen
from sentinode.errors import SourceError
from sentinode.slides.slide import Slide

Mask = NDArray[np.bool_]

TOLERANCE: Final = 0.03
"""Relative difference in the size of pixels up to which a level is taken as it is. Slides of one set differ by more:
Camelyon16's two scanners, 0.243 and 0.226, by 7 %."""
MAX_CELLS: Final = 25_000_000
"""Largest heat map: a slide of 100,000 x 200,000 pixels at a stride of 8 has 21 million cells, some 100 MB an array."""


class Tile(NamedTuple):
    """A rectangle of cells."""

    column: int
    row: int
    columns: int
    rows: int


class ScoreGrid(Frozen):
    """Where each cell of the heat map of one slide lies."""

    stride_px: int = Field(ge=1)
    """Side of a cell in model pixels."""
    um_px: float
    """Of a model pixel on this slide."""
    level: int
    """That is read."""
    level_um_px: float
    downsample: float
    """Pixels of level 0 that one of the level is wide."""
    scale: float
    """Pixels of the level that one of the model is wide; 1 where the level is taken as it is."""
    columns: int
    rows: int

    @classmethod
    def of(cls, slide: Slide, model_um_px: float, stride_px: int) -> Self:
        """The grid for a model of ``model_um_px`` micrometres per pixel.

        The coarsest level that is fine enough is read, and made smaller where it differs by more than TOLERANCE.
        Raises SourceError where the slide is coarser than the model, for detail cannot be invented.
        """
        if slide.um_px > model_um_px * (1 + TOLERANCE):
            raise SourceError(
                f"{slide.url} has {slide.um_px:.3g} um/px at its finest level",
                f"at most the model's {model_um_px:.3g} um/px",
                "scan it at a higher power, or use a model that was trained at a lower one",
            )
        level = slide.level_for(model_um_px / slide.um_px * (1 + TOLERANCE) / 1.01)
        downsample = slide.downsamples[level]
        level_um_px = slide.um_px * downsample
        scale = model_um_px / level_um_px
        if abs(scale - 1) <= TOLERANCE:
            scale = 1.0
        width, height = slide.level_dimensions[0]
        cell = stride_px * scale * downsample
        columns, rows = max(1, -int(-width // cell)), max(1, -int(-height // cell))
        if columns * rows > MAX_CELLS:
            raise SourceError(
                f"a heat map of {columns:,} x {rows:,} cells of {slide.url}",
                f"at most {MAX_CELLS:,} cells",
                "score it at a larger stride",
            )
        return cls(
            stride_px=stride_px,
            um_px=level_um_px * scale,
            level=level,
            level_um_px=level_um_px,
            downsample=downsample,
            scale=scale,
            columns=columns,
            rows=rows,
        )

    @property
    def cell_px(self) -> float:
        """Side of a cell in pixels of level 0."""
        return self.stride_px * self.scale * self.downsample

    @property
    def cell_um(self) -> float:
        """Side of a cell."""
        return self.stride_px * self.um_px

    @property
    def how(self) -> str:
        """How the slide is read, for people."""
        read = f"level {self.level} ({self.level_um_px:.4g} um/px)"
        if self.scale == 1:
            return f"{read} as it is"
        return f"{read} made smaller {self.scale:.4g} times, to {self.um_px:.4g} um/px"


def tiles_of(wanted: Mask, side: int) -> tuple[Tile, ...]:
    """Tiles of at most ``side`` x ``side`` cells that hold each wanted cell [rows, columns] once, row by row.

    A tile is cut down to the wanted cells in it.
    """
    return tuple(_tiles(wanted, side))


def _tiles(wanted: Mask, side: int) -> Iterator[Tile]:
    for top in range(0, wanted.shape[0], side):
        band = wanted[top : top + side]
        for left in range(0, wanted.shape[1], side):
            part = band[:, left : left + side]
            if not part.any():
                continue
            rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            yield Tile(
                left + int(columns[0]),
                top + int(rows[0]),
                int(columns[-1] - columns[0]) + 1,
                int(rows[-1] - rows[0]) + 1,
            )
