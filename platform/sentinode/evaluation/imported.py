"""Predictions of other systems, from CSV: ``id,probability`` or, as in Kaggle's submissions, ``id,label``.

A table has a column ``id`` (or ``key``) and its score in ``probability``, else in ``label``. Where both stand,
``label`` is the reference. ``slide``, ``centre`` and ``split`` are read where they stand. References may come
from a second table ``id,label`` with ``slide`` and ``centre``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sentinode.errors import EvaluationError
from sentinode.evaluation.calibrator import FloatArray
from sentinode.evaluation.predictions import UNLABELLED, Predictions

NO_MANIFEST = "unknown"
EDGE = 1e-12
"""Probabilities of 0 and 1 get the logit of this distance from them, or one beyond those of all others: calibration
needs finite logits."""


@dataclass(frozen=True)
class Reference:
    """What the pathologist says of one patch."""

    label: int
    slide: str | None = None
    centre: str | None = None
    split: str | None = None


def predictions_from_csv(
    data: bytes, where: str, reference: Mapping[str, Reference] | None = None
) -> Predictions:
    """Parse, join with ``reference`` and check; ``where`` names the file in errors.

    With a reference each id of the table must be known to it; patches of the reference without a prediction
    are an error too, since leaving out the hard ones would flatter. Only splits that the table touches count.
    Raises EvaluationError.
    """
    rows = _rows(data, where)
    scored = "probability" if "probability" in rows[0] else "label"
    if reference is None and scored == "label":
        raise EvaluationError(
            f"{where} has the columns {', '.join(rows[0])}, so its label is the prediction",
            "reference labels too",
            "give --reference: a table id,label or the URL of a data set",
        )
    ids = [_id(row, line, where) for line, row in enumerate(rows, 2)]
    known = (
        {i: _of_row(row, i, where) for i, row in zip(ids, rows, strict=True)}
        if reference is None
        else reference
    )
    _check_ids(ids, known, where)
    p = np.array([_number(row[scored], i, scored, where) for i, row in zip(ids, rows, strict=True)])
    outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(outside):
        raise EvaluationError(
            f"{where}: {scored} of {ids[outside[0]]} is {p[outside[0]]:g}", "a probability in [0, 1]",
            "give probabilities, not logits",
        )  # fmt: skip
    told = [known[i] for i in ids]
    return Predictions(
        keys=np.asarray(ids, np.str_),
        slides=np.asarray([r.slide for r in told], object),
        centres=np.asarray([r.centre for r in told], object),
        labels=np.asarray([r.label for r in told]),
        splits=np.asarray([r.split or "test" for r in told], np.str_),
        logits=_logits(p),
        probabilities=p,
        model_digest=hashlib.sha256(data).hexdigest(),
        manifest_digest=NO_MANIFEST,
    )


def _logits(probabilities_N: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities_N) - np.log1p(-probabilities_N)
    inner = np.abs(logits[np.isfinite(logits)]).max(initial=0.0)
    farthest = max(inner + np.log(2), np.log1p(-EDGE) - np.log(EDGE))
    return np.asarray(np.clip(logits, -farthest, farthest), np.float64)


def reference_from_csv(data: bytes, where: str) -> dict[str, Reference]:
    """The labels of a table ``id,label`` by id. Raises EvaluationError on other columns, labels or duplicates."""
    out: dict[str, Reference] = {}
    for line, row in enumerate(_rows(data, where), 2):
        key = _id(row, line, where)
        if key in out:
            raise EvaluationError(f"{where}: {key} stands more than once", "each id once", "drop the rows")
        out[key] = _of_row(row, key, where)
    return out


def _rows(data: bytes, where: str) -> list[dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(
            f"{where} is not a CSV file ({error})",
            "UTF-8 text: a table id,probability",
            "write it again as CSV",
        ) from error
    columns = list(reader.fieldnames or [])
    if not columns:
        raise EvaluationError(
            f"{where} is empty", "a table id,probability with a row a patch", "write it again"
        )
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise EvaluationError(
            f"{where} has the column {twice[0]} more than once", "each column once", "drop one"
        )
    if not {"id", "key"} & set(columns) or not {"label", "probability"} & set(columns):
        raise EvaluationError(
            f"{where} has the columns {', '.join(columns)[:200]}",
            "id,label or id,probability, separated by commas",
            "name the columns so in the first line",
        )
    if not rows:
        raise EvaluationError(f"{where} holds no row", "a row a patch", "write it again")
    ragged = next((line for line, row in enumerate(rows, 2) if None in row or None in row.values()), None)
    if ragged is not None:
        raise EvaluationError(
            f"{where}, line {ragged}: not {len(columns)} cells", "a value for each column", "mend the line"
        )
    return rows


def _id(row: Mapping[str, str], line: int, where: str) -> str:
    key = row.get("id", row.get("key", ""))
    if not key:
        raise EvaluationError(f"{where}, line {line}: no id", "an id in each row", "mend the line")
    return key


def _of_row(row: Mapping[str, str], key: str, where: str) -> Reference:
    text = row.get("label", "")
    if text == "":
        raise EvaluationError(
            f"{where}: {key} has no reference label",
            "1 tumour, 0 negative, -1 unlabelled",
            "give --reference, or drop the row",
        )
    label = _number(text, key, "label", where)
    if label not in (0, 1, UNLABELLED):
        raise EvaluationError(f"{where}: label {text} of {key}", "1 tumour, 0 negative, -1 unlabelled")
    return Reference(int(label), *(row.get(name) or None for name in ("slide", "centre", "split")))


def _number(text: str, key: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        expected = "1 tumour, 0 negative" if column == "label" else "a number in [0, 1]"
        raise EvaluationError(
            f"{where}: {column} of {key} is {text[:40]!r}",
            expected,
            "mend the row: a missing figure is not filled in",
        )
    return value


def _check_ids(ids: list[str], known: Mapping[str, Reference], where: str) -> None:
    seen = set(ids)
    if len(seen) < len(ids):
        twice = next(i for i, count in Counter(ids).items() if count > 1)
        raise EvaluationError(
            f"{where}: {len(ids) - len(seen)} rows repeat an id, e.g. {twice}",
            "each id once",
            "drop the rows",
        )
    unknown = sorted(seen - known.keys())
    if unknown:
        raise EvaluationError(
            f"{where}: {len(unknown)} ids are unknown to the reference, e.g. {unknown[0]}",
            f"ids of the reference, such as {next(iter(known), 'none: it is empty')}",
            "give the reference of these patches, or drop the rows",
        )
    splits = {known[i].split for i in seen}
    missing = sorted(
        i for i, r in known.items() if i not in seen and r.split in splits and r.label != UNLABELLED
    )
    if missing:
        raise EvaluationError(
            f"{where}: {len(missing)} labelled patches have no prediction, e.g. {missing[0]}",
            "a prediction for each patch of the reference",
            "predict them, or drop them from the reference and say so",
        )
