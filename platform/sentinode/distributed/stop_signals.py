"""SIGINT and SIGTERM end a training, and ask a search to end in good order; a second one ends that at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

HEARD = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger(__name__)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, in place of Ray's own handlers, by which a process
    ends without a word; afterwards they are heard as before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {heard: signal.signal(heard, signal.default_int_handler) for heard in HEARD}
    try:
        yield
    finally:
        for heard, handler in former.items():
            signal.signal(heard, handler)


class StopSignals:
    """Hears the signals within the ``with``; does nothing outside the main thread, which alone can hear any."""

    def __init__(self) -> None:
        self.came: str | None = None
        """Which signal came, in words."""
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {heard: signal.signal(heard, self._hear) for heard in HEARD}
        return self

    def __exit__(self, *_: object) -> None:
        for heard, former in self._former.items():
            signal.signal(heard, former)

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles what may end a search; former handlers may hold anything, and belong to this process."""
        return {**self.__dict__, "_former": {}}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.came is not None:
            raise KeyboardInterrupt
        self.came = f"{signal.Signals(number).name} came"
        log.warning("%s: ending the trials under way; once more ends at once", self.came)
