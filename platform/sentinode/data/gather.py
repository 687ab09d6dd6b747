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

from sentinode.data.layout import UNLABELLED, check_head, checked_layout
from sentinode.data.manifest import ArrayLayout, ShardRecord
from sentinode.data.mapping import Mapping
from sentinode.errors import IntegrityError
from sentinode.schema import PATCH_BYTES

Ids = npt.NDArray[np.int64]

_MOST_MAPS = 50_000
"""Below Linux's default limit of 65,530 maps a process."""


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
        self.ready = np.zeros(len(records), dtype=bool)
        """[shards] True where a shard can be gathered from."""
        self.capacity = _MOST_MAPS
        """Shards that can be mapped at a time."""
        by_layout: dict[tuple[int, int, int | None], int] = {}
        for shard, record in enumerate(records):
            layout = checked_layout(record)
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

    def open(self, shard: int, file: BinaryIO) -> None:
        """Map a shard from its open file, whose lease then lasts as long as the map; ``file`` may be closed.

        Raises IntegrityError where the file is not the array that the manifest describes.
        """
        record, place = self._records[shard], self._fields[self._field_of[shard]]
        check_head(record, place.layout, file)
        assert place.mapping is not None
        place.mapping.place(file, self._offset(shard), record.size_bytes)
        self.ready[shard] = True

    def release(self, shard: int) -> None:
        """End the use of a shard, and its lease."""
        place = self._fields[self._field_of[shard]]
        assert place.mapping is not None
        place.mapping.clear(self._offset(shard), self._records[shard].size_bytes)
        self.ready[shard] = False

    def gather(self, shards_B: Ids, rows_B: Ids, images_BHWC: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Copy the pixels (uint8, contiguous) and labels (int64, -1 where unlabelled) of the named rows, in
        order.

        Every shard must be ready. Raises IntegrityError for a label that is neither 0 nor 1.
        """
        assert self.ready[shards_B].all(), "a shard that is not ready"
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

    def close(self) -> None:
        """Unmap everything."""
        for place in self._fields:
            place.pixels = place.digits = None
            if place.mapping is not None:
                place.mapping.close()
        self.ready[:] = False

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

    def _offset(self, shard: int) -> int:
        place = self._fields[self._field_of[shard]]
        return int(self._first_row[shard] * place.layout.stride_bytes)


def _rows_reserved(size_bytes: int, stride_bytes: int) -> int:
    """Rows a shard takes up, such that the next one starts at a row and at a page."""
    step = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, stride_bytes)
    blocks = -(-size_bytes // (stride_bytes * step))
    return blocks * step
