"""Which parts of a patch a probability rests on: occlusion (Zeiler and Fergus 2014, arXiv:1311.2901).

A square of empty glass is moved over it; where the tumour logit falls, the hidden part spoke for tumour. Only the
forward pass is needed, so any bundle can be explained, in one batch through the same engine.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sentinode.serving.engine import Engine

WINDOW_PX: Final = 24
STRIDE_PX: Final = 8
"""10 x 10 positions on a patch of 96 pixels."""
GLASS_GREY: Final = 240
"""What hides a part: no tissue at all. A flat patch of the mean colour, or a blurred one, is nothing that a model has
seen, and raised the tumour logit wherever it was put (docs/results.md)."""
_SMALLEST_SCALE: Final = 0.05
"""Logits: a map that never reaches this is shown pale, not stretched to full colour."""
_FOR_RGB, _AGAINST_RGB = (255, 214, 0), (0, 186, 255)
"""Yellow and sky blue: both stand out from haematoxylin and eosin, and from each other for the colour-blind."""
_MOST_OPAQUE: Final = 230


@dataclass(frozen=True, eq=False)
class Occlusion:
    """The explanation of one patch."""

    drop_HW: NDArray[np.float32]
    """By how much the tumour logit falls where this part is hidden: float32 [H, W], mean over squares that hide it."""
    logit: float
    """Of the whole patch."""
    probability: float

    @property
    def scale(self) -> float:
        """The drop, in logits, that is drawn in full colour."""
        return max(float(np.abs(self.drop_HW).max()), _SMALLEST_SCALE)

    def png(self) -> bytes:
        """The map as RGBA PNG of the patch's size: yellow speaks for tumour, blue against it, faint is nothing."""
        share = self.drop_HW / self.scale
        rgba = np.empty((*share.shape, 4), np.uint8)
        rgba[..., :3] = np.where((share > 0)[..., None], _FOR_RGB, _AGAINST_RGB)
        rgba[..., 3] = np.abs(share) * _MOST_OPAQUE
        buffer = io.BytesIO()
        Image.fromarray(rgba).save(buffer, "PNG")
        return buffer.getvalue()


def occlusion(engine: Engine, patch_HWC: NDArray[np.uint8]) -> Occlusion:
    """Explain one patch uint8 [H, W, 3]; the engine is asked once, with a batch of 101. Raises ``engine.fault()``."""
    height_px, width_px, _ = patch_HWC.shape
    corners = [
        (top, left)
        for top in range(0, height_px - WINDOW_PX + 1, STRIDE_PX)
        for left in range(0, width_px - WINDOW_PX + 1, STRIDE_PX)
    ]
    images = np.repeat(patch_HWC[None], len(corners) + 1, axis=0)
    for image, (top, left) in zip(images[1:], corners, strict=True):
        image[top : top + WINDOW_PX, left : left + WINDOW_PX] = GLASS_GREY
    scores = engine.predict(images)
    if not scores.are_numbers():
        raise engine.fault()
    drops = scores.logits_B[0] - scores.logits_B[1:]
    total, times = np.zeros((2, height_px, width_px), np.float32)
    for drop, (top, left) in zip(drops, corners, strict=True):
        total[top : top + WINDOW_PX, left : left + WINDOW_PX] += drop
        times[top : top + WINDOW_PX, left : left + WINDOW_PX] += 1
    return Occlusion(
        _smooth((total / np.maximum(times, 1)).astype(np.float32)),
        float(scores.logits_B[0]),
        float(scores.probabilities_B[0]),
    )


def _smooth(blocks_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map is constant on squares of ``STRIDE_PX``; drawn as it is, their edges would look like findings."""
    coarse = Image.fromarray(
        np.ascontiguousarray(blocks_HW[STRIDE_PX // 2 :: STRIDE_PX, STRIDE_PX // 2 :: STRIDE_PX])
    )
    height_px, width_px = blocks_HW.shape
    return np.asarray(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC), np.float32)
