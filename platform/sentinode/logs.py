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
from contextvars import ContextVar
from functools import cache
from typing import Literal, Protocol

from rich.console import Console, RenderableType
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
from rich.text import Text

LogFormat = Literal["rich", "plain", "json"]
PROGRESS_LINE_EVERY_S = 10.0
_IN_A_JOB = ("RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR", "KUBERNETES_SERVICE_HOST")
"""Set in Ray's workers, in what `ray job submit` starts, and in containers."""
log = logging.getLogger("sentinode")
REQUEST_ID: ContextVar[str] = ContextVar("sentinode_request_id", default="")
"""The request that is being answered; stands in the JSON lines that are logged meanwhile."""


class ProgressCallback(Protocol):
    """Told of work done: ``progress("scan", 120, 2520)``; called from one thread. ``note``: the latest figures."""

    def __call__(self, step: str, done: float, total: int, note: str = "") -> None: ...


def no_progress(step: str, done: int, total: int, note: str = "") -> None:
    """A progress callback for those who do not want one."""


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (UTC, ISO 8601), level, logger, message; request id and exception if there are."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            entry["request_id"] = request_id
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
    return "json" if any(name in os.environ for name in _IN_A_JOB) else "plain"


def configure_logging(level: int = logging.INFO) -> None:
    """Send the ``sentinode`` loggers to stderr in the format of :func:`log_format`. Entry points call it once."""
    kind = log_format()
    handler: logging.Handler
    if kind == "rich":
        handler = RichHandler(console=terminal(), show_path=False, rich_tracebacks=False)
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
    bars: dict[str, TaskID] = {}
    with _Display(console=terminal()) as display:

        def draw(step: str, done: float, total: int, note: str = "") -> None:
            if step not in bars:
                bars[step] = display.add_task(step, total=total, note="")
            display.update(bars[step], completed=done, total=total)
            if note:
                display.update(bars[step], note=note)

        yield draw


class _Display(Progress):
    """A bar for each step, and below them the latest note of each that goes on: beside the bar, a terminal of 80
    columns would have no room for it.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"] and not task.finished:
                yield Text(f"  {task.fields['note']}", no_wrap=True, overflow="ellipsis")


@cache
def terminal() -> Console:
    """The one console of log lines and bars: with two, each would overwrite the other's lines."""
    return Console(stderr=True)


def _line_progress() -> ProgressCallback:
    told: dict[str, float] = {}
    began: dict[str, tuple[float, float]] = {}
    """When the first work was seen done, and how much: what was done before tells nothing of the speed."""

    def tell(step: str, done: float, total: int, note: str = "") -> None:
        now = time.monotonic()
        last = told.setdefault(step, now)
        since, former = began.setdefault(step, (now, done)) if done else (now, done)
        if done < total and now - last < PROGRESS_LINE_EVERY_S:
            return
        told[step] = now
        left = ""
        if former < done < total:
            left = f", about {duration((now - since) / (done - former) * (total - done))} to go"
        log.info("%s: %d of %d%s%s", step, done, total, left, f"; {note}" if note else "")

    return tell


def duration(seconds: float) -> str:
    """``seconds`` in the unit in which a person would say it."""
    for unit, length_s in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.{int(unit == 'h')}f} {unit}"
    return f"{seconds:.0f} s"
