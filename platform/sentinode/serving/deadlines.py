"""The time limit of requests: one timer for all, not one for each."""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlines:
    """Of one event loop: each request has ``timeout_s`` seconds, None being for ever."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._due_s: dict[asyncio.Future[Any], float] = {}
        self._late: set[asyncio.Future[Any]] = set()
        self._is_set = False

    def begin(self, work: asyncio.Future[Any]) -> None:
        """A task, or a future that somebody else computes: from now on cancelled when its time is over."""
        if self._timeout_s is None:
            return
        loop = asyncio.get_running_loop()
        self._due_s[work] = due_s = loop.time() + self._timeout_s
        if not self._is_set:
            self._is_set = True
            loop.call_at(due_s, self._look)

    def is_late(self, work: asyncio.Future[Any]) -> bool:
        """Whether it was cancelled by this."""
        return work in self._late

    def end(self, work: asyncio.Future[Any]) -> None:
        """It is done."""
        self._due_s.pop(work, None)
        self._late.discard(work)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._is_set = False
        # In the order in which they began, so in that of their deadlines.
        for work, due_s in self._due_s.items():
            if due_s > now_s:
                self._is_set = True
                loop.call_at(due_s, self._look)
                return
            if work not in self._late:
                self._late.add(work)
                work.cancel()
