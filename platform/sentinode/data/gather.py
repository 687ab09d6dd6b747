"""Batches gathered from memory-mapped ``npy`` shards: one copy, no decoding, no loop over samples.

Shards of equal stride (as a rule, all of them) are mapped side by side at multiples of it, so together they
are one array [rows, stride_bytes] and a batch over any number of shards is a single ``torch.index_select``
of its rows.

Legend of array shapes: B batch, H and W 96 pixels, C red, green, blue.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from sentinode.data.manifest import ArrayLayout, ShardRecord
from sentinode.data.mapping import Mapping
from sentinode.errors import IntegrityError, ManifestError
from sentinode.schema import PATCH_BYTES

Ids = npt.NDArray[np.int64]

UNLABELLED = -1
_MOST_MAPS = 50_000
"""Below Linux's default limit of 65,530 maps a process."""
_RESIDENT_BYTES = 256 << 20
"""Mapped pages beyond this are given back to the system, so that a process stays small however large its
set.
"""
_TOUCHED_BYTES = 64 << 10
"""What the kernel maps when one sample is first read (fault-around)."""


@dataclass
class _Field:
    """Shards of one layout as one array."""

    layout: ArrayLayout
    rows: int = 0
    shards: list[int] = field(default_factory=list)
    mapping: Mapping | None = None
    pixels: torch.Tensor | None = None
    """uint8 [rows, 27648]"""
    digits: torch.Tensor | None = None
    """uint8 [rows]"""

    def open(self) -> None:
        stride = self.layout.stride_bytes
        self.mapping = Mapping(self.rows * stride)
        whole = self.mapping.bytes_
        self.pixels = whole.as_strided((self.rows, PATCH_BYTES), (stride, 1), self.layout.pixels_offset_bytes)
        if self.layout.label_offset_bytes is not None:
            self.digits = whole.as_strided((self.rows,), (stride,), self.layout.label_offset_bytes)


class ShardArena:
    """The ``npy`` shards of a split as one array, each mapped when it is needed. Not safe between threads."""

    def __init__(self, records: Sequence[ShardRecord]) -> None:
        self._records = records
        self._fields: list[_Field] = []
        self._field_of = np.zeros(len(records), dtype=np.int64)
        self._first_row = np.zeros(len(records), dtype=np.int64)
        self.mapped = np.zeros(len(records), dtype=bool)
        """[shards] True where a shard can be gathered from."""
        self.capacity = _MOST_MAPS
        """Shards that can be mapped at a time."""
        self._sizes = np.array([r.size_bytes for r in records], dtype=np.int64)
        self._resident_bytes = 0
        by_layout: dict[tuple[int, int, int | None], int] = {}
        for shard, record in enumerate(records):
            layout = _checked_layout(record)
            key = (layout.stride_bytes, layout.pixels_offset_bytes, layout.label_offset_bytes)
            number = by_layout.setdefault(key, len(self._fields))
            if number == len(self._fields):
                self._fields.append(_Field(layout))
            place = self._fields[number]
            place.shards.append(shard)
            self._field_of[shard], self._first_row[shard] = number, place.rows
            place.rows += _rows_reserved(record.size_bytes, layout.stride_bytes)
        for place in self._fields:
            place.open()

    def map(self, shard: int, file: BinaryIO) -> None:
        """Map a shard from its open file, whose lease then lasts as long as the map; ``file`` may be closed.

        Raises IntegrityError where the file is not the array that the manifest describes.
        """
        record, place = self._records[shard], self._fields[self._field_of[shard]]
        _check_head(record, place.layout, file)
        assert place.mapping is not None
        place.mapping.place(file, self._offset(shard), record.size_bytes)
        self.mapped[shard] = True

    def unmap(self, shard: int) -> None:
        """End the use of a shard, and its lease."""
        place = self._fields[self._field_of[shard]]
        assert place.mapping is not None
        place.mapping.clear(self._offset(shard), self._records[shard].size_bytes)
        self.mapped[shard] = False

    def gather(self, shards_B: Ids, rows_B: Ids, images_BHWC: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Copy the pixels (uint8, contiguous) and labels (int64, -1 where unlabelled) of the named rows, in
        order.

        Every shard must be mapped. Raises IntegrityError for a label that is neither 0 nor 1.
        """
        assert self.mapped[shards_B].all(), "a shard that is not mapped"
        out = images_BHWC.view(len(rows_B), PATCH_BYTES)
        index = torch.from_numpy(self._first_row[shards_B] + rows_B)
        if len(self._fields) == 1:
            good = self._copy(self._fields[0], index, out, labels_B)
        else:
            good = self._copy_fields(torch.from_numpy(self._field_of[shards_B]), index, out, labels_B)
        if not good:
            names = ", ".join(sorted({self._records[s].name for s in shards_B.tolist()}))
            raise IntegrityError(
                f"a label in one of {names} is not a digit", "0 or 1", "ingest the set again"
            )
        self._bound_memory(len(rows_B))

    def close(self) -> None:
        """Unmap everything."""
        for place in self._fields:
            place.pixels = place.digits = None
            if place.mapping is not None:
                place.mapping.close()
        self.mapped[:] = False

    def _copy(self, place: _Field, index: torch.Tensor, out: torch.Tensor, labels_B: torch.Tensor) -> bool:
        """Copy rows of one field; False where a label is neither 0 nor 1."""
        assert place.pixels is not None
        torch.index_select(place.pixels, 0, index, out=out)
        if place.digits is None:
            labels_B.fill_(UNLABELLED)
            return True
        digits = torch.index_select(place.digits, 0, index)
        labels_B.copy_(digits).sub_(ord("0"))
        return int(digits.min()) >= ord("0") and int(digits.max()) <= ord("1")

    def _copy_fields(
        self, fields_B: torch.Tensor, index: torch.Tensor, out: torch.Tensor, labels_B: torch.Tensor
    ) -> bool:
        good = True
        for number in np.unique(fields_B.numpy()).tolist():
            here = torch.nonzero(fields_B == number).squeeze(1)
            part = torch.empty((len(here), PATCH_BYTES), dtype=torch.uint8)
            part_labels = torch.empty(len(here), dtype=torch.int64)
            good &= self._copy(self._fields[number], index[here], part, part_labels)
            out.index_copy_(0, here, part)
            labels_B.index_copy_(0, here, part_labels)
        return good

    def _bound_memory(self, samples: int) -> None:
        self._resident_bytes += samples * _TOUCHED_BYTES
        if self._resident_bytes > _RESIDENT_BYTES:
            self._resident_bytes = 0
            if self._sizes[self.mapped].sum() > _RESIDENT_BYTES:
                for place in self._fields:
                    assert place.mapping is not None
                    place.mapping.forget_pages()

    def _offset(self, shard: int) -> int:
        stride = self._fields[self._field_of[shard]].layout.stride_bytes
        return int(self._first_row[shard]) * stride


def _rows_reserved(size_bytes: int, stride_bytes: int) -> int:
    """Rows a shard takes up, such that the next one starts at a row and at a page."""
    step = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, stride_bytes)
    return -(-size_bytes // (stride_bytes * step)) * step


def _checked_layout(record: ShardRecord) -> ArrayLayout:
    layout = record.layout
    if layout is None:
        raise ManifestError(
            f"shard {record.name} is {record.encoding.value} without a layout", "an npy shard with one"
        )
    ends = [layout.pixels_offset_bytes + PATCH_BYTES, (layout.label_offset_bytes or 0) + 1]
    starts = [layout.pixels_offset_bytes, layout.label_offset_bytes or 0]
    if (
        min(starts) < 0
        or max(ends) > layout.stride_bytes
        or record.samples * layout.stride_bytes > record.size_bytes
    ):
        raise ManifestError(
            f"the layout of shard {record.name} does not fit its {record.size_bytes} bytes",
            f"{record.samples} samples with all their parts inside",
            "restore the manifest or ingest the set again",
        )
    return layout


def _check_head(record: ShardRecord, layout: ArrayLayout, file: BinaryIO) -> None:
    """The size, and that a ustar member with a numpy array starts where the first pixels should."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(layout.pixels_offset_bytes)
    if size != record.size_bytes or head[257:262] != b"ustar" or head[512:518] != b"\x93NUMPY":
        raise IntegrityError(
            f"shard {record.name} has {size} bytes and starts with {head[512:518]!r}",
            f"{record.size_bytes} bytes of tar, npy first",
            "ingest the data set again",
        )
