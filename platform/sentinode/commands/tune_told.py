"""How a search is told of: a live table in a terminal, lines that stay readable in a job's log elsewhere."""

from __future__ import annotations

import logging
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich import box
from rich.live import Live
from rich.table import Table

from sentinode.logs import duration, log_format, terminal
from sentinode.search.records import SweepRecord, TrialRecord, TrialState
from sentinode.search.sweep import Sweep

ROWS = 12
"""Trials that the live table shows: those under way, then the best."""
STANDING_EVERY_S = 60.0
"""How often a log is told where the search stands."""
LINE_WIDTH = 80
"""Characters of a line in a log, its time and level left out."""
HEADINGS = ("trial", "state", "epochs", "quality", "ms/patch", "params", "network")
LEFT = ("state", "network")
"""Columns that are flush left."""

log = logging.getLogger(__name__)


class SweepTold:
    """Tells of ``sweep`` within the ``with``; an onlooker of the search."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._live: Live | None = None
        self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        if log_format() == "rich":
            self._live = Live(console=terminal(), get_renderable=self._table, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begun(self, trial: TrialRecord) -> None:
        for line in _lines(f"{name_of(trial)} begins: {words(trial)}"):
            log.info("%s", line)

    def epoch(self, trial: TrialRecord) -> None:
        last = trial.epochs[-1]
        quality = last.valid_auroc if self._sweep.record.config.quality == "auroc" else last.valid_specificity
        if self._live is None:
            log.info(
                "%s epoch %d of %d: %s %.4f, loss %.4f",
                *(name_of(trial), last.epoch, trial.recipe.train.epochs),
                *(self._sweep.record.config.quality, quality or 0.0, last.valid_loss),
            )
            self._tell_standing()

    def over(self, trial: TrialRecord) -> None:
        quality = trial.quality(self._sweep.record.config.quality)
        figure = "" if quality is None else f", {self._sweep.record.config.quality} {quality:.4f}"
        cost = "" if trial.cost is None else f", {trial.cost.latency_ms:.3g} ms a patch"
        reason = f": {trial.reason}" if trial.reason else ""
        level = logging.WARNING if trial.state is TrialState.FAILED else logging.INFO
        log.log(
            level,
            "%s %s after %d epochs, %s%s%s%s",
            *(
                name_of(trial),
                trial.state.value,
                len(trial.epochs),
                duration(trial.seconds),
                figure,
                cost,
                reason,
            ),
        )

    def progress(self, step: str, done: float, total: int, note: str = "") -> None:
        """For what comes after the search; a line at its end."""
        if done >= total:
            log.info("%s: done", step)

    def _tell_standing(self) -> None:
        now = time.monotonic()
        if now - self._told_s < STANDING_EVERY_S:
            return
        self._told_s = now
        log.info("%s", standing(self._sweep.record, self._sweep.seconds))
        for line in _columns([HEADINGS, *rows(self._sweep.record)[:5]]):
            log.info("  %s", line)

    def _table(self) -> Table:
        record = self._sweep.record
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=standing(record, self._sweep.seconds))
        for heading in HEADINGS:
            shown.add_column(heading, justify="left" if heading in LEFT else "right", no_wrap=True)
        for row in rows(record)[:ROWS]:
            shown.add_row(*row)
        return shown


def standing(record: SweepRecord, seconds: float) -> str:
    """Where a search stands, in a line."""
    counts = Counter(trial.state for trial in record.trials)
    states = ", ".join(f"{counts[state]} {state.value}" for state in TrialState if counts[state])
    drawn = f"{len(record.trials)} of {record.budget.trials} trials ({states})"
    return f"{record.name}: {drawn}, {duration(seconds)}"


def rows(record: SweepRecord) -> list[tuple[str, ...]]:
    """A row a trial as text: those under way, then the others, the best first; HEADINGS names the columns."""

    def rank(trial: TrialRecord) -> tuple[bool, float]:
        return trial.state is not TrialState.RUNNING, -(trial.quality(record.config.quality) or 0.0)

    trials: Sequence[TrialRecord] = record.again or record.trials
    return [
        (
            str(trial.number),
            trial.state.value,
            f"{len(trial.epochs)}/{trial.recipe.train.epochs}",
            _figure(trial.quality(record.config.quality), ".4f"),
            _figure(trial.cost_of("latency"), ".3f"),
            _figure(trial.cost_of("parameters"), ",.0f"),
            trial.family,
        )
        for trial in sorted(trials, key=rank)
    ]


def name_of(trial: TrialRecord) -> str:
    return (
        f"trial {trial.number}"
        if trial.run.startswith("trials/")
        else f"winner, seed {trial.recipe.train.seed}"
    )


def words(trial: TrialRecord) -> str:
    """What was drawn, in a line, the family first."""
    others = (
        f"{name.rpartition('.')[2]} {value:.3g}"
        if isinstance(value, float)
        else f"{name.rpartition('.')[2]} {value}"
        for name, value in trial.choices.items()
        if name != "family"
    )
    return ", ".join((trial.family, *others))


def _lines(text: str) -> list[str]:
    """``text`` in lines of a log; terminals wrap by themselves, and JSON keeps one object for one event."""
    if log_format() != "plain":
        return [text]
    # A space that no line is broken at keeps each value beside its name.
    glued = text.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    wrapped = textwrap.wrap(glued, LINE_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrapped]


def _columns(table: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows of ``table``, HEADINGS first, with their cells below one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if heading in LEFT else cell.rjust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        ).rstrip()
        for row in table
    ]


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
