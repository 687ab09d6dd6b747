"""The shards of one split as one sequence of samples, read by id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from sentinode.data.cache import ShardCache
from sentinode.data.decode import TarReader
from sentinode.data.gather import ShardArena
from sentinode.data.manifest import ShardRecord
from sentinode.data.rows import ShardFiles
from sentinode.schema import Encoding

Ids = npt.NDArray[np.int64]

Reader = ShardArena | ShardFiles | TarReader

_LEASED_SHARE = 0.75
"""Of the cache's budget, what one process keeps from being evicted."""


class ShardSet:
    """Samples 0..N-1 in manifest order. Shards are fetched and mapped at their first use. Not safe between
    threads.

    ``npy`` shards of up to ``mapped_bytes`` together are memory-mapped, larger sets read by offset, encoded
    ones decoded, by ``threads``. Where the set is larger than the cache's budget, shards least recently
    used are let go.
    """

    def __init__(
        self, records: Sequence[ShardRecord], cache: ShardCache, *, threads: int, mapped_bytes: int
    ) -> None:
        self.records = records
        self.cache = cache
        self.shard_samples: Ids = np.array([r.samples for r in records], dtype=np.int64)
        self._ends = np.cumsum(self.shard_samples)
        self._starts = self._ends - self.shard_samples
        self._sizes = np.array([r.size_bytes for r in records], dtype=np.int64)
        self._labels = np.zeros(int(self.shard_samples.sum()), dtype=np.int8)
        """[samples] Known where the shard has been opened."""
        self._reader = self._choose_reader(threads, mapped_bytes)
        self._last_use = np.zeros(len(records), dtype=np.int64)
        self._uses = 0
        fits = cache.in_place or int(self._sizes.sum()) <= _LEASED_SHARE * cache.budget_bytes
        self._leased_limit_bytes = None if fits else int(_LEASED_SHARE * cache.budget_bytes)

    @property
    def fits(self) -> bool:
        """Whether the node can hold all shards."""
        return self._leased_limit_bytes is None

    @property
    def complete(self) -> bool:
        """Whether all shards are open, so that nothing is left to fetch."""
        return bool(self._reader.ready.all())

    def locate(self, ids: Ids) -> Ids:
        """The shard number of each sample id."""
        return np.searchsorted(self._ends, ids, side="right")

    def read(self, ids_B: Ids, images_BHWC: torch.Tensor, labels_B: torch.Tensor) -> int:
        """Read samples by id into uint8 [B, 96, 96, 3] and int64 [B] (-1 unlabelled); returns how many
        shards were new.

        Raises StoreError or one of its kinds where a shard cannot be had or is damaged.
        """
        shards_B = self.locate(ids_B)
        self._uses += 1
        self._last_use[shards_B] = self._uses
        ready_B = self._reader.ready[shards_B]
        opened = 0
        if not ready_B.all():
            if np.unique(shards_B).size > self._reader.capacity:
                half = len(ids_B) // 2
                first = self.read(ids_B[:half], images_BHWC[:half], labels_B[:half])
                return first + self.read(ids_B[half:], images_BHWC[half:], labels_B[half:])
            opened = self._open(np.unique(shards_B[~ready_B]))
        self._reader.gather(shards_B, ids_B - self._starts[shards_B], images_BHWC)
        labels_B.copy_(torch.from_numpy(self._labels[ids_B]))
        return opened

    def in_order_of_use(self, windows: Iterable[Ids]) -> Iterator[ShardRecord]:
        """The shards, not open yet, that ``windows`` of sample ids (negative: none) touch, by first need."""
        seen = np.zeros(len(self.records), dtype=bool)
        for ids in windows:
            shards, first = np.unique(self.locate(ids[ids >= 0]), return_index=True)
            new = ~(seen[shards] | self._reader.ready[shards])
            for shard in shards[new][np.argsort(first[new])].tolist():
                yield self.records[shard]
            seen[shards] = True
            if seen.all():
                return

    def close(self) -> None:
        """Let go of all shards."""
        self._reader.close()

    def _choose_reader(self, threads: int, mapped_bytes: int) -> Reader:
        if any(r.encoding is not Encoding.NPY or r.layout is None for r in self.records):
            return TarReader(self.records, threads)
        if int(self._sizes.sum()) <= mapped_bytes:
            return ShardArena(self.records)
        return ShardFiles(self.records, threads)

    def _open(self, shards: Ids) -> int:
        for shard in shards.tolist():
            self._let_go(int(self._sizes[shard]))
            with self.cache.lease(self.records[shard]) as file:
                self._labels[self._starts[shard] : self._ends[shard]] = self._reader.open(shard, file)
        return len(shards)

    def _let_go(self, size_bytes: int) -> None:
        """Release shards not needed now, least recently used first, until ``size_bytes`` more may come."""
        mapped = np.flatnonzero(self._reader.ready)
        over = len(mapped) + 1 - self._reader.capacity
        over_bytes = 0
        if self._leased_limit_bytes is not None:
            over_bytes = int(self._sizes[mapped].sum()) + size_bytes - self._leased_limit_bytes
        if over <= 0 and over_bytes <= 0:
            return
        for shard in mapped[np.argsort(self._last_use[mapped], kind="stable")].tolist():
            if (over <= 0 and over_bytes <= 0) or self._last_use[shard] == self._uses:
                return
            self._reader.release(shard)
            over, over_bytes = over - 1, over_bytes - int(self._sizes[shard])
