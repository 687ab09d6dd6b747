"""Kaggle's ``submission.csv``: ``id,label`` with the probability of tumour as label."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence

from sentinode.errors import EvaluationError
from sentinode.evaluation.predictions import UNLABELLED, Predictions

logger = logging.getLogger(__name__)


def submission_csv(predictions: Predictions, ids: Sequence[str] | None = None) -> str:
    """The text of ``submission.csv``.

    With ``ids`` (those of ``sample_submission.csv``) one row each, in that order; else one row for each
    unlabelled patch, in the order of ``predictions``. Probabilities keep all digits, so that ranks survive.

    Raises EvaluationError where an id has no prediction or stands twice, or where there is nothing to submit.
    """
    if ids is None:
        ids = predictions.keys[predictions.labels == UNLABELLED].tolist()
    if not ids:
        raise EvaluationError("no patch to submit", "unlabelled patches, or a list of ids")
    if len(set(ids)) != len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})[:3]
        raise EvaluationError(f"ids stand twice in the list: {', '.join(twice)}", "each id once")
    probability = dict(zip(predictions.keys.tolist(), predictions.probabilities.tolist(), strict=True))
    missing = [i for i in ids if i not in probability]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise EvaluationError(
            f"{len(missing)} of {len(ids)} ids have no prediction: {shown}",
            "a prediction for each id of the list",
            "ingest and predict the whole test folder",
        )
    if len(probability) > len(ids):
        logger.info("submission: %d predictions are not on the list of ids", len(probability) - len(ids))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("id", "label"))
    rows.writerows((i, repr(probability[i])) for i in ids)
    return text.getvalue()


def submission_ids(sample_csv: str) -> list[str]:
    """The ids of a ``sample_submission.csv`` in order. Raises EvaluationError without a column ``id``."""
    rows = csv.DictReader(io.StringIO(sample_csv.removeprefix("\ufeff")))
    if "id" not in (rows.fieldnames or ()):
        raise EvaluationError(f"columns {rows.fieldnames}", "a sample submission with columns id,label")
    return [row["id"] for row in rows]
