"""What a tracked run can be told, besides numbers, and how W&B takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chart:
    """Lines by name, each its x and y; the axes are called ``x`` and ``y``."""

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class ConfusionMatrix:
    """``counts[actual][predicted]``."""

    title: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, uint8 RGB ``pixels_HWC``, and what stands below it."""

    pixels_HWC: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Artefact:
    """An object in storage by reference: its bytes stay where they are."""

    name: str
    """W&B keeps versions under this name."""
    kind: str
    url: str
    """``s3://...`` or an absolute path."""
    digest: str
    """Of its content: another digest is another version, also at the same URL."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows of plain values under ``columns``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[float | str | bool | None]]


@dataclass(frozen=True)
class Bars:
    """A bar for each label; ``y`` is what they measure."""

    title: str
    y: str
    bars: Mapping[str, float]


Loggable = float | Chart | ConfusionMatrix | Table | Bars | Sequence[Picture]


def for_wandb(run: Any, key: str, value: Loggable, step: int) -> Any:
    """``value`` as W&B takes it, for ``run.log``."""
    import wandb

    if isinstance(value, Chart):
        rows = [[x, y, line] for line, points in value.lines.items() for x, y in zip(*points, strict=True)]
        table = _table(run, key, [value.x, value.y, "line"], rows, step)
        return wandb.plot.line(table, value.x, value.y, stroke="line", title=value.title)
    if isinstance(value, ConfusionMatrix):
        fields = {name: name for name in ("Actual", "Predicted", "nPredictions")}
        cells = [
            [actual, predicted, count]
            for actual, row in zip(value.classes, value.counts, strict=True)
            for predicted, count in zip(value.classes, row, strict=True)
        ]
        table = _table(run, key, list(fields), cells, step)
        return wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": value.title})
    if isinstance(value, Table):
        return _table(run, key, list(value.columns), [list(row) for row in value.rows], step)
    if isinstance(value, Bars):
        table = _table(run, key, ["label", value.y], [list(bar) for bar in value.bars.items()], step)
        return wandb.plot.bar(table, "label", value.y, title=value.title)
    if isinstance(value, Sequence):
        return [wandb.Image(picture.pixels_HWC, caption=picture.caption) for picture in value]
    return value


def _table(run: Any, key: str, columns: list[str], rows: list[list[Any]], step: int) -> Any:
    import wandb

    # Bound at once, it is a media file of the run and nothing else. Left to itself, W&B also makes it an
    # artefact, which it stages outside the run's folder and asks its server about.
    table = wandb.Table(columns=columns, data=rows)
    table.bind_to_run(run, f"{key}_table", step)
    return table


def reference(artefact: Artefact) -> Any:
    """W&B's artefact that points to ``artefact``."""
    import wandb

    url = artefact.url if "://" in artefact.url else Path(artefact.url).as_uri()
    made = wandb.Artifact(artefact.name, artefact.kind, metadata=dict(artefact.metadata))
    stem, dot, suffix = url.rpartition("/")[2].partition(".")
    # Unchecked, a reference is identified by its URL and its name.
    made.add_reference(url, name=f"{stem}-{artefact.digest[:12]}{dot}{suffix}", checksum=False)
    return made
