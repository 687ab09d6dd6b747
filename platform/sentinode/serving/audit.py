"""The audit log: who asked, which bundle answered, with what verdict. JSON lines, and never an image.

Entries are collected and written by a thread a few times a second, so that a request does not wait for the disk; a
replica that is killed loses at most ``_EVERY_S`` seconds of them.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from sentinode.errors import ConfigError

_EVERY_S: Final = 0.2
_MOST_WAITING: Final = 100_000
logger = logging.getLogger(__name__)


def open_audit(path: Path | None, replica: str) -> AuditLog | None:
    """The log at ``path``, ``{replica}`` in its name replaced; None for no path. Raises ConfigError."""
    return AuditLog(path.with_name(path.name.replace("{replica}", replica))) if path else None


class AuditLog:
    """Appends to ``path``; safe to use from several threads. Raises ConfigError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = path.open("a", encoding="utf-8")
            path.chmod(0o600)
        except OSError as error:
            raise ConfigError(
                f"the audit log {path} cannot be written ({error.strerror})", "a file on a disk with room"
            ) from error
        self._path = path
        self._waiting: list[tuple[Any, ...]] = []
        self._lock = threading.Lock()
        """Of ``_waiting``, never held while the disk is."""
        self._writing = threading.Lock()
        """Of the file, whose lines keep their order."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write_now_and_then, name="sentinode-audit", daemon=True)
        self._thread.start()

    def record(
        self,
        request_id: str,
        caller: str,
        action: str,
        bundle: str,
        verdicts: Sequence[str],
        flags: Sequence[str] = (),
    ) -> None:
        """One answered request: verdicts and flags of its patches, in order."""
        # A tuple is cheaper than JSON, which the thread makes, and the thread holds the lock for its swap alone.
        entry = (datetime.now(UTC), request_id, caller, action, bundle, tuple(verdicts), tuple(flags))
        with self._lock:
            self._waiting.append(entry)
            is_full = len(self._waiting) >= _MOST_WAITING
        if is_full:
            # The disk is slower than the callers: they wait, for an audit log with holes is none.
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            with self._lock:
                entries, self._waiting = self._waiting, []
            if not entries or self._file.closed:
                return
            try:
                self._file.write("".join(map(_line, entries)))
                self._file.flush()
            except OSError as error:
                logger.error("audit log %s: %d entries lost (%s)", self._path, len(entries), error.strerror)

    def close(self) -> None:
        """Write what waits and close the file."""
        self._over.set()
        self._thread.join()
        self.flush()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_now_and_then(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.flush()


def _line(entry: tuple[Any, ...]) -> str:
    at, request_id, caller, action, bundle, verdicts, flags = entry
    fields = {
        "time": at.isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "caller": caller,
        "action": action,
        "bundle": bundle,
        "patches": len(verdicts),
        "verdicts": verdicts,
        "flags": flags,
    }
    return json.dumps(fields, ensure_ascii=True) + "\n"
