"""Tiles of a slide for viewers that zoom: the Deep Zoom pyramid, cut when it is asked for.

Level ``top`` is the slide at full size, each level below half of it, level 0 one pixel. Tiles have no overlap.
"""

from __future__ import annotations

import io
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sentinode.errors import RequestError
from sentinode.slides.slide import Slide

TILE_PX: Final = 256
_QUALITY: Final = 85
_LARGEST_READ_PX: Final = 4096
"""Side of the region that one tile may read; coarser levels are cut from an overview."""
_OVERVIEW_PX: Final = 2048


class DeepZoom:
    """Tiles of one open slide. Safe to share between threads."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self.width_px, self.height_px = slide.level_dimensions[0]
        self.top = math.ceil(math.log2(max(self.width_px, self.height_px, 2)))
        self._overview: NDArray[np.uint8] | None = None

    def tile(self, level: int, column: int, row: int) -> bytes:
        """One tile as JPEG, smaller at the right and lower border. Raises RequestError 404 where there is none, and
        SourceError or StoreError where the slide cannot be read."""
        nothing = RequestError("the slide has no such tile", f"levels 0 to {self.top}", status=404)
        if not 0 <= level <= self.top:
            raise nothing
        scale = 2.0 ** (self.top - level)
        width, height = math.ceil(self.width_px / scale), math.ceil(self.height_px / scale)
        left, top = column * TILE_PX, row * TILE_PX
        if not (0 <= left < width and 0 <= top < height):
            raise nothing
        size = min(TILE_PX, width - left), min(TILE_PX, height - top)
        buffer = io.BytesIO()
        self._pixels(left, top, size, scale).save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()

    def _pixels(self, left: int, top: int, size: tuple[int, int], scale: float) -> Image.Image:
        level = self._slide.level_for(scale)
        finer = scale / self._slide.downsamples[level]
        if max(size) * finer > _LARGEST_READ_PX:
            return self._from_overview(left, top, size, scale)
        source = max(1, round(size[0] * finer)), max(1, round(size[1] * finer))
        region = self._slide.read_region(round(left * scale), round(top * scale), level, source)
        return Image.fromarray(region).resize(size, Image.Resampling.BOX)

    def _from_overview(self, left: int, top: int, size: tuple[int, int], scale: float) -> Image.Image:
        if self._overview is None:
            self._overview = self._slide.thumbnail(_OVERVIEW_PX)
        ratio = scale * self._overview.shape[1] / self.width_px
        box = (left * ratio, top * ratio, (left + size[0]) * ratio, (top + size[1]) * ratio)
        height, width = self._overview.shape[:2]
        clipped = (min(box[0], width - 1), min(box[1], height - 1), min(box[2], width), min(box[3], height))
        return Image.fromarray(self._overview).resize(size, Image.Resampling.BOX, box=clipped)
