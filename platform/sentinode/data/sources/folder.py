"""Class-per-folder images: ``<class>/*`` or ``<split>/<class>/*`` (JPEG, PNG, TIFF, WebP, BMP)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sentinode.data.sources.base import (
    SPLITS,
    UNKNOWN,
    BadImage,
    Column,
    Listing,
    Pixels,
    SourceItem,
    readable,
)
from sentinode.data.sources.images import SUFFIXES, decode_image
from sentinode.errors import SourceError
from sentinode.schema import Split
from sentinode.storage.files import walk

SPLIT_NAMES: Final = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "valid": Split.VALID,
    "val": Split.VALID,
    "validation": Split.VALID,
    "test": Split.TEST,
    "testing": Split.TEST,
}
NEGATIVE_NAMES: Final = frozenset(
    {
        "0",
        "negative",
        "neg",
        "normal",
        "benign",
        "healthy",
        "non_tumor",
        "non_tumour",
        "no_tumor",
        "no_tumour",
    }
)
POSITIVE_NAMES: Final = frozenset(
    {
        "1",
        "positive",
        "pos",
        "tumor",
        "tumour",
        "malignant",
        "cancer",
        "metastasis",
        "metastases",
        "metastatic",
    }
)
_COMPANIONS: Final = frozenset({".csv", ".txt", ".md", ".json", ".ini", ".db", ".yaml", ".yml"})
"""Suffixes of files that usually lie beside images; any other strange file is listed as a bad image."""
_SHOWN = 8


@dataclass(frozen=True)
class FolderSource:
    """A folder of classes, or of splits of classes. ``positive_class`` names the folder of tumour patches,
    all others being negative; without it the usual names (0 and 1, normal and tumor, ...) are recognised."""

    folder: Path
    positive_class: str | None = None
    kind: str = "folder"

    @staticmethod
    def matches(folder: Path) -> bool:
        """Whether ``folder`` looks like this layout: sub-folders, directly or within splits, that hold
        images."""
        groups = [g for d in _folders(folder) for g in (_folders(d) if _split_of(d) else [d])]
        return any(_holds_image(group, lambda _: None) for group in groups)

    @readable()
    def listing(self) -> Listing:
        """All images, by split, class and name.

        Raises SourceError where classes cannot be told apart, or images lie outside of any class.
        """
        refs: list[str] = []
        sizes: list[int] = []
        labels: list[int] = []
        splits: list[int] = []
        bad: dict[int, str] = {}
        for split, folder, label in self._classes():
            for path, size in _files(folder):
                ref = _ref(path, self.folder)
                if path.suffix.lower() not in SUFFIXES:
                    bad[len(refs)] = f"a {path.suffix or 'suffixless'} file among images"
                elif not (self.folder / ref).exists():
                    bad[len(refs)] = "a broken link, or its name is not UTF-8"
                refs.append(ref)
                sizes.append(size)
                labels.append(label)
                splits.append(UNKNOWN if split is None else SPLITS.index(split))
        unknown = Column.unknown(len(refs))
        return Listing(
            refs,
            np.array(sizes, np.int64),
            np.array(labels, np.int8),
            np.array(splits, np.int8),
            slides=unknown,
            centres=unknown,
            patients=unknown,
            bad=bad,
        )

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Decode ``items`` in their order."""
        for item in items:
            yield item, decode_image(self.folder / item.ref)

    def promised_key(self, item: SourceItem) -> str | None:
        """Folders promise nothing."""
        return None

    def close(self) -> None:
        """Nothing is left behind."""

    def _classes(self) -> list[tuple[Split | None, Path, int]]:
        """(split, folder, label) of every class folder."""
        top = _folders(self.folder)
        parts = [(split, d) for d in top if (split := _split_of(d))]
        rest = [d for d in top if not _split_of(d) and _holds_image(d)]
        if parts and rest:
            raise SourceError(
                f"beside splits there is {_names(rest)}",
                "either <class>/* or <split>/<class>/*",
                "move it elsewhere",
            )
        for folder in [self.folder, *(d for _, d in parts)]:
            stray = [
                e.name for e in os.scandir(folder) if e.is_file() and Path(e.name).suffix.lower() in SUFFIXES
            ]
            if stray:
                raise SourceError(
                    f"{len(stray)} images lie outside of any class, "
                    f"such as {_ref(folder / min(stray), self.folder)}",
                    "each image in the folder of its class",
                    "move them into class folders, or away",
                )
        found: list[tuple[Split | None, Path]] = [(split, c) for split, d in parts for c in _folders(d)]
        found = found or [(None, d) for d in rest]
        label_of = self._labels({c.name for _, c in found})
        return [(split, c, label_of[c.name]) for split, c in found]

    def _labels(self, names: set[str]) -> dict[str, int]:
        listed = ", ".join(sorted(names)[:_SHOWN]) or "no class folder"
        if self.positive_class is not None:
            if self.positive_class not in names or len(names) < 2:
                raise SourceError(
                    f"the classes are {listed}",
                    f"{self.positive_class!r} (positive_class) and at least one other",
                )
            return {name: int(name == self.positive_class) for name in names}
        negative = {n for n in names if _plain(n) in NEGATIVE_NAMES}
        positive = {n for n in names if _plain(n) in POSITIVE_NAMES}
        if negative | positive != names or not negative or not positive:
            raise SourceError(
                f"the classes are {listed}",
                "one folder of negatives and one of tumour patches, such as 0 and 1 or normal and tumor",
                "name the folder of tumour patches with --positive-class",
            )
        return {name: int(name in positive) for name in names}


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _split_of(folder: Path) -> Split | None:
    return SPLIT_NAMES.get(_plain(folder.name))


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _files(folder: Path) -> list[tuple[Path, int]]:
    """All files below ``folder`` by path with their sizes in bytes, but hidden ones and usual companions.

    Raises SourceError for a folder that cannot be read: what it holds would be missing from its class.
    """
    found = []
    for root, folders, names in walk(folder, _refuse, linked=True):
        folders[:] = [d for d in folders if not d.startswith(".")]
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and path.suffix.lower() not in _COMPANIONS:
                found.append((path, path.stat().st_size if path.exists() else 0))
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise SourceError(
        f"{error.filename} cannot be read ({error.strerror})", "a folder that may be read"
    ) from error


def _holds_image(folder: Path, onerror: Callable[[OSError], None] = _refuse) -> bool:
    walked = walk(folder, onerror, linked=True)
    return any(Path(n).suffix.lower() in SUFFIXES for _, _, names in walked for n in names)


def _names(folders: Iterable[Path]) -> str:
    return ", ".join(d.name for d in list(folders)[:_SHOWN])


def _ref(path: Path, root: Path) -> str:
    """Relative to the source, and always text: bytes that are not UTF-8 are escaped."""
    return (
        path.relative_to(root).as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")
    )
