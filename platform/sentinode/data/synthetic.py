"""Synthetic H&E-like lymph-node patches: the data set of the demo and the tests, made without any file.

A patch is a pure function of (config, index): any subset in any order has the same pixels. Slides have their own
stain, scanner and tumour style; a share of them is normal and gives only negatives, as in Camelyon16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.data.tissue.scene import Tissue, TissueStyle, draw_style, grow_tissue
from sentinode.data.tissue.stain import Scanner, digitise, draw_scanner
from sentinode.errors import ConfigError
from sentinode.schema import CENTRE_PX, PATCH_PX

_NORMAL_SLIDE_PERIOD = 4
_STREAM_SLIDE, _STREAM_CENTRE, _STREAM_PATCH = 1, 2, 3


class SyntheticConfig(Frozen):
    """What to make. Same values, same pixels."""

    patches: int = Field(default=6000, ge=1)
    """Number of patches; about half are positive."""
    slides: int = Field(default=24, ge=1)
    """Number of slides; within each centre every fourth one is normal (negatives only)."""
    centres: int = Field(default=3, ge=1)
    """Number of centres (laboratories): each has its own stain and scanner, about which its slides vary."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything."""
    hard_share: float = Field(default=0.12, ge=0.0, le=1.0)
    """Share of tumour patches with only a small group of cells, which may just touch the central 32x32."""

    @model_validator(mode="after")
    def _each_centre_has_a_slide(self) -> Self:
        if self.centres > self.slides:
            raise ConfigError(
                f"{self.centres} centres but {self.slides} slides",
                "at least one slide per centre",
                "raise slides or lower centres",
            )
        return self


@dataclass(frozen=True, slots=True)
class SyntheticPatch:
    """One patch: ``pixels`` uint8 [96, 96, 3] RGB at about 1 um/px; ``label`` 1 if its centre holds tumour."""

    pixels: NDArray[np.uint8]
    label: int
    slide: str
    centre: str


def synthetic_patches(config: SyntheticConfig, indices: Sequence[int]) -> Iterator[SyntheticPatch]:
    """Make the patches of ``indices`` (each in [0, config.patches)), in the order given.

    Raises ConfigError for an index outside of the set.
    """
    for index in indices:
        if not 0 <= index < config.patches:
            raise ConfigError(f"synthetic patch {index}", f"an index from 0 to {config.patches - 1}")
        yield _make_patch(config, int(index))


def slide_of(config: SyntheticConfig, index: int) -> tuple[str, str]:
    """Slide id and centre id of patch ``index``, without making it."""
    slide = index % config.slides
    centre = slide % config.centres
    return f"synthetic_c{centre}_s{slide:03d}", f"centre_{centre}"


def _make_patch(config: SyntheticConfig, index: int) -> SyntheticPatch:
    slide, centre = slide_of(config, index)
    tissue, scanner, rng = _grow(config, index)
    middle = slice((PATCH_PX - CENTRE_PX) // 2, (PATCH_PX + CENTRE_PX) // 2)
    label = int(tissue.tumour[middle, middle].any())
    return SyntheticPatch(digitise(rng, tissue, scanner), label, slide, centre)


def _grow(config: SyntheticConfig, index: int) -> tuple[Tissue, Scanner, np.random.Generator]:
    """Tissue of patch ``index`` with its tumour mask, its slide's scanner, and the generator as it stands."""
    style, scanner = _slide(config.seed, index % config.slides, config.centres)
    rng = _generator(config.seed, _STREAM_PATCH, index)
    wants_tumour = bool(rng.random() < _positive_share(config, index % config.slides))
    return grow_tissue(rng, style, wants_tumour, config.hard_share), scanner, rng


def _positive_share(config: SyntheticConfig, slide: int) -> float:
    """Share of positives on ``slide``: 0 on normal slides, on the others such that half of all are positive."""

    def is_normal(s: int) -> bool:
        return (s // config.centres) % _NORMAL_SLIDE_PERIOD == _NORMAL_SLIDE_PERIOD - 1

    tumour_slides = sum(not is_normal(s) for s in range(config.slides))
    return 0.0 if is_normal(slide) else min(1.0, 0.5 * config.slides / tumour_slides)


@lru_cache(maxsize=1024)
def _slide(seed: int, slide: int, centres: int) -> tuple[TissueStyle, Scanner]:
    centre = slide % centres
    centre_rng = _generator(seed, _STREAM_CENTRE, centre)
    slide_rng = _generator(seed, _STREAM_SLIDE, slide)
    return draw_style(slide_rng), draw_scanner(centre_rng, slide_rng, centre)


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    """An independent counter-based generator for each (seed, stream, number)."""
    return np.random.Generator(np.random.Philox(key=[seed << 8 | stream, number]))
