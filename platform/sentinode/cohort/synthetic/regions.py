"""Which kind of tissue lies where in a synthetic lymph node, from a coarse map of the whole slide.

From the outside in: fat around the node, capsule, subcapsular sinus, cortex with follicles, medulla.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sentinode.cohort.synthetic.config import SlideContents
from sentinode.cohort.synthetic.plan import SlidePlan
from sentinode.data.tissue.noise import Array
from sentinode.data.tissue.texture import TEXTURES, TUMOUR
from sentinode.slides.outlines import rasterised

GLASS: Final = len(TEXTURES)
"""Kind of what is no tissue; others are places in TEXTURES."""
_COARSE_UM: Final = 16.0
_CAPSULE_UM: Final = 45.0
_SINUS_UM: Final = 90.0
_CORTEX_UM: Final = 650.0
_FAT_UM: Final = 220.0
_WAVE_PX: Final = 512
_PAD: Final = 8


class Regions:
    """Kinds of tissue of one slide; windows are in drawn pixels."""

    def __init__(self, rng: np.random.Generator, contents: SlideContents, plan: SlidePlan) -> None:
        self._contents, self._plan = contents, plan
        self._coarse_px = _COARSE_UM / contents.drawn_um_px
        height = int(np.ceil(contents.height_px * contents.um_px / _COARSE_UM)) + 2
        width = int(np.ceil(contents.width_px * contents.um_px / _COARSE_UM)) + 2
        scale = contents.um_px / _COARSE_UM
        inside = rasterised(plan.node, (0, 0), scale, width, height)
        depth = (
            ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        ) * _COARSE_UM
        self._depth = depth.astype(np.float32)
        self._fields = [_field(rng, (height, width), um / _COARSE_UM) for um in (350.0, 260.0, 500.0)]
        self._waves = _field(rng, (_WAVE_PX, _WAVE_PX), 9.0, mode="wrap")

    def window(self, x0: int, y0: int, width: int, height: int) -> NDArray[np.uint8]:
        """Kinds uint8 [height, width]: places in TEXTURES, or GLASS."""
        wave = self._waves[
            np.ix_(np.arange(y0, y0 + height) % _WAVE_PX, np.arange(x0, x0 + width) % _WAVE_PX)
        ]

        def fine(coarse: Array) -> Array:
            grown = np.pad(coarse, _PAD, mode="edge")
            left, top = x0 / self._coarse_px + _PAD, y0 / self._coarse_px + _PAD
            box = (left, top, left + width / self._coarse_px, top + height / self._coarse_px)
            image = Image.fromarray(grown).resize((width, height), Image.Resampling.BILINEAR, box=box)
            return np.asarray(image, np.float32)

        depth = fine(self._depth) + 9 * wave
        follicles, medulla, cords = (fine(field) + np.float32(0.12) * wave for field in self._fields)
        kinds = _layers(depth, follicles, medulla, cords)
        step = self._contents.enlargement
        for lesion in self._plan.lesions:
            tumour = rasterised(lesion, (x0 * step, y0 * step), 1 / step, width, height)
            kinds[tumour] = TEXTURES.index(TUMOUR)
        return kinds


def _layers(depth: Array, follicles: Array, medulla: Array, cords: Array) -> NDArray[np.uint8]:
    """Kinds by ``depth`` (um below the node's surface, negative outside) and three fields of mean 0, deviation 1."""
    place: Callable[[str], np.uint8] = lambda name: np.uint8(TEXTURES.index(name))  # noqa: E731
    kinds = np.full(depth.shape, GLASS, np.uint8)
    kinds[(depth > -_FAT_UM * np.clip(medulla + 1, 0, 2)) & (medulla > -0.4)] = place("fat")
    kinds[depth > 0] = place("stroma")
    kinds[depth > _CAPSULE_UM] = place("sinus")
    cortex = depth > _SINUS_UM
    kinds[cortex] = place("lymphoid")
    kinds[cortex & (follicles > 1.1) & (depth < _CORTEX_UM)] = place("follicle")
    inner = depth > _CORTEX_UM * np.clip(1 + 0.4 * medulla, 0.4, 1.8)
    kinds[inner & (cords > 0.55)] = place("sinus")
    kinds[inner & (cords > 1.25)] = place("histiocytes")
    kinds[inner & (np.abs(follicles - 0.2) < 0.09)] = place("stroma")
    return kinds


def _field(rng: np.random.Generator, shape: tuple[int, int], grain: float, mode: str = "reflect") -> Array:
    """A smooth random field [H, W] of mean 0 and standard deviation about 1, in blobs ``grain`` wide."""
    noise = rng.standard_normal(shape, np.float32)
    smooth = ndimage.gaussian_filter(noise, grain / 3, mode=mode)
    return np.asarray(smooth * np.float32(2 * np.sqrt(np.pi) * grain / 3), np.float32)
