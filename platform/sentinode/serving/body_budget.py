"""Memory for bodies: all that are read or wait for their answer share one budget, or many large ones fill the replica.

Limits a key and a request do not bound their product: 256 uploads of 32 MiB at once are 8 GiB. Not counted, so that the
hot path pays nothing, are bodies below 100 kB and those that the server has read as a whole when their request begins
(64 KiB and one read of the connection at most; so are those that ``front.py`` answers): as many of them as a replica
works on at once (``max_ongoing_requests``) are tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from starlette.types import Message, Receive

from sentinode.errors import BusyError

DEFAULT_BYTES: Final = 512 << 20
_SMALL_DIGITS: Final = 5


class BodyBudget:
    """``most_bytes`` for one event loop. ``on_refusal`` is told of each body that found no room."""

    def __init__(self, most_bytes: int, on_refusal: Callable[[], None]) -> None:
        self._most = most_bytes
        self._on_refusal = on_refusal
        self.held = 0
        """Bytes that are taken now."""

    def share(self, headers: Iterable[tuple[bytes, bytes]]) -> BodyShare | None:
        """For the body of one request with these headers; None for a small one."""
        length = next((value for name, value in headers if name == b"content-length"), b"")
        if 0 < len(length) <= _SMALL_DIGITS:
            return None
        return BodyShare(self, int(length[:20]) if length.isdigit() else None)

    def take(self, size: int) -> None:
        """Raises BusyError where that is not free."""
        if self.held + size > self._most:
            self._on_refusal()
            raise BusyError(
                "the replica holds as many bytes of requests as it may",
                f"at most {self._most} at once",
                "ask again in a moment, or with smaller requests",
            )
        self.held += size


class BodyShare:
    """What one request has of the budget; ``give_back`` must follow, however the request ends."""

    __slots__ = ("_budget", "_declared", "_size")

    def __init__(self, budget: BodyBudget, declared: int | None) -> None:
        self._budget = budget
        self._declared = declared
        self._size = 0

    def counted(self, receive: Receive) -> Receive:
        """``receive`` that takes room: for a declared length at the first look at the body, else as the body grows.

        Whoever declares too much for the path is refused by the path before it looks.
        """

        async def counting() -> Message:
            if self._declared is not None:
                if not self._size:
                    self._take(self._declared)
                return await receive()
            message = await receive()
            self._take(len(message.get("body", b"")))
            return message

        return counting

    def _take(self, size: int) -> None:
        self._budget.take(size)
        self._size += size

    def give_back(self) -> None:
        """The request is over."""
        self._budget.held -= self._size
        self._size = 0
