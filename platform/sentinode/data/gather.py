"""Batches gathered from memory-mapped ``npy`` shards: one copy, no decoding, no loop over samples.

Shards of equal stride (as a rule, all of them) are mapped side by side at multiples of it, so together they
are one array [rows, stride_bytes] and the pixels of a batch over any number of shards are a single
``torch.index_select`` of its rows. Labels are read once, when a shard is mapped: a byte from every row of a
batch would cost a miss of the cache each.

Legend of array shapes: B batch, H and W 96 pixels, C red, green, blue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from sentinode.data.layout import check_head, checked_layout, labels_of, unlabelled
from sentinode.data.manifest import ArrayLayout, ShardRecord
from sentinode.data.mapping import ALIGNMENT_BYTES, Mapping
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

    def open(self) -> None:
        stride = self.layout.stride_bytes
        self.mapping = Mapping(self.rows * stride)
        whole = self.mapping.bytes_
        self.pixels = whole.as_strided((self.rows, PATCH_BYTES), (stride, 1), self.layout.pixels_offset_bytes)

    def labels(self, record: ShardRecord, first_row: int) -> npt.NDArray[np.int8]:
        """int8 [samples] of a mapped shard."""
        assert self.mapping is not None
        stride, label = self.layout.stride_bytes, self.layout.label_offset_bytes
        if label is None:
            return unlabelled(record)
        digits = self.mapping.bytes_.as_strided((record.samples,), (stride,), first_row * stride + label)
        return labels_of(record, np.array(digits.numpy(), dtype=np.uint8))


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

    def open(self, shard: int, file: BinaryIO) -> npt.NDArray[np.int8]:
        """Map a shard from its open file, whose lease then lasts as long as the map; ``file`` may be closed.

        Returns its labels, int8 [samples] (-1 unlabelled). Raises IntegrityError where the file is not the
        array that the manifest describes, or a label is neither 0 nor 1.
        """
        record, place = self._records[shard], self._fields[self._field_of[shard]]
        check_head(record, place.layout, file)
        assert place.mapping is not None
        place.mapping.place(file, self._offset(shard), record.size_bytes)
        labels: npt.NDArray[np.int8] = place.labels(record, int(self._first_row[shard]))
        self.ready[shard] = True
        return labels

    def release(self, shard: int) -> None:
        """End the use of a shard, and its lease."""
        place = self._fields[self._field_of[shard]]
        assert place.mapping is not None
        place.mapping.clear(self._offset(shard), self._records[shard].size_bytes)
        self.ready[shard] = False

    def gather(self, shards_B: Ids, rows_B: Ids, images_BHWC: torch.Tensor) -> None:
        """Copy the pixels (uint8, contiguous) of the named rows, in order. Every shard must be ready."""
        assert self.ready[shards_B].all(), "a shard that is not ready"
        out = images_BHWC.view(len(rows_B), PATCH_BYTES)
        index = torch.from_numpy(self._first_row[shards_B] + rows_B)
        if len(self._fields) == 1:
            torch.index_select(self._pixels(0), 0, index, out=out)
            return
        fields_B = self._field_of[shards_B]
        for number in np.unique(fields_B).tolist():
            here = torch.from_numpy(np.flatnonzero(fields_B == number))
            out.index_copy_(0, here, self._pixels(number).index_select(0, index[here]))

    def close(self) -> None:
        """Unmap everything."""
        for place in self._fields:
            place.pixels = None
            if place.mapping is not None:
                place.mapping.close()
        self.ready[:] = False

    def _pixels(self, number: int) -> torch.Tensor:
        pixels = self._fields[number].pixels
        assert pixels is not None
        return pixels

    def _offset(self, shard: int) -> int:
        place = self._fields[self._field_of[shard]]
        return int(self._first_row[shard] * place.layout.stride_bytes)


def _rows_reserved(size_bytes: int, stride_bytes: int) -> int:
    """Rows a shard takes up, such that the next one starts at a row and where a file may be mapped well."""
    step = ALIGNMENT_BYTES // math.gcd(ALIGNMENT_BYTES, stride_bytes)
    blocks = -(-size_bytes // (stride_bytes * step))
    return blocks * step
