"""An object of a store as a file that can be sought: only the blocks that are read are fetched, and few are kept."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sentinode.storage import Store

BLOCK_BYTES: Final = 64 << 10
"""A compressed tile has 10 to 60 KiB: smaller blocks mean more requests, larger ones more bytes that nobody reads."""
KEPT_BYTES: Final = 64 << 20
"""Memory of the blocks of one slide."""
REQUEST_BLOCKS: Final = 128
"""Most blocks that one request brings (8 MiB)."""
THREADS: Final = 8
"""Requests at the same time."""


class Blocks:
    """The blocks of one object, fetched when asked for and dropped when not used for longest. Thread-safe."""

    def __init__(self, store: Store, key: str, size_bytes: int, kept_bytes: int = KEPT_BYTES) -> None:
        self.size_bytes = size_bytes
        self.fetched_bytes = 0
        self.requests = 0
        self._store = store
        self._key = key
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._room = kept_bytes // BLOCK_BYTES
        self._lock = threading.Lock()

    def read(self, start: int, length: int) -> bytes:
        """Up to ``length`` bytes from offset ``start``; fewer at the end of the object. Raises StoreError."""
        end = min(start + length, self.size_bytes)
        if end <= start:
            return b""
        numbers = range(start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1)
        found = self._find(numbers)
        for run in _runs(n for n in numbers if n not in found):
            found |= self._fetch(run)
        whole = b"".join(found[n] for n in numbers)
        return whole[start - numbers.start * BLOCK_BYTES : end - numbers.start * BLOCK_BYTES]

    def prefetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Fetch what is missing of the spans (offset, length) by several requests at once. Raises StoreError.

        What does not fit in the memory for blocks is left to ``read``.
        """
        numbers = {
            n
            for start, length in spans
            for n in range(
                start // BLOCK_BYTES, (min(start + length, self.size_bytes) - 1) // BLOCK_BYTES + 1
            )
        }
        ordered = sorted(numbers)[: self._room]
        found = self._find(ordered)
        runs = list(_runs(n for n in ordered if n not in found))
        if len(runs) == 1:
            self._fetch(runs[0])
        elif runs:
            with ThreadPoolExecutor(min(THREADS, len(runs)), thread_name_prefix="slide-blocks") as pool:
                for _ in pool.map(self._fetch, runs):
                    pass

    def _find(self, numbers: Iterable[int]) -> dict[int, bytes]:
        with self._lock:
            found = {n: self._kept[n] for n in numbers if n in self._kept}
            for n in found:
                self._kept.move_to_end(n)
        return found

    def _fetch(self, run: range) -> dict[int, bytes]:
        start = run.start * BLOCK_BYTES
        length = min(run.stop * BLOCK_BYTES, self.size_bytes) - start
        data = self._store.get(self._key, start=start, length=length)
        blocks = {n: data[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES] for i, n in enumerate(run)}
        with self._lock:
            self.fetched_bytes += length
            self.requests += 1
            self._kept |= blocks
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return blocks


class RangedFile(io.RawIOBase):
    """A binary file over ``blocks``, for libraries that read and seek. One thread at a time."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self._blocks = blocks
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blocks.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = self._blocks.size_bytes - self._at
        data = self._blocks.read(self._at, left if size is None or size < 0 else size)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(memoryview(buffer).cast("B")))
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)


def _runs(numbers: Iterable[int]) -> Iterable[range]:
    """Consecutive numbers together, at most REQUEST_BLOCKS."""
    run = range(0)
    for n in numbers:
        if n == run.stop and 0 < len(run) < REQUEST_BLOCKS:
            run = range(run.start, n + 1)
            continue
        if run:
            yield run
        run = range(n, n + 1)
    if run:
        yield run
