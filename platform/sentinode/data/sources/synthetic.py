"""The synthetic patches as a source: no file is read, every patch is made anew from (config, index)."""

from __future__ import annotations

import dataclasses
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
        """One row a patch; its ref tells the seed, so that patches of two seeds never share one."""
        count = self.config.patches
        where = [slide_of(self.config, i) for i in range(count)]
        settings = self.config.model_copy(update={"patches": 1}).digest()[:8]
        return Listing(
            [f"synthetic/{settings}/{i}" for i in range(count)],
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
