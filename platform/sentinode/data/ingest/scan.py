"""First pass: decode a chunk of patches, hash their pixels, and list what cannot be taken."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sentinode.config import Record
from sentinode.data.sources.base import BadImage, Pixels, Source, SourceItem
from sentinode.data.sources.known import oddity

KEY_BYTES: Final = 20
CHUNK_PATCHES: Final = 512
"""Patches a scan task. Fixed, so that a run resumes on a machine of another size."""

_NO_KEY = "0" * 40


class ScanRecord(Record):
    """What the scan of one chunk found; patches are counted from the chunk's first."""

    keys_hex: str = Field(pattern=r"^([0-9a-f]{40})*$")
    """SHA-1 of each patch's RGB bytes, 40 hex digits one after the other; zeros for a bad image."""
    bad: dict[int, str] = Field(default_factory=dict)
    """Patches that cannot be taken, with the reason."""
    flagged: dict[int, str] = Field(default_factory=dict)
    """Patches that are odd but kept, with what is odd."""
    broken_promises: tuple[int, ...] = ()
    """Patches whose pixels do not have the SHA-1 that the source claims."""
    labels: dict[int, int] = Field(default_factory=dict)
    """Labels that became known only by reading."""

    def keys(self) -> npt.NDArray[np.uint8]:
        """uint8 [n, 20]."""
        return np.frombuffer(bytes.fromhex(self.keys_hex), np.uint8).reshape(-1, KEY_BYTES)


def scan_chunk(
    source: Source, items: Sequence[SourceItem], remember_NHWC: npt.NDArray[np.uint8] | None = None
) -> ScanRecord:
    """Read and hash ``items``; their pixels are also put into ``remember_NHWC``, uint8 [items, 96, 96, 3]."""
    place = {item.index: i for i, item in enumerate(items)}
    keys = [_NO_KEY] * len(items)
    bad: dict[int, str] = {}
    flagged: dict[int, str] = {}
    broken: list[int] = []
    labels: dict[int, int] = {}
    for item, pixels in source.read(items):
        i = place[item.index]
        if isinstance(pixels, BadImage):
            bad[i] = pixels.reason
            continue
        keys[i] = key_of(pixels)
        if remember_NHWC is not None:
            remember_NHWC[i] = pixels
        if odd := oddity(keys[i], pixels):
            flagged[i] = odd
        if source.promised_key(item) not in (None, keys[i]):
            broken.append(i)
        if item.label is not None and items[i].label is None:
            labels[i] = item.label
    return ScanRecord(
        keys_hex="".join(keys),
        bad=dict(sorted(bad.items())),
        flagged=dict(sorted(flagged.items())),
        broken_promises=tuple(sorted(broken)),
        labels=dict(sorted(labels.items())),
    )


def key_of(pixels: Pixels) -> str:
    """The key of a patch: SHA-1 of its RGB bytes (what Kaggle's ids are), 40 hex digits."""
    return hashlib.sha1(np.ascontiguousarray(pixels).data, usedforsecurity=False).hexdigest()
