"""The settings of slides on the page: a part of ServeArgs, apart from what reads slides."""

from __future__ import annotations

from pydantic import Field

from sentinode.config import Frozen
from sentinode.storage import StoreUrl


class SlidesArgs(Frozen):
    """Scored slides to show on the page."""

    scores: StoreUrl
    """URL that ``sentinode score`` wrote to."""
    corrections: StoreUrl | None = None
    """URL that takes pathologists' corrections; without it the page shows, and takes none."""
    open_slides: int = Field(default=8, ge=1, le=256)
    """Slides that a replica keeps open, some 64 MiB each."""
    max_correction_bytes: int = Field(default=4 << 20, ge=1024)
    """Larger files of corrections are refused with 413."""
