"""The card refuses contradictions, and probabilities follow its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from serving_parts import make_card

from sentinode.bundle.card import Card, FileRecord
from sentinode.bundle.golden import probabilities
from sentinode.evaluation.calibrator import Calibration


def test_card_survives_its_canonical_json() -> None:
    card = make_card()
    assert Card.from_json(card.canonical_json(), "card.json") == card


def test_card_says_research_use_only() -> None:
    assert "Research use only" in make_card().notice


def test_operating_point_by_name_and_by_default() -> None:
    card = make_card()
    assert card.operating_point() == card.operating_points[0]
    assert card.operating_point("sensitive") == card.operating_points[1]
    assert card.operating_point("absent") is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"default_operating_point": "absent"}, "none of balanced, sensitive"),
        ({"operating_points": ()}, "at least 1 item"),
        ({"operating_points": make_card().operating_points[:1] * 2}, "share a name"),
        ({"files": {"model.pt": FileRecord(sha256="a" * 64, size_bytes=1)}}, "pickled code"),
        ({"files": {"../model.onnx": FileRecord(sha256="a" * 64, size_bytes=1)}}, "plain file name"),
        ({"licence": None}, "licence"),
        ({"metrics": {"test": {"auroc": float("nan")}}}, "finite number"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_contradicting_card_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make_card(**changes)


def test_identity_calibration_cannot_have_coefficients() -> None:
    with pytest.raises(ValidationError, match="identity calibration"):
        Calibration(kind="identity", a=2.0)


def test_probabilities_are_the_logistic_function_without_overflow() -> None:
    logits_B = np.array([-1000, -2, 0, 2, 1000], np.float32)
    with np.errstate(all="raise", under="ignore"):
        given = probabilities(logits_B, Calibration())
    np.testing.assert_allclose(given, [0, 1 / (1 + np.e**2), 0.5, 1 / (1 + np.e**-2), 1], atol=1e-12)


def test_platt_calibration_is_applied_to_the_logit() -> None:
    given = probabilities(np.array([2.0], np.float32), Calibration(kind="platt", a=0.5, b=-1.0))
    assert given.tolist() == [0.5]
