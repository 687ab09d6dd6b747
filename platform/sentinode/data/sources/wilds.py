"""WILDS camelyon17_v1.0: ``metadata.csv`` and ``patches/patient_{p}_node_{n}/patch_..._x_{x}_y_{y}.png``.

Splits are those of WILDS's official scheme (Koh et al., "WILDS: A Benchmark of in-the-Wild Distribution Shifts",
2021): a hospital the model never saw for valid, another for test. The label rule is PCam's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sentinode.data.sources.base import (
    SPLITS,
    BadImage,
    Column,
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

TABLE: Final = "metadata.csv"
PATCHES: Final = "patches"
SPLIT_OF_CENTRE: Final = {
    "0": Split.TRAIN,
    "1": Split.VALID,
    "2": Split.TEST,
    "3": Split.TRAIN,
    "4": Split.TRAIN,
}
"""The official scheme: centre 1 is its ``val``, centre 2 its ``test``, both out of distribution."""

_FORMS: Final = {
    "patient": (re.compile(r"[0-9]{3}"), "three digits, such as 004"),
    "node": (re.compile(r"[0-9]"), "one digit"),
    "x_coord": (re.compile(r"[0-9]+"), "a whole number"),
    "y_coord": (re.compile(r"[0-9]+"), "a whole number"),
    "slide": (re.compile(r"[0-9]+"), "a whole number"),
    "center": (re.compile("[0-4]"), "0 to 4"),
    "split": (re.compile("[01]"), "0 or 1 (within the hospital: train, or id_val)"),
}
_SHOWN = 5

Table = dict[str, list[str]]


@dataclass(frozen=True)
class WildsSource:
    """A folder in the layout of WILDS camelyon17_v1.0 (455,954 patches of 50 slides)."""

    folder: Path
    kind: str = "wilds"

    @staticmethod
    def matches(folder: Path) -> bool:
        """Whether ``folder`` looks like this layout."""
        return (folder / TABLE).is_file() and (folder / PATCHES).is_dir()

    @readable()
    def listing(self) -> Listing:
        """Patches in the order of the table.

        Raises SourceError for a broken or contradictory table, and for patches that it does not name. A named
        patch that is not there is a bad image of the listing.
        """
        path = self.folder / TABLE
        table = read_table(path, (*_FORMS, "tumor"))
        labels = np.array(parse_labels(path, table["tumor"]), np.int8)
        for column, (form, expected) in _FORMS.items():
            _check_form(column, table[column], form, expected)
        names = [f"patient_{p}_node_{n}" for p, n in zip(table["patient"], table["node"], strict=True)]
        refs = [
            f"{PATCHES}/{name}/patch_{name}_x_{x}_y_{y}.png"
            for name, x, y in zip(names, table["x_coord"], table["y_coord"], strict=True)
        ]
        check_unique(path, refs)
        slides, centres, patients = slide_columns(names)
        _check_slide_ids(names, table["slide"])
        _check_centres(names, centres, table["center"])
        size_of = self._files()
        _check_strangers(size_of.keys() - set(refs))
        return Listing(
            refs,
            sizes=np.array([size_of.get(ref, 0) for ref in refs], np.int64),
            labels=labels,
            splits=np.array([SPLITS.index(SPLIT_OF_CENTRE[c]) for c in table["center"]], np.int8),
            slides=slides,
            centres=centres,
            patients=patients,
            bad={
                i: f"named in {TABLE}, but there is no such file"
                for i, ref in enumerate(refs)
                if ref not in size_of
            },
            warnings=(*_id_val_warning(table), *slide_warnings(slides, labels)),
        )

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Decode ``items`` in their order."""
        for item in items:
            yield item, decode_image(self.folder / item.ref)

    def promised_key(self, item: SourceItem) -> str | None:
        """WILDS promises nothing."""
        return None

    def close(self) -> None:
        """Nothing is left behind."""

    def _files(self) -> dict[str, int]:
        """Ref to size in bytes of every PNG in the slides' folders."""
        sizes: dict[str, int] = {}
        with os.scandir(self.folder / PATCHES) as folders:
            names = [f.name for f in folders if f.is_dir() and not f.name.startswith(".")]
        for name in names:
            with os.scandir(self.folder / PATCHES / name) as entries:
                for e in entries:
                    if e.name.endswith(".png") and not e.name.startswith(".") and e.is_file():
                        sizes[f"{PATCHES}/{name}/{e.name}"] = e.stat().st_size
        return sizes


def _check_form(column: str, texts: Sequence[str], form: re.Pattern[str], expected: str) -> None:
    wrong = [f"line {i + 2}: {text!r}" for i, text in enumerate(texts) if not form.fullmatch(text)]
    if wrong:
        raise SourceError(
            f"{len(wrong)} values of {column} in {TABLE} are of another form ({', '.join(wrong[:_SHOWN])})",
            expected,
            "restore the file from the data set",
        )


def _check_slide_ids(names: Sequence[str], ids: Sequence[str]) -> None:
    """WILDS numbers its slides 0 to 49; each number is one patient and node."""
    pairs = set(zip(names, ids, strict=True))
    if not len(pairs) == len({name for name, _ in pairs}) == len({number for _, number in pairs}):
        raise SourceError(
            f"the slide numbers of {TABLE} do not follow patient and node",
            "one number for each patient and node",
            "restore the file from the data set",
        )


def _check_centres(names: Sequence[str], centres: Column, said: Sequence[str]) -> None:
    """A patient in the wrong centre would leak a training hospital into valid or test."""
    wrong = sorted({f"{names[i]}: {c}" for i, c in enumerate(said) if c != centres[i]})
    if wrong:
        raise SourceError(
            f"{TABLE} puts {len(wrong)} slides into a centre that is not their patient's "
            f"({', '.join(wrong[:_SHOWN])})",
            "patients 000 to 019 in centre 0, 020 to 039 in centre 1, and so on",
            "restore the file from the data set",
        )


def _check_strangers(strangers: set[str]) -> None:
    if strangers:
        raise SourceError(
            f"{PATCHES}/ holds {len(strangers)} images that {TABLE} does not name, "
            f"such as {', '.join(sorted(strangers)[:_SHOWN])}",
            "a row for each image",
            f"restore {TABLE}, or move the images away",
        )


def _id_val_warning(table: Table) -> tuple[str, ...]:
    count = sum(
        split == "1" and SPLIT_OF_CENTRE[centre] is Split.TRAIN
        for split, centre in zip(table["split"], table["center"], strict=True)
    )
    what = "patches are WILDS's id_val, a random sample of the training slides: not kept apart from train"
    return (f"{count} {what}",) if count else ()
