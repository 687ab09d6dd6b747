from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinode.errors import EvaluationError
from sentinode.evaluation.metrics import RankedScores
from sentinode.evaluation.operating_point import at_sensitivity, youden

LABELS = [0, 0, 0, 1, 0, 1, 1, 1]
SCORES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9]


def test_screening_takes_the_highest_threshold_that_reaches_the_target() -> None:
    point = at_sensitivity(RankedScores.of(LABELS, SCORES).curve(), 0.99, "screening")
    assert point.reachable
    assert (point.valid_sensitivity, point.valid_specificity) == (1.0, 0.75)
    assert point.threshold == pytest.approx(0.25)
    assert "none may be missed" in point.chosen_by


def test_a_lower_target_spares_more() -> None:
    point = at_sensitivity(RankedScores.of(LABELS, SCORES).curve(), 0.75, "sensitivity-75")
    assert (point.valid_sensitivity, point.valid_specificity) == (0.75, 1.0)
    assert point.threshold == pytest.approx(0.5)
    assert point.target_sensitivity == 0.75


def test_balanced_of_equals_takes_the_lower_threshold() -> None:
    # 0.5 (sensitivity 3/4, specificity 1) and 0.25 (1, 3/4) are equally good.
    point = youden(RankedScores.of(LABELS, SCORES).curve())
    assert point.threshold == pytest.approx(0.25)
    assert point.name == "balanced"


@given(st.integers(0, 5000), st.sampled_from([2, 5, 1000]), st.floats(0.3, 1.0))
@settings(max_examples=80)
def test_the_threshold_gives_what_it_promises(seed: int, levels: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 40), [0, 1])
    scores = np.round((rng.random(42) + 0.4 * labels) / 1.4 * levels) / levels
    curve = RankedScores.of(labels, scores).curve()
    for point in (at_sensitivity(curve, target, "mine"), youden(curve)):
        flagged = scores >= point.threshold
        assert flagged[labels == 1].mean() == pytest.approx(point.valid_sensitivity)
        assert (~flagged[labels == 0]).mean() == pytest.approx(point.valid_specificity)
        assert point.reachable == (point.valid_specificity > 0)
    assert at_sensitivity(curve, target, "mine").valid_sensitivity >= target - 1e-9


def test_neighbouring_floats_leave_the_threshold_between_them() -> None:
    lower = 0.5
    upper = float(np.nextafter(lower, 1))
    curve = RankedScores.of([0, 1], [lower, upper]).curve()
    point = at_sensitivity(curve, 1.0, "all")
    assert lower < point.threshold <= upper


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1]])
def test_a_target_that_needs_every_patch_flagged_is_not_reachable(scores: list[float]) -> None:
    curve = RankedScores.of([0, 0, 1, 1], scores).curve()
    for point in (at_sensitivity(curve, 0.99, "screening"), youden(curve)):
        assert not point.reachable
        assert point.threshold == 0.0
        assert "not reachable" in point.chosen_by
        assert (point.valid_sensitivity, point.valid_specificity) == (1.0, 0.0)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_one_class_is_refused(labels: list[int]) -> None:
    curve = RankedScores.of(labels, [0.2, 0.8]).curve()
    with pytest.raises(EvaluationError, match="both classes"):
        youden(curve)
    with pytest.raises(EvaluationError, match="both classes"):
        at_sensitivity(curve, 0.9, "mine")


@pytest.mark.parametrize("target", [0.0, -0.1, 1.01])
def test_an_impossible_target_is_refused(target: float) -> None:
    with pytest.raises(EvaluationError, match="target sensitivity"):
        at_sensitivity(RankedScores.of(LABELS, SCORES).curve(), target, "mine")
