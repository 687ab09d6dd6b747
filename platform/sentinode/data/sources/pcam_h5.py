"""PatchCamelyon's HDF5 files: ``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`` (or ``.h5.gz``).

Any subset of the splits may be there. ``..._meta.csv`` adds slides; ``..._mask.h5`` is not needed. The names
of a community mirror (``training_split.h5``, sub-folders ``Labels`` and ``Metadata``) are understood as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sentinode.data.sources.base import SPLITS, BadImage, Listing, Pixels, SourceItem, readable, slide_columns
from sentinode.data.sources.folder import SPLIT_NAMES
from sentinode.data.sources.h5_rows import close_rows, gunzipped, open_h5, open_rows
from sentinode.data.sources.known import slide_warnings
from sentinode.data.sources.table import read_table
from sentinode.errors import SourceError
from sentinode.schema import Split

_SPLIT = "|".join(SPLIT_NAMES)
_NAMES: Final = (
    re.compile(rf"(?:camelyonpatch_level_2_split_)?(?P<split>{_SPLIT})_(?P<part>[xy])\.h5(\.gz)?", re.I),
    re.compile(rf"(?:camelyonpatch_level_2_split_)?(?P<split>{_SPLIT})_(?P<part>meta)\.csv", re.I),
    re.compile(rf"(?P<split>{_SPLIT})_split\.h5(\.gz)?", re.I),
)
_DEPTH = 3

Files = dict[Split, dict[str, Path]]
"""For each split its files by part: x, y, meta."""


@dataclass(frozen=True)
class PcamSource:
    """A folder that holds PCam's HDF5 files, directly or up to two folders down."""

    folder: Path
    kind: str = "pcam-h5"

    @staticmethod
    def matches(folder: Path) -> bool:
        """Whether ``folder`` holds at least one of PCam's arrays."""
        return any(parts.keys() & {"x", "y"} for parts in find_files(folder).values())

    @readable()
    def listing(self) -> Listing:
        """All rows of train, valid, test, in this order.

        Raises SourceError where an array is missing, damaged, or of another shape, type or length than its
        partners.
        """
        refs: list[str] = []
        sizes, labels, splits = [], [], []
        slides: list[str | None] = []
        warnings: list[str] = []
        for split, parts in find_files(self.folder).items():
            _check_complete(split, parts)
            split_labels = _read_labels(parts["y"])
            rows = len(open_rows(parts["x"]).offsets)
            if rows != len(split_labels):
                raise SourceError(
                    f"{parts['x'].name} has {rows} patches, {parts['y'].name} has {len(split_labels)} labels",
                    "one label for each patch",
                )
            ref = parts["x"].relative_to(self.folder).as_posix()
            refs += [f"{ref}#{row}" for row in range(rows)]
            sizes.append(np.full(rows, parts["x"].stat().st_size, np.int64))
            labels.append(split_labels)
            splits.append(np.full(rows, SPLITS.index(split), np.int8))
            split_slides, warning = _read_slides(parts.get("meta"), split_labels)
            slides += split_slides
            warnings += warning
        slide_column, centres, patients = slide_columns(slides)
        all_labels = np.concatenate(labels)
        return Listing(
            refs,
            np.concatenate(sizes),
            all_labels,
            np.concatenate(splits),
            slides=slide_column,
            centres=centres,
            patients=patients,
            warnings=(*warnings, *slide_warnings(slide_column, all_labels)),
        )

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Read ``items`` file by file, each in file order."""
        by_file: dict[str, dict[int, SourceItem]] = {}
        for item in items:
            name, _, number = item.ref.rpartition("#")
            by_file.setdefault(name, {})[int(number)] = item
        for name, item_of in by_file.items():
            for row, pixels in open_rows(self.folder / name).read(item_of):
                yield item_of[row], pixels

    def promised_key(self, item: SourceItem) -> str | None:
        """PCam promises nothing."""
        return None

    def close(self) -> None:
        """Remove unpacked copies on this node."""
        for parts in find_files(self.folder).values():
            if "x" in parts:
                close_rows(parts["x"])


def find_files(folder: Path) -> Files:
    """PCam's files below ``folder`` by split (in the order of SPLITS) and part; a plain ``.h5`` goes before
    ``.h5.gz``.

    Raises SourceError where two files claim the same place.
    """
    found: Files = {}
    for path in sorted(p for depth in range(_DEPTH) for p in folder.glob("*/" * depth + "*")):
        match = next((m for pattern in _NAMES if (m := pattern.fullmatch(path.name))), None)
        if match is None or not path.is_file():
            continue
        split = SPLIT_NAMES[match["split"].lower()]
        part = match.groupdict().get("part", "x").lower()
        other = found.setdefault(split, {}).get(part)
        if other is not None and path != other.with_name(other.name + ".gz"):
            raise SourceError(
                f"{other.relative_to(folder)} and {path.relative_to(folder)} both claim to be {split} {part}",
                "one file for each",
                "move one of them away",
            )
        found[split].setdefault(part, path)
    return {split: found[split] for split in SPLITS if split in found}


def _check_complete(split: Split, parts: dict[str, Path]) -> None:
    for part, partner in (("x", "y"), ("y", "x")):
        if part not in parts:
            raise SourceError(
                f"there is {parts[partner].name if partner in parts else parts['meta'].name}, "
                f"but no {part} array for {split}",
                f"camelyonpatch_level_2_split_{split}_{part}.h5 or .h5.gz",
                "fetch the missing file, or move the others of this split away",
            )


def _read_labels(path: Path) -> npt.NDArray[np.int8]:
    """int8 [N]. Raises SourceError where ``y`` is not a column of 0 and 1."""
    with gunzipped(path) as plain, open_h5(plain) as file:
        if "y" not in file:
            raise SourceError(f"{path.name} holds {sorted(file)}", "an array named y")
        y = np.asarray(file["y"][()])
    if y.size == 0 or y.size != y.shape[0] or y.dtype.kind not in "uib":
        raise SourceError(f"y of {path.name} is {y.dtype} {list(y.shape)}", "uint8 [N, 1, 1, 1]")
    flat = y.reshape(-1)
    if not np.isin(flat, (0, 1)).all():
        raise SourceError(
            f"{path.name} has the labels {np.unique(flat)[:8].tolist()}", "0 (negative) and 1 (tumour)"
        )
    return flat.astype(np.int8)


def _read_slides(path: Path | None, labels: npt.NDArray[np.int8]) -> tuple[list[str | None], list[str]]:
    """Slide of each row, and warnings. Raises SourceError where the table has another length than the
    arrays."""
    if path is None:
        return [None] * len(labels), []
    table = read_table(path, ("wsi", "center_tumor_patch"))
    if len(table["wsi"]) != len(labels):
        raise SourceError(f"{path.name} has {len(table['wsi'])} rows", f"{len(labels)}, one for each patch")
    said = np.array([text.lower() in ("true", "1") for text in table["center_tumor_patch"]], np.int8)
    wrong = int((said != labels).sum())
    warning = [f"{wrong} rows of {path.name} contradict the labels in y, which were taken"] if wrong else []
    return [slide or None for slide in table["wsi"]], warning
