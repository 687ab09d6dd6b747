"""Shards brought to the node ahead of need, in parallel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

from sentinode.data.cache import ShardCache
from sentinode.data.manifest import ShardRecord
from sentinode.errors import SentinodeError

logger = logging.getLogger(__name__)


class Prefetcher:
    """Threads that walk over ``records`` and have the cache fetch each.

    ``ahead``: how many shards may be fetched that have not been ``used`` yet; None: all. Shards that
    another process of the node is downloading are left to it. Errors are only logged: whoever needs the
    shard will meet them.
    """

    def __init__(
        self, cache: ShardCache, records: Iterator[ShardRecord], threads: int, ahead: int | None = None
    ) -> None:
        self._cache = cache
        self._records = records
        self._next = threading.Lock()
        self._room = None if ahead is None else threading.Semaphore(ahead)
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"prefetch-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def used(self) -> None:
        """One more shard is in use: another may be fetched ahead."""
        if self._room is not None:
            self._room.release()

    def close(self) -> None:
        """Stop before the next shard; a download that is under way is finished, not awaited."""
        self._closed.set()
        for _ in self._threads:
            self.used()

    def _work(self) -> None:
        while (record := self._take()) is not None:
            try:
                self._cache.fetch_unless_busy(record)
            except SentinodeError as error:
                logger.info("shard %s was not fetched ahead of need: %s", record.name, error)

    def _take(self) -> ShardRecord | None:
        if self._room is not None:
            self._room.acquire()
        if self._closed.is_set():
            return None
        with self._next:
            return next(self._records, None)
