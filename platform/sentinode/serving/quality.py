"""The gate before the model: patches that it should not judge are answered with a flag instead of a verdict.

Four reasons: nothing is on the patch, it is out of focus, its stain is far from training's, or the client says that
it has another scale. NumPy only, over whole batches; the measures read every few rows and columns, which is enough
for statistics over a patch and costs about 20 microseconds a patch in a batch (docs/results.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sentinode.bundle.card import Card
from sentinode.bundle.stain import FEATURE_NAMES, stain_features
from sentinode.config import Frozen
from sentinode.errors import RequestError

logger = logging.getLogger(__name__)

MPP_HEADER: Final = "x-mpp-um-px"
"""Header in which a client says its patches' microns per pixel."""

_STEP_PX: Final = 6
"""Every sixth row and every sixth column."""
_LAG_PX: Final = 4
"""Texture of nuclei at 1 um/px: fine enough that blur hardly reaches it, coarse enough to be no noise."""
_CHUNK: Final = 32
"""Patches at once: their samples stay in the processor's cache."""


class Flag(StrEnum):
    """Why a patch got no verdict."""

    BLANK = "blank"
    OUT_OF_FOCUS = "out_of_focus"
    UNFAMILIAR_STAIN = "unfamiliar_stain"
    WRONG_SCALE = "wrong_scale"


_FLAGS_OF_BITS: Final = tuple(
    tuple(flag for bit, flag in enumerate(Flag) if bits >> bit & 1) for bits in range(1 << len(Flag))
)
_BITS: Final = {flag: 1 << bit for bit, flag in enumerate(Flag)}


class QualityLimits(Frozen):
    """From where on a patch is not judged. Tuned on PCam and Kaggle patches: docs/results.md."""

    enabled: bool = True
    """False answers every patch with a verdict."""
    min_contrast: float = Field(default=3.0, ge=0)
    """Grey levels (root mean square difference of pixels 4 apart, green) below which a patch is blank."""
    min_sharpness: float = Field(default=0.18, ge=0)
    """Energy of second differences of neighbours over that of differences of pixels 4 apart; blur takes the first."""
    stain_share: float = Field(default=0.99, gt=0, le=1)
    """Share of training patches whose Mahalanobis distance of stain is the unit of ``stain_margin``."""
    stain_margin: float = Field(default=1.25, gt=0)
    """Times that distance, a patch's stain is unfamiliar."""
    mpp_tolerance: float = Field(default=0.25, gt=0, lt=1)
    """Relative difference from the card's microns per pixel above which the scale is wrong."""


@dataclass(frozen=True, eq=False)
class Quality:
    """What is known of B patches: what the gate found, and what was said of them."""

    bits_B: NDArray[np.uint8]
    """Bit k is set where the patch has the k-th flag; 0: it may be judged."""
    stain_distance_B: NDArray[np.float64]
    """Mahalanobis distance from the stain of training; NaN where the card does not know it."""

    def flags(self, index: int) -> tuple[Flag, ...]:
        """The flags of one patch."""
        return _FLAGS_OF_BITS[self.bits_B[index]]

    def add(self, flags: Iterable[Flag], first: int, count: int) -> None:
        """Flag ``count`` patches from ``first`` on."""
        for flag in flags:
            self.bits_B[first : first + count] |= _BITS[flag]


class QualityGate:
    """The limits for one bundle."""

    def __init__(self, card: Card, limits: QualityLimits | None = None) -> None:
        self.limits = limits or QualityLimits()
        self._mpp_um_px = card.mpp_um_px
        self._stain = card.stain
        limit = card.stain.limit(self.limits.stain_share) if card.stain else None
        if card.stain is not None and card.stain.features != FEATURE_NAMES:
            logger.warning("the card's stain statistics are of other features; stain is not checked")
            self._stain = None
        self.stain_limit = math.inf if limit is None else limit * self.limits.stain_margin
        """Mahalanobis distance above which stain is unfamiliar; infinite where the card does not know stain."""

    def check(self, images_BHWC: NDArray[np.uint8]) -> Quality:
        """Look at patches uint8 [B, H, W, 3], RGB; each is treated alone."""
        count = len(images_BHWC)
        distance_B = np.full(count, np.nan)
        if not self.limits.enabled:
            return Quality(np.zeros(count, np.uint8), distance_B)
        contrast_B, sharpness_B = texture(images_BHWC)
        blank_B = contrast_B < self.limits.min_contrast
        bits_B = blank_B.astype(np.uint8)
        # Where nothing is on the patch, focus and stain cannot be told.
        bits_B |= (~blank_B & (sharpness_B < self.limits.min_sharpness)).astype(np.uint8) << 1
        if self._stain is not None:
            for start in range(0, count, _CHUNK):
                chunk = slice(start, start + _CHUNK)
                distance_B[chunk] = self._stain.distances(stain_features(images_BHWC[chunk]))
            bits_B |= (~blank_B & (distance_B > self.stain_limit)).astype(np.uint8) << 2
        return Quality(bits_B, distance_B)

    def check_scale(self, mpp_um_px: str) -> tuple[Flag, ...]:
        """The flag for what a client says of its patches' scale (``""``: nothing), in microns per pixel.

        Raises RequestError 400 where that is no positive number.
        """
        if not mpp_um_px:
            return ()
        try:
            given = float(mpp_um_px)
        except ValueError:
            given = math.nan
        if not 0 < given < math.inf:
            raise RequestError(
                f"mpp_um_px is {mpp_um_px[:32]!r}", f"microns per pixel, e.g. {self._mpp_um_px}"
            )
        is_off = abs(given / self._mpp_um_px - 1) > self.limits.mpp_tolerance
        return (Flag.WRONG_SCALE,) if is_off and self.limits.enabled else ()


def texture(images_BHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contrast in grey levels and sharpness (no unit), float64 [B] each, of the green channel.

    Contrast is the root mean square difference of pixels 4 apart; sharpness the energy of the second difference
    of neighbours over that of these differences. Stain and contrast cancel out of the ratio (normalised Laplacian
    energy; Pertuz et al. 2013 compare such measures).
    """
    contrast_B, sharpness_B = np.empty(len(images_BHWC)), np.empty(len(images_BHWC))
    for start in range(0, len(images_BHWC), _CHUNK):
        green = images_BHWC[start : start + _CHUNK, :, :, 1]
        rows = green[:, ::_STEP_PX].astype(np.int16)
        columns = green[:, :, ::_STEP_PX].transpose(0, 2, 1).astype(np.int16)
        coarse = fine = np.zeros(len(green))
        for lines in (rows, columns):
            fine = fine + _energy(2 * lines[..., 1:-1] - lines[..., :-2] - lines[..., 2:])
            coarse = coarse + _energy(lines[..., _LAG_PX:] - lines[..., :-_LAG_PX])
        contrast_B[start : start + _CHUNK] = np.sqrt(coarse / 2)
        sharpness_B[start : start + _CHUNK] = fine / np.maximum(coarse, 1e-9)
    return contrast_B, sharpness_B


def _energy(differences: NDArray[np.int16]) -> NDArray[np.float64]:
    flat = differences.reshape(len(differences), -1).astype(np.float32)
    return np.asarray(np.einsum("bp,bp->b", flat, flat) / flat.shape[1], np.float64)
