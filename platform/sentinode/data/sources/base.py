"""What every source offers: a cheap listing of its patches, and a reader that decodes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from sentinode.errors import SourceError
from sentinode.schema import Split

Pixels = npt.NDArray[np.uint8]
"""One patch: uint8 RGB [96, 96, 3], C order."""

SPLITS: Final = (Split.TRAIN, Split.VALID, Split.TEST, Split.UNLABELLED)
"""A split's code in listings is its place here; a later one is evaluated later."""

UNKNOWN: Final = -1
"""Code of a missing label, split, slide, centre or patient."""

_CAMELYON17_SLIDE = re.compile(r"(?:^|[^a-z])(patient_(\d{3}))_node_\d")
_CAMELYON17_PATIENTS_PER_CENTRE = 20


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One patch of a source, not yet decoded. ``ref`` says where it lies, relative to the source."""

    index: int
    ref: str
    label: int | None = None
    slide: str | None = None
    centre: str | None = None
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class BadImage:
    """Why a patch cannot be taken; ``reason`` is a plain sentence part."""

    reason: str


@dataclass(frozen=True)
class Column:
    """A categorical column over the N patches of a listing: ``names[codes[i]]``, unknown where the code is
    -1."""

    names: tuple[str, ...]
    codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: Iterable[str | None]) -> Column:
        """Encode values; codes follow the sorted names."""
        listed = list(values)
        names = tuple(sorted({v for v in listed if v is not None}))
        code = {name: i for i, name in enumerate(names)}
        return cls(names, np.array([UNKNOWN if v is None else code[v] for v in listed], np.int32))

    @classmethod
    def unknown(cls, count: int) -> Column:
        """A column of which nothing is known."""
        return cls((), np.full(count, UNKNOWN, np.int32))

    def __getitem__(self, index: int) -> str | None:
        code = int(self.codes[index])
        return None if code == UNKNOWN else self.names[code]


@dataclass(frozen=True)
class Listing:
    """All N patches of a source as columns, without any decoding.

    ``labels`` int8 (0, 1, or -1 unlabelled), ``splits`` int8 (place in SPLITS, or -1 where the source leaves
    it open), ``sizes`` int64 (bytes of the file that holds the patch). ``bad`` are patches known to be
    unusable before any is opened (a file that a table names and that is not there).
    """

    refs: Sequence[str]
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    splits: npt.NDArray[np.int8]
    slides: Column
    centres: Column
    patients: Column
    bad: dict[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.refs)

    def items(self, indices: Iterable[int], labels: npt.NDArray[np.int8] | None = None) -> list[SourceItem]:
        """The patches at ``indices``, in that order; ``labels`` int8 [N] where more is known than the listing
        says."""
        label_of = self.labels if labels is None else labels
        return [
            SourceItem(
                index=i,
                ref=self.refs[i],
                label=None if label_of[i] == UNKNOWN else int(label_of[i]),
                slide=self.slides[i],
                centre=self.centres[i],
                patient=self.patients[i],
            )
            for i in indices
        ]

    def digest(self) -> str:
        """SHA-256 over every column (names, sizes, labels, splits, slides) and all that was noted: equal listings,
        equal digests."""
        total = hashlib.sha256()
        for ref in self.refs:
            total.update(ref.encode(errors="surrogateescape") + b"\0")
        for array in (self.sizes, self.labels, self.splits):
            total.update(array.astype("<i8").tobytes())
        for column in (self.slides, self.centres, self.patients):
            total.update("\0".join(column.names).encode() + b"\1" + column.codes.astype("<i4").tobytes())
        total.update(repr(sorted(self.bad.items())).encode())
        if self.warnings:  # they stand in the manifest, and change with the lists of known defects
            total.update(repr(self.warnings).encode())
        return total.hexdigest()


class Source(Protocol):
    """A data set in a known layout. Small and picklable: it is sent to every task, the listing is not."""

    @property
    def kind(self) -> str:
        """Name of the layout, as in manifests: kaggle, pcam-h5, wilds, folder or synthetic."""
        ...

    def listing(self) -> Listing:
        """Walk the source. Raises SourceError where it breaks its layout's promises."""
        ...

    def read(self, items: Sequence[SourceItem]) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
        """Decode ``items``, each exactly once, in the order that suits the source."""
        ...

    def promised_key(self, item: SourceItem) -> str | None:
        """The SHA-1 that the source itself claims for the patch's pixels, or None."""
        ...

    def close(self) -> None:
        """Remove what reading has left on this node's local disk."""
        ...


@contextmanager
def readable() -> Iterator[None]:
    """Turn a file or folder that may not be read into a SourceError."""
    try:
        yield
    except PermissionError as error:
        raise SourceError(
            f"{error.filename} cannot be read ({error.strerror})",
            "a source that may be read",
            "change its permissions",
        ) from error


def slide_columns(slides: Sequence[str | None]) -> tuple[Column, Column, Column]:
    """Slide, centre and patient columns from slide names.

    Camelyon17 names (``patient_034_node_3``) tell the patient, and the patient the centre (20 patients each).
    """
    centres: list[str | None] = []
    patients: list[str | None] = []
    for slide in slides:
        match = _CAMELYON17_SLIDE.search(slide) if slide else None
        patients.append(match[1] if match else None)
        centres.append(str(int(match[2]) // _CAMELYON17_PATIENTS_PER_CENTRE) if match else None)
    return Column.of(slides), Column.of(centres), Column.of(patients)
