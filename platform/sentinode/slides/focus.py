"""Which parts of a slide are out of focus, by samples of its texture.

At 8 um/px nothing shows whether nuclei are sharp, and reading a whole slide finer would take its time again. So
each cell of a grid is judged by one square amid its tissue, read at about 2 um/px.

The measure is the energy of the Laplacian over that of the texture between 2 and 16 um: stain, thickness and
contrast cancel out. (Normalised Laplacian energy; Pertuz et al. 2013 compare such measures.)
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sentinode.slides.slide import Slide

UM_PX: Final = 2.0
SAMPLE_PX: Final = 128
"""Side of the square that judges a cell: 256 um."""
_TEXTURE_PX: Final = 8.0
_PARTS: Final = 4
_PART_PX: Final = SAMPLE_PX // _PARTS
MIN_CONTRAST: Final = 2.0
"""Grey levels (standard deviation) below which nothing can be told: fat, empty glass."""


def sharpness(grey: NDArray[np.float32]) -> float:
    """Energy of the Laplacian over that of the texture; NaN without any. ``grey`` [128, 128] at 2 um/px, 0 to 255.

    The median over sixteen parts: the edge of a pen, a hole or dust is sharp where tissue is not.
    """
    texture = grey - ndimage.gaussian_filter(grey, _TEXTURE_PX, mode="nearest")
    detail = ndimage.laplace(grey, mode="nearest")
    texture_energy, detail_energy = (
        (values**2).reshape(_PARTS, _PART_PX, _PARTS, _PART_PX).mean(axis=(1, 3))
        for values in (texture, detail)
    )
    told = texture_energy >= MIN_CONTRAST**2
    return float(np.median(detail_energy[told] / texture_energy[told])) if told.any() else math.nan


def out_of_focus(
    slide: Slide, mask: NDArray[np.bool_], cell_um: float, min_sharpness: float
) -> NDArray[np.bool_]:
    """The cells of ``mask`` (an overview of the whole slide, [H, W]) that are less sharp than ``min_sharpness``.

    A cell whose sample has no texture is not judged, thus in focus. Raises as ``Slide.read_region``.
    """
    height, width = mask.shape
    scale = slide.level_dimensions[0][0] / width
    step = max(1, round(cell_um / (slide.um_px * scale)))
    blurred = np.zeros_like(mask)
    for top in range(0, height, step):
        for left in range(0, width, step):
            here = np.argwhere(mask[top : top + step, left : left + step])
            if not len(here):
                continue
            y, x = here[((here - here.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            found = sharpness(_sample(slide, (left + x + 0.5) * scale, (top + y + 0.5) * scale))
            blurred[top : top + step, left : left + step] = found < min_sharpness
    return blurred & mask


def _sample(slide: Slide, x: float, y: float) -> NDArray[np.float32]:
    """Grey square around (x, y) at level 0, float32 [SAMPLE_PX, SAMPLE_PX] at 2 um/px."""
    downsample = max(1.0, UM_PX / slide.um_px)
    level = slide.level_for(downsample)
    side = SAMPLE_PX * downsample
    read = max(1, round(side / slide.downsamples[level]))
    # White beyond the border would be an edge, the sharpest of all: the square stays within the slide.
    corner = [
        max(0, min(round(at - side / 2), math.floor(size - side)))
        for at, size in zip((x, y), slide.level_dimensions[0], strict=True)
    ]
    region = Image.fromarray(slide.read_region(corner[0], corner[1], level, (read, read))).convert("L")
    return np.asarray(region.resize((SAMPLE_PX, SAMPLE_PX), Image.Resampling.BOX), np.float32)
