"""Slide scores of other systems, from CSV: ``slide,score,um_px`` and, where it tells the lesion class, ``class``."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from typing import Final

from sentinode.errors import EvaluationError
from sentinode.evaluation.slide_record import SlideScore
from sentinode.schema import NodeClass

SCORES_CSV: Final = "slides.csv"
COLUMNS: Final = ("slide", "score", "um_px")


def slide_scores_from_csv(data: bytes, where: str) -> tuple[SlideScore, ...]:
    """Parse and check; ``where`` names the file in errors.

    ``score`` rises with suspicion and may have any scale, ``um_px`` are micrometres per pixel at level 0, by which
    lesions are sized, ``class`` is negative, itc, micro or macro, from which patient stages follow. Raises
    EvaluationError.
    """
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(
            f"{where} is not a CSV file ({error})", f"a table {','.join(COLUMNS)}", "write it again as CSV"
        ) from error
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing or not rows:
        raise EvaluationError(
            f"{where} has no {f'column {missing[0]}' if missing else 'row'}",
            f"a table {','.join(COLUMNS)} and, if known, class, with a row a slide",
            "write it again",
        )
    twice = [slide for slide, count in Counter(row["slide"] for row in rows).items() if count > 1]
    if twice:
        raise EvaluationError(
            f"{where}: slide {twice[0]} stands more than once", "each slide once", "drop a row"
        )
    digest = hashlib.sha256(data).hexdigest()
    return tuple(_score(row, f"{where}, line {line}", digest) for line, row in enumerate(rows, 2))


def _score(row: dict[str, str], where: str, digest: str) -> SlideScore:
    if not row["slide"]:
        raise EvaluationError(
            f"{where}: no slide", "its name, without the extension of the file", "mend the line"
        )
    told = row.get("class") or None
    if told is not None and told.lower() not in set(NodeClass):
        raise EvaluationError(f"{where}: class {told!r}", ", ".join(NodeClass), "mend the line")
    um_px = _number(row["um_px"], "um_px", where)
    if um_px <= 0:
        raise EvaluationError(
            f"{where}: um_px {um_px:g}", "micrometres per pixel, such as 0.25", "mend the line"
        )
    return SlideScore(
        slide=row["slide"],
        url=row["slide"],
        status="done",
        key=digest,
        bundle=digest,
        score=_number(row["score"], "score", where),
        um_px=um_px,
        node_class=None if told is None else NodeClass(told.lower()),
    )


def _number(text: str | None, column: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EvaluationError(
            f"{where}: {column} is {(text or '')[:40]!r}", "a finite number", "mend the line, or drop it"
        )
    return value
