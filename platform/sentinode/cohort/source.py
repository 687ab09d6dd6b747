"""Whole slides as a source of patches: each is read at 0.972 um/px from where its reference says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from PIL import Image

from sentinode.data.places import parse_reference
from sentinode.data.sources.base import BadImage, Listing, Pixels, SourceItem
from sentinode.errors import ConfigError, SourceError
from sentinode.schema import PATCH_PX
from sentinode.slides.reader import open_slide
from sentinode.slides.slide import Slide
from sentinode.storage import join_url

_SAME: Final = 1.0
"""Pixels by which 96 may be off when a level is taken as it is."""


def read_patch(slide: Slide, corner: tuple[int, int], side_px: int) -> Pixels:
    """uint8 [96, 96, 3] of the square ``side_px`` wide at ``corner``, level-0 pixels.

    From the level that is just finer, made smaller where it is more than 1 % finer. Raises SourceError, StoreError.
    """
    level = slide.level_for(side_px / PATCH_PX)
    side = side_px / slide.downsamples[level]
    if abs(side - PATCH_PX) <= _SAME:
        return slide.read_region(*corner, level, (PATCH_PX, PATCH_PX))
    whole = int(np.ceil(side))
    region = Image.fromarray(slide.read_region(*corner, level, (whole, whole)))
    # Pillow's bicubic filter widens with the reduction, so nothing is left out.
    small = region.resize((PATCH_PX, PATCH_PX), Image.Resampling.BICUBIC, box=(0, 0, side, side))
    return np.asarray(small)


@dataclass(frozen=True)
class SlideSource:
    """The slides at ``url``; which patches are taken, a listing says that was made of them (see ``choose``)."""

    url: str
    um_px: float | None = None
    kind: str = "slides"

    def listing(self) -> Listing:
        """Raises ConfigError: sampling is done beforehand, slide by slide."""
        raise ConfigError("slides listed without sampling", "the listing made by cohort.choose")

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Read ``items``, slide by slide and from top to bottom, since neighbours share tiles."""
        places = sorted((*self._place(item), item.index) for item in items)
        by_index = {item.index: item for item in items}
        for key, group in groupby(places, key=lambda place: place[0]):
            members = list(group)
            try:
                with open_slide(join_url(self.url, key), self.um_px) as slide:
                    for _, y, x, side, index in members:
                        yield by_index[index], self._patch(slide, (x, y), side)
            except SourceError as error:
                for *_, index in members:
                    yield by_index[index], BadImage(error.found)

    @staticmethod
    def _place(item: SourceItem) -> tuple[str, int, int, int]:
        key, (x, y), side = parse_reference(item.ref)
        return key, y, x, side

    @staticmethod
    def _patch(slide: Slide, corner: tuple[int, int], side: int) -> Pixels | BadImage:
        try:
            return read_patch(slide, corner, side)
        except SourceError as error:
            return BadImage(error.found)

    def promised_key(self, item: SourceItem) -> str | None:
        """Nothing is promised."""
        return None

    def close(self) -> None:
        """Nothing is left behind."""
