"""The pixels of a synthetic slide, band by band: tissue, stain, scanner, focus, ink."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sentinode.cohort.synthetic.config import SlideContents
from sentinode.cohort.synthetic.plan import SlidePlan
from sentinode.cohort.synthetic.quilt import Quilt
from sentinode.cohort.synthetic.regions import GLASS, Regions
from sentinode.data.tissue.noise import Array, blur
from sentinode.data.tissue.scene import draw_style
from sentinode.data.tissue.stain import draw_scanner, light_of
from sentinode.data.tissue.texture import TEXTURES
from sentinode.slides.outlines import rasterised

Rgb = NDArray[np.uint8]

BAND_PX: Final = 512
"""Rows of level 0 drawn at a time."""
_BLOCK_PX: Final = 1024
"""Columns of level 0 drawn at a time."""
_HALO_PX: Final = 24
"""Drawn pixels around a block that blur and enlargement reach over."""
_BLUR_UM: Final = 4.0
_FEATHER_PX: Final = 6.0
_INK: Final = np.array([40, 60, 150], np.float32) / 255
"""Light that blue ink lets through."""
_STREAM_CENTRE, _STREAM_STYLE, _STREAM_TISSUE = 11, 12, 13


class SlidePainter:
    """Draws one slide."""

    def __init__(self, contents: SlideContents, plan: SlidePlan) -> None:
        self._contents, self._plan = contents, plan
        style_rng = generator(contents.seed, _STREAM_STYLE)
        style = draw_style(style_rng)
        self._scanner = draw_scanner(generator(contents.centre, _STREAM_CENTRE), style_rng, contents.centre)
        rng = generator(contents.seed, _STREAM_TISSUE)
        self._quilts = [Quilt(rng, style, name) for name in TEXTURES]
        self._regions = Regions(rng, contents, plan)
        self._noise = rng.standard_normal((BAND_PX, _BLOCK_PX, 3), np.float32) * np.float32(
            self._scanner.noise / 2
        )

    def bands(self) -> Iterator[Rgb]:
        """The slide from the top, uint8 [h, W, 3]; each band has BAND_PX rows, the last what is left."""
        width, height = self._contents.width_px, self._contents.height_px
        for top in range(0, height, BAND_PX):
            rows = min(BAND_PX, height - top)
            lefts = range(0, width, _BLOCK_PX)
            yield np.concatenate(
                [self._block(left, top, min(_BLOCK_PX, width - left), rows) for left in lefts], axis=1
            )

    def _block(self, x0: int, y0: int, width: int, height: int) -> Rgb:
        """Level-0 pixels uint8 [height, width, 3] of the block whose first pixel is (x0, y0)."""
        step = self._contents.enlargement
        wide, high = (-(-size // step) + 1 + 2 * _HALO_PX for size in (width, height))
        left, top = x0 // step - _HALO_PX, y0 // step - _HALO_PX
        light = self._light(left, top, wide, high)
        plan = self._plan
        if plan.blur is not None:
            here = rasterised(plan.blur, (left * step, top * step), 1 / step, wide, high)
            if here.any():
                sigma = _BLUR_UM / self._contents.drawn_um_px
                share = ndimage.gaussian_filter(here.astype(np.float32), _FEATHER_PX)[..., None]
                light += share * (ndimage.gaussian_filter(light, (sigma, sigma, 0)) - light)
        if plan.pen is not None:
            here = rasterised(plan.pen, (left * step, top * step), 1 / step, wide, high)
            ink = blur(here.astype(np.float32), 0.25)[..., None]
            light *= 1 - ink * (1 - _INK)
        grey = light * self._scanner.white
        fine = self._enlarged(grey, (x0 % step, y0 % step), width, height) + self._noise[:height, :width]
        return np.clip(fine + np.float32(0.5), 0, 255).astype(np.uint8)

    def _light(self, x0: int, y0: int, width: int, height: int) -> Array:
        """Light that comes through, float32 [height, width, 3] in (0..1), as the scanner's optics see it."""
        kinds = self._regions.window(x0, y0, width, height)
        stains = np.zeros((3, height, width), np.float32)
        for kind in np.unique(kinds).tolist():
            if kind != GLASS:
                where = kinds == kind
                rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
                ys, xs = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                window = self._quilts[kind].window(
                    x0 + xs.start, y0 + ys.start, xs.stop - xs.start, ys.stop - ys.start
                )
                np.copyto(stains[:, ys, xs], window, where=where[ys, xs])
        return blur(light_of(self._scanner, *stains), self._scanner.blur)

    def _enlarged(self, grey_HWC: Array, offset: tuple[int, int], width: int, height: int) -> Array:
        """Drawn pixels with their halo, enlarged and cut to the block, which starts ``offset`` (x, y) pixels of level 0
        behind the halo: float32 [height, width, 3]."""
        step = self._contents.enlargement
        left, top = (_HALO_PX + value / step for value in offset)
        box = (left, top, left + width / step, top + height / step)
        if step == 1:
            return grey_HWC[_HALO_PX : _HALO_PX + height, _HALO_PX : _HALO_PX + width]
        planes = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(grey_HWC[..., c])).resize(
                    (width, height), Image.Resampling.BICUBIC, box=box
                )
            )
            for c in range(3)
        ]
        return np.stack(planes, axis=-1)


def generator(seed: int, stream: int) -> np.random.Generator:
    """An independent counter-based generator for each (seed, stream)."""
    return np.random.Generator(np.random.Philox(key=[seed, stream]))
