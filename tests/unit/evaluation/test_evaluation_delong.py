from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from sentinode.errors import EvaluationError
from sentinode.evaluation.delong import delong, mid_ranks, student_reach, two_sided_p
from sentinode.evaluation.metrics import FloatArray, IntArray


def by_definition(labels: IntArray, columns: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """DeLong 1988, equations (3) to (6): every pair of a positive and a negative, O(m n)."""
    v10, v01 = [], []
    for scores in columns:
        tumour, benign = scores[labels == 1], scores[labels == 0]
        wins = (tumour[:, None] > benign) + 0.5 * (tumour[:, None] == benign)
        v10.append(wins.mean(1))
        v01.append(wins.mean(0))
    covariance = np.cov(v10, ddof=1) / len(v10[0]) + np.cov(v01, ddof=1) / len(v01[0])
    return np.array([v.mean() for v in v10]), np.atleast_2d(covariance)


@given(st.integers(0, 10_000), st.sampled_from([2, 6, 10**6]), st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_fast_delong_is_the_definition(seed: int, levels: int, positives: int, negatives: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [positives, negatives]))
    columns = [np.round((rng.normal(size=len(labels)) + labels) * levels) / levels for _ in range(3)]
    found = delong(labels, columns)
    aurocs, covariance = by_definition(labels, columns)
    np.testing.assert_allclose(found.aurocs_K, aurocs, atol=1e-12)
    np.testing.assert_allclose(found.covariance_KK, covariance, atol=1e-12)
    np.testing.assert_allclose(found.aurocs_K, [roc_auc_score(labels, c) for c in columns], atol=1e-12)


def test_a_case_by_hand() -> None:
    # Positives 3, 1; negatives 2, 0: placements 1, 1/2 and 1/2, 1. Variance 0.125 / 2 twice.
    found = delong([1, 1, 0, 0], [[3.0, 1.0, 2.0, 0.0]])
    assert found.aurocs_K[0] == 0.75
    assert found.covariance_KK[0, 0] == pytest.approx(0.125)


def test_patches_of_one_slide_count_as_one() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 2
    scores = rng.normal(size=60) + labels
    alone = delong(labels, [scores])
    # Each patch four times over, its copies in one slide: as sure as before, to the order of 1 / slides.
    units = np.tile(np.arange(60), 4)
    copied = delong(np.tile(labels, 4), [np.tile(scores, 4)], units)
    assert copied.aurocs_K[0] == pytest.approx(alone.aurocs_K[0])
    assert copied.covariance_KK[0, 0] == pytest.approx(alone.covariance_KK[0, 0])
    blind = delong(np.tile(labels, 4), [np.tile(scores, 4)])
    assert blind.covariance_KK[0, 0] < alone.covariance_KK[0, 0] / 3


@pytest.mark.parametrize("freedom", [1, 2, 7, 29, 500, 100_000])
def test_student_is_scipys(freedom: int) -> None:
    for level in (0.5, 0.95, 0.9995):
        assert student_reach(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)
    for t in (0.01, 1.0, 4.0):
        assert two_sided_p(-3 * t, 3, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9)
    assert student_reach(0.95) == pytest.approx(stats.norm.ppf(0.975))


@pytest.mark.parametrize("slides", [2, 3, 6])
def test_intervals_over_few_slides_hold_what_they_say(slides: int) -> None:
    rng = np.random.default_rng(slides)
    units, labels, differences = np.repeat(np.arange(slides), 60), np.arange(60 * slides) % 2, []
    for _ in range(300):
        old = rng.normal(size=len(units))
        new = (
            old + labels * rng.normal(0, 0.35, slides)[units]
        )  # a slide is easier or harder to the new model
        areas = delong(labels, [new + 2 * labels, old + 2 * labels], units)
        difference, error = areas.difference(0, 1)
        differences.append((difference, student_reach(0.95, areas.freedom) * error))
    found, reach = np.array(differences).T
    assert (np.abs(found - found.mean()) <= reach).mean() >= 0.91, "1.96 errors hold 70 % over two slides"


def test_equal_models_do_not_differ() -> None:
    labels = np.arange(30) % 2
    scores = np.sin(np.arange(30.0)) + labels
    assert delong(labels, [scores, 2 * scores]).difference(0, 1) == (0.0, 0.0)
    assert math.isnan(two_sided_p(0.0, 0.0))
    assert two_sided_p(-1.96, 1.0) == pytest.approx(2 * stats.norm.sf(1.96))


def test_what_cannot_be_estimated_is_nan() -> None:
    one_class = delong([1, 1], [[0.1, 0.2]])
    assert np.isnan(one_class.aurocs_K).all()
    assert one_class.interval(0, 0.95) is None
    lone = delong([1, 0, 0], [[0.5, 0.4, 0.6]])
    assert lone.aurocs_K[0] == 0.5
    assert np.isnan(lone.covariance_KK).all()
    assert math.isnan(lone.difference(0, 0)[1])
    perfect = delong([1, 1, 0, 0], [[4.0, 3.0, 2.0, 1.0]])
    assert perfect.aurocs_K[0] == 1
    assert perfect.interval(0, 0.95) is None
    with pytest.raises(EvaluationError, match="NaN"):
        delong([0, 1], [[math.nan, 1.0]])


def test_intervals_stay_within_bounds() -> None:
    labels = np.repeat([0, 1], 10)
    scores = np.arange(20.0)
    scores[[9, 10]] = scores[[10, 9]]
    interval = delong(labels, [scores]).interval(0, 0.95)
    assert interval is not None
    assert 0.5 < interval[0] < 0.99 < interval[1] < 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_mid_ranks_are_scipys(values: list[int]) -> None:
    np.testing.assert_array_equal(mid_ranks(np.array(values, float)), stats.rankdata(values))


OVARIAN = """\
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1
3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0
3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1
2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0
4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""
"""Albumin, total protein, K-G score and outcome of the patients without gaps of DeLong et al. 1988."""


def test_the_worked_example_of_delong_and_others() -> None:
    """Published in the documentation of SAS/STAT, "Comparing Receiver Operating Characteristic Curves"."""
    albumin, protein, kg, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    found = delong(outcome.astype(int), [albumin, -kg, protein])
    np.testing.assert_allclose(found.aurocs_K, [0.7366, 0.7258, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance_KK)), [0.0927, 0.1028, 0.1000], atol=5e-5)
    assert found.difference(0, 1) == pytest.approx((0.0108, 0.0953), abs=5e-5)
    assert found.difference(2, 1) == pytest.approx((-0.0780, 0.1046), abs=5e-5)
    assert two_sided_p(*found.difference(0, 1)) == pytest.approx(0.9102, abs=5e-5)
    assert two_sided_p(*found.difference(2, 1)) == pytest.approx(0.4561, abs=5e-5)
    contrast = np.array([[1, -1, 0], [0, -1, 1]])
    differences, errors = contrast @ found.aurocs_K, contrast @ found.covariance_KK @ contrast.T
    assert differences @ np.linalg.solve(errors, differences) == pytest.approx(2.5340, abs=5e-5)
