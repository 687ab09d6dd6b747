"""The synthetic patches as a source: no file is read, every patch is made anew from (config, index)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sentinode.data.sources.base import UNKNOWN, BadImage, Column, Listing, Pixels, SourceItem
from sentinode.data.synthetic import SyntheticConfig, slide_of, synthetic_patches


@dataclass(frozen=True)
class SyntheticSource:
    """``config.patches`` patches of ``config.slides`` slides. Labels follow PCam's rule and are known once a
    patch is made, so the listing leaves them open and ``read`` fills them in."""

    config: SyntheticConfig
    kind: str = "synthetic"

    def listing(self) -> Listing:
        """One row a patch. A ref tells the settings and the first patch's pixels, so that another seed, or another
        release of the generator, never passes for the same source."""
        count = self.config.patches
        where = [slide_of(self.config, i) for i in range(count)]
        first = next(iter(synthetic_patches(self.config, [0]))).pixels
        made = hashlib.sha256(self.config.digest().encode() + first.tobytes()).hexdigest()[:8]
        return Listing(
            [f"synthetic/{made}/{i}" for i in range(count)],
            np.zeros(count, np.int64),
            np.full(count, UNKNOWN, np.int8),
            np.full(count, UNKNOWN, np.int8),
            slides=Column.of(slide for slide, _ in where),
            centres=Column.of(centre for _, centre in where),
            patients=Column.unknown(count),
        )

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Make ``items`` in their order, with their labels."""
        patches = synthetic_patches(self.config, [item.index for item in items])
        for item, patch in zip(items, patches, strict=True):
            yield dataclasses.replace(item, label=patch.label), patch.pixels

    def promised_key(self, item: SourceItem) -> str | None:
        """Nothing is promised."""
        return None

    def close(self) -> None:
        """Nothing is left behind."""
