"""Bodies that come too slowly: one timer for all requests, not one for each.

``asyncio.timeout`` arms and disarms a timer a request, at almost three times the CPU time. Here a request notes when
its body must be there, and a timer that ticks while bodies are read looks for late ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive

from sentinode.errors import RequestError

_TICKS = 8
"""In one time-out: a late body is noticed at most an eighth of it late."""


class BodyWatch:
    """Gives each body ``timeout_s``, from the first look at it to its last byte. For one event loop.

    ``on_late`` is told of each that was late.
    """

    def __init__(self, timeout_s: float, on_late: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._on_late = on_late
        self._due_s: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._is_ticking = False

    def watched(self, receive: Receive) -> Receive:
        """``receive`` that raises RequestError 408 where the body is late; what comes after it may take its time."""
        due_s = 0.0
        connection = getattr(receive, "__self__", None)

        async def timed() -> Message:
            nonlocal due_s
            if due_s < 0 or not getattr(connection, "more_body", True):
                # All of it is here, as with most patches: nothing to watch for.
                return await receive()
            due_s = due_s or asyncio.get_running_loop().time() + self._timeout_s
            message = await self._in_time(receive, due_s)
            if not message.get("more_body", False):
                due_s = -1.0
            return message

        return timed

    async def _in_time(self, receive: Receive, due_s: float) -> Message:
        task = asyncio.current_task()
        assert task is not None
        self._due_s[task] = due_s
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(self._timeout_s / _TICKS, self._tick)
        try:
            message = await receive()
        except asyncio.CancelledError as error:
            if task not in self._late:
                raise
            task.uncancel()
            raise self._too_late() from error
        finally:
            was_late = task in self._late
            self._late.discard(task)
            del self._due_s[task]
        # A client that sends byte by byte is never caught waiting.
        if was_late or asyncio.get_running_loop().time() > due_s:
            raise self._too_late()
        return message

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for task, due_s in self._due_s.items():
            if due_s < now_s and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._is_ticking = bool(self._due_s)
        if self._is_ticking:
            loop.call_later(self._timeout_s / _TICKS, self._tick)

    def _too_late(self) -> RequestError:
        self._on_late()
        return RequestError(
            f"the body was not there after {self._timeout_s:g} s", "a client that sends at once", status=408
        )
