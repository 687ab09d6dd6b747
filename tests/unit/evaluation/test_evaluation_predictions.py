from __future__ import annotations

import csv
import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_parts import make_predictions

from sentinode.errors import EvaluationError
from sentinode.evaluation.calibrator import sigmoid
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.submission import submission_csv, submission_ids
from sentinode.storage import open_store

COLUMNS = [f.name for f in dataclasses.fields(Predictions)]


def assert_same(a: Predictions, b: Predictions) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=not name.endswith("digest"))


@pytest.mark.parametrize("slides", [None, 7])
def test_parquet_round_trip_keeps_every_bit(slides: int | None) -> None:
    before = make_predictions(slides=slides)
    data = before.to_parquet()
    assert data == before.to_parquet()
    after = Predictions.from_parquet(data, "predictions.parquet")
    assert_same(before, after)
    assert after.slides_known == (slides is not None)
    table = pq.read_table(io.BytesIO(data))
    assert table.column_names == ["key", "slide", "centre", "label", "split", "logit", "probability"]
    assert table.schema.metadata[b"sentinode.manifest_digest"] == b"d" * 64


def test_an_empty_split_survives(tmp_path: Path) -> None:
    empty = make_predictions().select(np.array([], np.int64))
    assert len(Predictions.from_parquet(empty.to_parquet(), "here")) == 0


def test_store_round_trip(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    url = make_predictions().write(store, "predictions/valid.parquet")
    assert url.endswith("predictions/valid.parquet")
    assert_same(make_predictions(), Predictions.read(store, "predictions/valid.parquet"))


def test_columns_are_read_only_and_survive_pickling() -> None:
    predictions = make_predictions()
    with pytest.raises(ValueError, match="read-only"):
        predictions.probabilities[0] = 0.5
    assert_same(predictions, pickle.loads(pickle.dumps(predictions)))  # noqa: S301


def test_sigmoid_neither_overflows_nor_leaves_the_unit_interval() -> None:
    with np.errstate(all="raise", under="ignore"):
        values = sigmoid(np.array([-1e4, -30.0, 0.0, 30.0, 1e4]))
    np.testing.assert_allclose(
        values, [0, 9.357622968840175e-14, 0.5, 1 - 9.357622968840175e-14, 1], rtol=1e-12
    )


def test_selecting_labelled_patches() -> None:
    labels = np.array([1, -1, 0, -1])
    predictions = Predictions.from_logits(
        keys=list("abcd"),
        logits=np.zeros(4),
        labels=labels,
        split="test",
        model_digest="",
        manifest_digest="",
    )
    assert predictions.labelled().keys.tolist() == ["a", "c"]
    assert predictions.splits.tolist() == ["test"] * 4


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"probabilities": np.array([0.5, np.nan])}, "is NaN"),
        ({"logits": np.array([np.nan, 0.0])}, "is NaN"),
        ({"probabilities": np.array([0.5, 1.5])}, "not logits"),
        ({"probabilities": np.array([-0.1, 0.5])}, "not logits"),
        ({"keys": np.array(["a", "a"])}, "more than once"),
        ({"keys": np.array(["a", ""])}, "empty key"),
        ({"labels": np.array([0, 2])}, "label 2 of patch b"),
        ({"labels": np.array([0, 257])}, "label 257"),
        ({"labels": np.array([0])}, "unequal length"),
        ({"slides": np.array([None], object)}, "unequal length"),
    ],
)
def test_bad_columns_are_refused(change: dict[str, Any], word: str) -> None:
    two = make_predictions(2)
    good = {name: getattr(two, name) for name in COLUMNS} | {"keys": np.array(["a", "b"])}
    Predictions(**good)
    with pytest.raises(EvaluationError, match=word):
        Predictions(**good | change)


def test_files_that_are_no_predictions_are_refused() -> None:
    with pytest.raises(EvaluationError, match="not a parquet file"):
        Predictions.from_parquet(b"no parquet", "x.parquet")
    table = pq.read_table(io.BytesIO(make_predictions(4).to_parquet()))

    def rewritten(changed: pa.Table) -> bytes:
        sink = io.BytesIO()
        pq.write_table(changed, sink)
        return sink.getvalue()

    position = table.column_names.index("label")
    for data, word in [
        (rewritten(table.drop_columns(["slide"])), "no column slide"),
        (rewritten(table.replace_schema_metadata(None)), "schema version None"),
        (rewritten(table.replace_schema_metadata({"sentinode.schema_version": "1"})), "model_digest"),
        (rewritten(table.replace_schema_metadata({b"\xff": b"\xff"})), "schema version None"),
        (rewritten(table.set_column(position, "label", pa.array(["1"] * 4))), "column label is string"),
        (rewritten(table.set_column(position, "label", pa.array([1, None, 0, 0], pa.int8()))), "empty cells"),
    ]:
        with pytest.raises(EvaluationError, match=word):
            Predictions.from_parquet(data, "x.parquet")


def unlabelled() -> Predictions:
    return Predictions.from_logits(
        keys=["c", "a", "b"],
        logits=[0.0, 40.0, -1.25],
        labels=[-1, -1, 1],
        split="unlabelled",
        model_digest="m",
        manifest_digest="d",
    )


def test_submission_follows_the_list_of_ids() -> None:
    rows = list(csv.reader(io.StringIO(submission_csv(unlabelled(), ["b", "c", "a"]))))
    assert rows[0] == ["id", "label"]
    assert [row[0] for row in rows[1:]] == ["b", "c", "a"]
    assert float(rows[1][1]) == unlabelled().probabilities[2]


def test_submission_without_a_list_holds_the_unlabelled_patches() -> None:
    assert submission_csv(unlabelled()) == "id,label\nc,0.5\na,1.0\n"


def test_submission_names_what_is_missing() -> None:
    with pytest.raises(EvaluationError, match="2 of 3 ids have no prediction: x, y"):
        submission_csv(unlabelled(), ["x", "a", "y"])
    with pytest.raises(EvaluationError, match="twice"):
        submission_csv(unlabelled(), ["a", "a"])
    with pytest.raises(EvaluationError, match="no patch"):
        submission_csv(make_predictions(4))


def test_submission_ids_of_a_sample() -> None:
    assert submission_ids("\ufeffid,label\nq,0\np,0\n") == ["q", "p"]
    with pytest.raises(EvaluationError, match="id,label"):
        submission_ids("image,label\nq,0\n")


def test_submission_covers_the_real_sample(real_data: Path) -> None:
    ids = submission_ids((real_data / "kaggle" / "sample_submission.csv").read_text())
    predictions = Predictions.from_logits(
        keys=sorted(ids),
        logits=np.linspace(-3, 3, len(ids)),
        labels=np.full(len(ids), -1),
        split="unlabelled",
        model_digest="m",
        manifest_digest="d",
    )
    assert [row.split(",")[0] for row in submission_csv(predictions, ids).splitlines()[1:]] == ids
