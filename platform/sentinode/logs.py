"""Logging for people and for machines, and progress that stays readable in both.

In a terminal: rich lines and progress bars. In a job (no terminal, or ``SENTINODE_LOG=json``): one JSON object a line,
and progress as a line every few seconds.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, Protocol

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LogFormat = Literal["rich", "plain", "json"]
PROGRESS_LINE_EVERY_S = 10.0
log = logging.getLogger("sentinode")


class ProgressCallback(Protocol):
    """Told of work done: ``progress("scan", 120, 2520)``; called from one thread. ``note``: the latest figures."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None: ...


def no_progress(step: str, done: int, total: int, note: str = "") -> None:
    """A progress callback for those who do not want one."""


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (UTC, ISO 8601), level, logger, message, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def log_format() -> LogFormat:
    """``SENTINODE_LOG`` if set, else rich in a terminal and JSON in a Ray job or a container, else plain lines."""
    asked = os.environ.get("SENTINODE_LOG", "")
    if asked in ("rich", "plain", "json"):
        return asked  # type: ignore[return-value]
    if sys.stderr.isatty():
        return "rich"
    return "json" if "RAY_JOB_ID" in os.environ or "KUBERNETES_SERVICE_HOST" in os.environ else "plain"


def configure_logging(level: int = logging.INFO) -> None:
    """Send the ``sentinode`` loggers to stderr in the format of :func:`log_format`. Entry points call it once."""
    kind = log_format()
    handler: logging.Handler
    if kind == "rich":
        handler = RichHandler(console=_terminal(), show_path=False, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s", datefmt="%X"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
        handler.setFormatter(JsonFormatter() if kind == "json" else plain)
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """A callback that draws a bar for each step in a terminal, and logs a line now and then elsewhere."""
    if log_format() != "rich":
        yield _line_progress()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=_terminal()) as display:

        def draw(step: str, done: int, total: int, note: str = "") -> None:
            if step not in bars:
                bars[step] = display.add_task(step, total=total, note=note)
            display.update(bars[step], completed=done, total=total, note=note)

        yield draw


@cache
def _terminal() -> Console:
    """The one console of log lines and bars: with two, each would overwrite the other's lines."""
    return Console(stderr=True)


def _line_progress() -> ProgressCallback:
    last: dict[str, float] = {}
    started: dict[str, float] = {}

    def tell(step: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        begin = started.setdefault(step, now)
        if done < total and now - last.get(step, begin) < PROGRESS_LINE_EVERY_S:
            return
        last[step] = now
        eta = f", about {(now - begin) / done * (total - done):.0f} s to go" if 0 < done < total else ""
        log.info("%s: %d of %d%s%s", step, done, total, eta, f"; {note}" if note else "")

    return tell
