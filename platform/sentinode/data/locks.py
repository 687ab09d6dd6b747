"""Files that lock and remember: one process of the node at a time holds them, and a killed one lets go."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """The file at ``path``, made where missing, open for reading and writing and locked exclusively."""
    with _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def locked_unless_taken(path: Path) -> Iterator[BinaryIO | None]:
    """As ``locked``, but None at once where somebody else holds the lock."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


def read_text(file: BinaryIO) -> str:
    """The whole content of a locked file."""
    file.seek(0)
    return file.read().decode(errors="replace")


def write_text(file: BinaryIO, text: str) -> None:
    """Replace the content of a locked file. A kill may leave a part of ``text``: readers must check it."""
    file.seek(0)
    file.truncate()
    file.write(text.encode())
    file.flush()


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
