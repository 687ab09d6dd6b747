"""Endless tissue of one kind, quilted from a few drawn patches.

Patches lie on a jittered lattice, turned and mirrored; where they overlap, a wavy line parts them, so that no straight
seam shows. Any window of it can be drawn alone: what lies where depends on the place only.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sentinode.data.tissue.noise import Array, smooth_noise
from sentinode.data.tissue.scene import TissueStyle
from sentinode.data.tissue.texture import grow_texture
from sentinode.schema import PATCH_PX

POOL: Final = 10
"""Patches drawn of each kind."""
_STEP_PX: Final = 72
_JITTER_PX: Final = 5
_PERIOD: Final = 61
"""Places after which the choices repeat, in x and y: 4.3 mm."""
_SEAM_PX: Final = 1.2
_STAINS: Final = 3


class Quilt:
    """Haematoxylin, eosin and blood of one kind of tissue over the whole plane."""

    def __init__(self, rng: np.random.Generator, style: TissueStyle, name: str) -> None:
        grown = [grow_texture(rng, style, name) for _ in range(POOL)]
        patches = np.stack([[t.haematoxylin, t.eosin, t.blood] for t in grown])
        turned = [np.rot90(patches, k, axes=(2, 3)) for k in range(4)]
        self._patches: Array = np.concatenate([*turned, *(t[..., ::-1] for t in turned)]).astype(np.float32)
        """[8 * POOL, 3, 96, 96]"""
        self._weights: Array = np.stack([_weight(rng) for _ in range(POOL)])
        places = (_PERIOD, _PERIOD)
        self._patch = rng.integers(0, len(self._patches), places)
        self._weight = rng.integers(0, POOL, places)
        self._shift = rng.integers(-_JITTER_PX, _JITTER_PX + 1, (*places, 2))

    def window(self, x0: int, y0: int, width: int, height: int) -> Array:
        """Stain amounts float32 [3, height, width] of the window whose first pixel is (x0, y0)."""
        total = np.zeros((_STAINS, height, width), np.float32)
        weights = np.zeros((height, width), np.float32)
        reach = PATCH_PX + _JITTER_PX
        for row in range((y0 - reach) // _STEP_PX, (y0 + height + _JITTER_PX) // _STEP_PX + 1):
            for column in range((x0 - reach) // _STEP_PX, (x0 + width + _JITTER_PX) // _STEP_PX + 1):
                place = (row % _PERIOD, column % _PERIOD)
                shift_y, shift_x = self._shift[place].tolist()
                top, left = row * _STEP_PX + shift_y - y0, column * _STEP_PX + shift_x - x0
                rows = slice(max(0, top), min(height, top + PATCH_PX))
                columns = slice(max(0, left), min(width, left + PATCH_PX))
                if rows.start >= rows.stop or columns.start >= columns.stop:
                    continue
                inner = (
                    slice(rows.start - top, rows.stop - top),
                    slice(columns.start - left, columns.stop - left),
                )
                weight = self._weights[self._weight[place]][inner]
                total[:, rows, columns] += weight * self._patches[self._patch[place]][:, *inner]
                weights[rows, columns] += weight
        return np.asarray(total / weights, np.float32)


def _weight(rng: np.random.Generator) -> Array:
    """Weight [96, 96] of a patch, falling towards its border so steeply that the heaviest one is nearly alone."""
    edge = np.minimum(np.arange(PATCH_PX), np.arange(PATCH_PX)[::-1]).astype(np.float32)
    distance = np.minimum(edge[:, None], edge[None, :])
    uneven = 2.5 * smooth_noise(rng, 13) + 1.2 * smooth_noise(rng, 5)
    return np.asarray(np.exp((distance + uneven - PATCH_PX / 2) / np.float32(_SEAM_PX)), np.float32)
