"""Something done again and again beside the work of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(act: Callable[[], object], every_s: float, name: str) -> Iterator[None]:
    """Call ``act`` every ``every_s`` seconds within the ``with``, in a thread called ``name``.

    None runs any more after it. ``act`` handles its own errors: one that it lets through ends the thread.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            act()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
