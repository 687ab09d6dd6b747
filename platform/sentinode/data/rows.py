"""Batches of ``npy`` shards read from their files by offset, for sets too large to be mapped.

Pages of a mapping count as memory of the process and cost a fault each at their first use; reading does
neither. It is slower than gathering from pages that are mapped already, but faster than mapping pages at
need and letting go of them again, to stay within a bound of memory.
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

from sentinode.data.layout import check_head, checked_layout, labels_of, unlabelled
from sentinode.data.manifest import ShardRecord
from sentinode.errors import IntegrityError
from sentinode.schema import PATCH_BYTES

Ids = npt.NDArray[np.int64]


class ShardFiles:
    """The ``npy`` shards of a split as open files. One call of the system reads the pixels of a sample."""

    def __init__(self, records: Sequence[ShardRecord], threads: int) -> None:
        self._records = records
        self._files = np.full(len(records), -1, dtype=np.int64)
        """[shards] Descriptors of open shards."""
        layouts = [checked_layout(record) for record in records]
        self._strides = np.array([layout.stride_bytes for layout in layouts], dtype=np.int64)
        self._firsts = np.array([layout.pixels_offset_bytes for layout in layouts], dtype=np.int64)
        """[shards] Where the pixels of the first sample start."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read") if threads > 1 else None
        self.ready = np.zeros(len(records), dtype=bool)
        """[shards] True where a shard can be read."""
        self.capacity = open_files_capacity(len(records))
        """Shards that can be open at a time."""

    def open(self, shard: int, file: BinaryIO) -> npt.NDArray[np.int8]:
        """Take a shard into use: it keeps its own open copy of ``file``, and with it the lease.

        Returns its labels, int8 [samples] (-1 unlabelled). Raises IntegrityError where the file is not the
        array that the manifest describes, or a label is neither 0 nor 1.
        """
        record, layout = self._records[shard], checked_layout(self._records[shard])
        check_head(record, layout, file)
        labels = unlabelled(record)
        if layout.label_offset_bytes is not None:
            starts = range(
                layout.label_offset_bytes, record.samples * layout.stride_bytes, layout.stride_bytes
            )
            digits = b"".join(os.pread(file.fileno(), 1, start) for start in starts)
            labels = labels_of(record, np.frombuffer(digits, np.uint8))
        self._files[shard] = os.dup(file.fileno())
        self.ready[shard] = True
        return labels

    def release(self, shard: int) -> None:
        """End the use of a shard, and its lease."""
        os.close(int(self._files[shard]))
        self._files[shard] = -1
        self.ready[shard] = False

    def gather(self, shards_B: Ids, rows_B: Ids, images_BHWC: torch.Tensor) -> None:
        """Read the pixels (uint8, contiguous) of the named rows, in order. Every shard must be ready.

        Raises IntegrityError where a file has become shorter.
        """
        assert self.ready[shards_B].all(), "a shard that is not ready"
        pixels = memoryview(images_BHWC.view(-1).numpy())  # type: ignore[arg-type]
        places = (pixels[start : start + PATCH_BYTES] for start in range(0, len(pixels), PATCH_BYTES))
        offsets_B = self._firsts[shards_B] + rows_B * self._strides[shards_B]
        samples = list(zip(self._files[shards_B].tolist(), places, offsets_B.tolist(), strict=True))

        def read(part: int) -> int:
            mine = samples[part :: self._threads]
            return sum(os.preadv(file, (place,), offset) for file, place, offset in mine)

        parts = range(self._threads)
        came = read(0) if self._pool is None else sum(self._pool.map(read, parts))
        if came != len(pixels):
            names = ", ".join(sorted({self._records[s].name for s in shards_B.tolist()}))
            raise IntegrityError(
                f"only {came} bytes came from {names}",
                f"{len(pixels)} bytes",
                "leave the shards in use as they are",
            )

    def close(self) -> None:
        """Close all shards and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for shard in np.flatnonzero(self.ready).tolist():
            self.release(shard)


def open_files_capacity(wanted: int) -> int:
    """How many of ``wanted`` shards may be open at a time; raises this process's soft limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + 1024
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, soft // 2)
