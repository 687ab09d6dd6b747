from __future__ import annotations

import numpy as np
import pytest

from sentinode.errors import EvaluationError
from sentinode.evaluation.calibrator import Calibration
from sentinode.evaluation.imported import Reference, predictions_from_csv, reference_from_csv

LABELS = {"a": Reference(1, "s1", "c"), "b": Reference(0, "s1"), "c": Reference(-1)}


def test_a_table_with_its_own_labels() -> None:
    text = b"\xef\xbb\xbfid,probability,label,slide,split\na,0.75,1,s1,valid\nb,0,0,,\n"
    found = predictions_from_csv(text, "x.csv")
    assert found.keys.tolist() == ["a", "b"]
    assert found.labels.tolist() == [1, 0]
    assert found.slides.tolist() == ["s1", None]
    assert found.splits.tolist() == ["valid", "test"]
    assert found.probabilities.tolist() == [0.75, 0.0]
    assert found.logits[0] == pytest.approx(np.log(3))
    assert np.isfinite(found.logits).all()
    assert len(found.model_digest) == 64


def test_probabilities_next_to_0_and_1_keep_their_order() -> None:
    given = [0.0, 1e-300, 1e-20, 1e-13, 0.5, 1 - 1e-13, 1 - 1e-15, 1.0]
    table = "id,probability,label\n" + "".join(f"{i},{p!r},{i % 2}\n" for i, p in enumerate(given))
    read = predictions_from_csv(table.encode(), "theirs.csv")
    assert np.isfinite(read.logits).all()
    assert (np.diff(read.logits) > 0).all()
    again = read.calibrated(Calibration())
    np.testing.assert_allclose(again.probabilities[1:], given[1:], rtol=1e-12)
    # A 0 that stands for a rounded probability does not lie hundreds of logits away.
    assert predictions_from_csv(b"id,probability,label\na,0,0\nb,0.2,1\n", "x").logits[0] > -30


def test_a_kaggle_submission_meets_its_reference() -> None:
    found = predictions_from_csv(b"id,label\nb,0.25\na,0.5\n", "x.csv", LABELS)
    assert found.labels.tolist() == [0, 1]
    assert found.slides.tolist() == ["s1", "s1"]
    assert found.centres.tolist() == [None, "c"]


def test_reference_tables() -> None:
    assert reference_from_csv(b"id,label,slide\na,1,s\nb,0,\n", "r.csv") == {
        "a": Reference(1, "s"),
        "b": Reference(0),
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"id,label\na,1\n", "label is the prediction"),
        (b"id,score\na,1\n", "has the columns id, score"),
        (b"\xef\xbb\xbf", "x.csv is empty"),
        (b"id,probability,label\n", "no row"),
        (b"id,probability,label\na,0.5\n", "line 2: not 3 cells"),
        (b"id,probability,label\na,0.5,1,9\n", "line 2: not 3 cells"),
        (b"id,probability,label\na,0.5,\n", "a has no reference label"),
        (b"id,probability,label\na,0.5,2\n", "label 2 of a"),
        (b"id,probability,label\na,0.5,nan\n", "label of a is 'nan'"),
        (b"id,probability,label\na,nan,1\n", "probability of a is 'nan'"),
        (b"id,probability,label\na,high,1\n", "probability of a is 'high'"),
        (b"id,probability,label\na,1.5,1\n", "probability of a is 1.5"),
        (b"id,probability,label\na,-0.1,1\n", "probability of a is -0.1"),
        (b"id,probability,label\na,inf,1\n", "probability of a is inf"),
        (b"id,probability,label\na,0.1,1\na,0.1,1\n", "1 rows repeat an id, e.g. a"),
        (b"id,probability,label\n,0.1,1\n", "line 2: no id"),
        (b"\xff\xfe", "not a CSV file"),
        (b"", "x.csv is empty"),
        (b"\n\n", "x.csv is empty"),
        (b"id;probability;label\na;0.5;1\n", "has the columns id;probability;label"),
        (b"id,probability,label,label\na,0.5,1,0\n", "the column label more than once"),
        (b"id,probability,label\na,0.5,tumour\n", "label of a is 'tumour'"),
    ],
)
def test_bad_tables_are_refused(text: bytes, word: str) -> None:
    with pytest.raises(EvaluationError, match=word):
        predictions_from_csv(text, "x.csv")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"id,label\na,0.5\nx,0.5\n", "1 ids are unknown to the reference, e.g. x"),
        (b"id,label\na,0.5\n", "1 labelled patches have no prediction, e.g. b"),
    ],
)
def test_ids_must_meet_the_reference(text: bytes, word: str) -> None:
    with pytest.raises(EvaluationError, match=word):
        predictions_from_csv(text, "x.csv", LABELS)


def test_bad_references_are_refused() -> None:
    with pytest.raises(EvaluationError, match="more than once"):
        reference_from_csv(b"id,label\na,1\na,1\n", "r.csv")
    with pytest.raises(EvaluationError, match=r"label 0\.3 of a"):
        reference_from_csv(b"id,label\na,0.3\n", "r.csv")
