"""Batches of ``npy`` shards read from their files by offset, for sets too large to be mapped.

Pages of a mapping count as memory of the process and cost a fault each at their first use; reading does
neither. It is slower than gathering from pages that are mapped already.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from sentinode.data.layout import UNLABELLED, check_head, checked_layout
from sentinode.data.manifest import ShardRecord
from sentinode.errors import IntegrityError
from sentinode.schema import PATCH_BYTES

Ids = npt.NDArray[np.int64]

_ZERO = ord("0")


class ShardFiles:
    """The ``npy`` shards of a split as open files. One call reads a sample's pixels and its label digit."""

    def __init__(self, records: Sequence[ShardRecord], threads: int) -> None:
        self._records = records
        self._open: dict[int, tuple[int, int, int, int]] = {}
        """Descriptor, offset of the first pixels, stride, bytes from the end of the pixels to the label."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read") if threads > 1 else None
        self.ready = np.zeros(len(records), dtype=bool)
        """[shards] True where a shard can be read."""
        self.capacity = open_files_capacity(len(records))
        """Shards that can be open at a time."""

    def open(self, shard: int, file: BinaryIO) -> None:
        """Take a shard into use: it keeps its own open copy of ``file``, and with it the lease.

        Raises IntegrityError where the file is not the array that the manifest describes.
        """
        layout = checked_layout(self._records[shard])
        check_head(self._records[shard], layout, file)
        first, label = layout.pixels_offset_bytes, layout.label_offset_bytes
        rest_bytes = 0 if label is None else label + 1 - first - PATCH_BYTES
        self._open[shard] = (os.dup(file.fileno()), first, layout.stride_bytes, rest_bytes)
        self.ready[shard] = True

    def release(self, shard: int) -> None:
        """End the use of a shard, and its lease."""
        os.close(self._open.pop(shard)[0])
        self.ready[shard] = False

    def gather(self, shards_B: Ids, rows_B: Ids, images_BHWC: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Read the pixels (uint8, contiguous) and labels (int64, -1 where unlabelled) of the named rows, in
        order.

        Every shard must be ready. Raises IntegrityError for a label that is neither 0 nor 1.
        """
        pixels = memoryview(images_BHWC.view(-1).numpy())  # type: ignore[arg-type]
        labels: list[int] = [UNLABELLED] * len(rows_B)
        samples = list(enumerate(zip(shards_B.tolist(), rows_B.tolist(), strict=True)))

        def read(first: int) -> None:
            for i, (shard, row) in samples[first :: self._threads]:
                labels[i] = self._read(shard, row, pixels[i * PATCH_BYTES : (i + 1) * PATCH_BYTES])

        if self._pool is None:
            read(0)
        else:
            list(self._pool.map(read, range(self._threads)))
        labels_B.copy_(torch.tensor(labels))

    def close(self) -> None:
        """Close all shards and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for shard in list(self._open):
            self.release(shard)

    def _read(self, shard: int, row: int, out: memoryview) -> int:
        """Fill ``out`` with a sample's pixels; returns its label, the last byte that the same call reads."""
        descriptor, first, stride, rest_bytes = self._open[shard]
        rest = bytearray(rest_bytes)
        count = os.preadv(descriptor, (out, rest), first + row * stride)
        digit = rest[-1] - _ZERO if rest_bytes else UNLABELLED
        if count != PATCH_BYTES + rest_bytes or (rest_bytes and digit not in (0, 1)):
            raise IntegrityError(
                f"sample {row} of shard {self._records[shard].name} has {count} bytes and the label {digit}",
                f"{PATCH_BYTES + rest_bytes} bytes and 0 or 1",
                "ingest the data set again",
            )
        return digit


def open_files_capacity(wanted: int) -> int:
    """How many of ``wanted`` shards may be open at a time; raises this process's soft limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + 1024
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, soft // 2)
