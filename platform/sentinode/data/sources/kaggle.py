"""Kaggle "Histopathologic Cancer Detection": ``train_labels.csv``, ``train/<id>.tif``, ``test/<id>.tif``.

An id is the SHA-1 of the patch's raw RGB bytes. ``patch_id_wsi_full.csv`` (``id,wsi``, made by the community)
adds slides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from sentinode.data.sources.base import (
    SPLITS,
    UNKNOWN,
    BadImage,
    Listing,
    Pixels,
    SourceItem,
    readable,
    slide_columns,
)
from sentinode.data.sources.images import decode_image
from sentinode.data.sources.known import slide_warnings
from sentinode.data.sources.table import check_unique, parse_labels, read_table
from sentinode.errors import SourceError
from sentinode.schema import Split

LABELS: Final = "train_labels.csv"
SUBMISSION: Final = "sample_submission.csv"
SLIDES: Final = "patch_id_wsi_full.csv"
_ID = re.compile(r"[A-Za-z0-9_-]+")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHOWN = 10


@dataclass(frozen=True)
class KaggleSource:
    """A folder in Kaggle's layout; ``test/`` and the two smaller tables may be absent."""

    folder: Path
    kind: str = "kaggle"

    @staticmethod
    def matches(folder: Path) -> bool:
        """Whether ``folder`` looks like this layout."""
        return (folder / LABELS).is_file()

    @readable()
    def listing(self) -> Listing:
        """Labelled patches in the order of the table, then the test folder by name.

        Raises SourceError for a broken table, and for images in ``train/`` that the table does not name. A
        named image that is not there is a bad image of the listing.
        """
        path = self.folder / LABELS
        table = read_table(path, ("id", "label"))
        ids, labels = table["id"], parse_labels(path, table["label"])
        check_unique(path, ids)
        odd = [i for i in ids if not _ID.fullmatch(i)]
        if odd:
            raise SourceError(f"{LABELS} has the id {odd[0]!r}", "letters, digits, - and _ only")
        train, test = self._images("train"), self._images("test")
        strangers = sorted(train.keys() - set(ids))
        if strangers:
            raise SourceError(
                f"train/ holds {len(strangers)} images that {LABELS} does not name, "
                f"such as {', '.join(strangers[:_SHOWN])}",
                "a label for each image in train/",
                f"add them to {LABELS}, or move them to test/",
            )
        names = sorted(test)
        every = [*ids, *names]
        sizes = [*map(train.get, ids), *map(test.get, names)]
        missing = f"named in {LABELS}, but there is no such file"
        slides, centres, patients = slide_columns(self._slides(every))
        all_labels = np.array(labels + [UNKNOWN] * len(names), np.int8)
        return Listing(
            refs=[f"train/{i}.tif" for i in ids] + [f"test/{i}.tif" for i in names],
            sizes=np.array([size or 0 for size in sizes], np.int64),
            labels=all_labels,
            splits=np.repeat(
                np.array([SPLITS.index(Split.TRAIN), SPLITS.index(Split.UNLABELLED)], np.int8),
                [len(ids), len(names)],
            ),
            slides=slides,
            centres=centres,
            patients=patients,
            bad={
                n: "a broken link" if n >= len(ids) or every[n] in train else missing
                for n, size in enumerate(sizes)
                if size is None
            },
            warnings=(*self._warnings(set(names)), *slide_warnings(slides, all_labels)),
        )

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Decode ``items`` in their order."""
        for item in items:
            yield item, decode_image(self.folder / item.ref)

    def promised_key(self, item: SourceItem) -> str | None:
        """The id, where it has the form of a SHA-1."""
        name = PurePosixPath(item.ref).stem
        return name if _SHA1.fullmatch(name) else None

    def close(self) -> None:
        """Nothing is left behind."""

    def _images(self, part: str) -> dict[str, int | None]:
        """Id to file size in bytes (None for a broken link) of every TIFF in a sub-folder, which may be absent."""
        try:
            with os.scandir(self.folder / part) as entries:
                return {e.name[:-4]: _size(e) for e in entries if e.name.endswith(".tif")}
        except FileNotFoundError:
            return {}

    def _slides(self, ids: Sequence[str]) -> list[str | None]:
        path = self.folder / SLIDES
        if not path.is_file():
            return [None] * len(ids)
        table = read_table(path, ("id", "wsi"))
        check_unique(path, table["id"])
        slide_of = dict(zip(table["id"], table["wsi"], strict=True))
        return [slide_of.get(i) or None for i in ids]

    def _warnings(self, test_ids: set[str]) -> tuple[str, ...]:
        path = self.folder / SUBMISSION
        if not path.is_file():
            return ()
        absent = len(set(read_table(path, ("id",))["id"]) - test_ids)
        return (f"{absent} ids of {SUBMISSION} have no image in test/",) if absent else ()


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except OSError:
        return None
