from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from sentinode.errors import EvaluationError
from sentinode.evaluation import metrics
from sentinode.evaluation.calibration import CalibrationSums, reliability
from sentinode.evaluation.metrics import Confusion, RankedScores


def draw(seed: int, n: int, levels: int | None) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Labels of both classes and scores in [0, 1]; with ``levels`` only so many different scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.int8)
    labels[:2] = 0, 1
    scores = np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1)
    return labels, scores if levels is None else np.round(scores * levels) / levels


CASES = [draw(s, n, levels) for s, n in enumerate((2, 3, 50, 3000)) for levels in (None, 1, 7, 100)]


@pytest.mark.parametrize(("labels", "scores"), CASES)
def test_ranking_measures_agree_with_scikit_learn(
    labels: NDArray[np.int8], scores: NDArray[np.float64]
) -> None:
    curve = RankedScores.of(labels, scores).curve()
    assert metrics.auroc(curve) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)
    expected = reference.average_precision_score(labels, scores)
    assert metrics.average_precision(curve) == pytest.approx(expected, abs=1e-12)
    fpr, tpr = curve.roc()
    expected_fpr, expected_tpr, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr, atol=1e-12)
    np.testing.assert_allclose(tpr, expected_tpr, atol=1e-12)
    precision, recall = curve.precision_recall()
    expected_precision, expected_recall, _ = reference.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(precision[::-1], expected_precision[:-1], atol=1e-12)
    np.testing.assert_allclose(recall[::-1], expected_recall[:-1], atol=1e-12)


@pytest.mark.parametrize(("labels", "scores"), CASES[8:])
def test_weights_count_a_patch_as_often_as_drawn(
    labels: NDArray[np.int8], scores: NDArray[np.float64]
) -> None:
    weights = np.random.default_rng(5).integers(0, 4, len(labels))
    curve = RankedScores.of(labels, scores).curve(weights)
    expected = reference.roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.auroc(curve) == pytest.approx(expected, abs=1e-12)
    expected = reference.average_precision_score(labels, scores, sample_weight=weights)
    assert metrics.average_precision(curve) == pytest.approx(expected, abs=1e-12)
    drawn = np.repeat(np.arange(len(labels)), weights)
    again = RankedScores.of(labels[drawn], scores[drawn]).curve()
    found, expected_counts = curve.confusion(0.5), again.confusion(0.5)
    assert found == expected_counts
    assert metrics.specificity_at_sensitivity(curve, 0.95) == metrics.specificity_at_sensitivity(again, 0.95)


@pytest.mark.parametrize(("labels", "scores"), CASES[8:])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.57, 0.8])
def test_threshold_measures_agree_with_scikit_learn(
    labels: NDArray[np.int8], scores: NDArray[np.float64], threshold: float
) -> None:
    verdicts = scores >= threshold
    found = RankedScores.of(labels, scores).curve().confusion(threshold)
    tn, fp, fn, tp = reference.confusion_matrix(labels, verdicts, labels=[0, 1]).ravel()
    assert found == Confusion(tp=tp, fp=fp, tn=tn, fn=fn)
    assert metrics.accuracy(found) == pytest.approx(reference.accuracy_score(labels, verdicts), abs=1e-12)
    expected = reference.balanced_accuracy_score(labels, verdicts)
    assert metrics.balanced_accuracy(found) == pytest.approx(expected, abs=1e-12)
    assert metrics.sensitivity(found) == pytest.approx(reference.recall_score(labels, verdicts), abs=1e-12)
    expected = reference.recall_score(labels, verdicts, pos_label=0)
    assert metrics.specificity(found) == pytest.approx(expected, abs=1e-12)
    if tp + fp and tn + fn:
        assert metrics.ppv(found) == pytest.approx(reference.precision_score(labels, verdicts), abs=1e-12)
        expected = reference.precision_score(labels, verdicts, pos_label=0)
        assert metrics.npv(found) == pytest.approx(expected, abs=1e-12)
        assert metrics.mcc(found) == pytest.approx(reference.matthews_corrcoef(labels, verdicts), abs=1e-9)
    assert metrics.f1(found) == pytest.approx(reference.f1_score(labels, verdicts), abs=1e-12)
    assert metrics.cohens_kappa(found) == pytest.approx(
        reference.cohen_kappa_score(labels, verdicts), abs=1e-12
    )


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 1.0])), min_size=1, max_size=40
    )
)
def test_auroc_is_the_share_of_pairs_ranked_rightly(patches: list[tuple[bool, float]]) -> None:
    positives = [s for label, s in patches if label]
    negatives = [s for label, s in patches if not label]
    value = metrics.auroc(RankedScores.of([int(p[0]) for p in patches], [p[1] for p in patches]).curve())
    if not (positives and negatives):
        assert math.isnan(value)
        return
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert value == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]), st.sampled_from([None, 3, 20]))
@settings(max_examples=60)
def test_specificity_at_sensitivity_is_the_best_that_reaches_it(
    seed: int, target: float, levels: int | None
) -> None:
    labels, scores = draw(seed, 60, levels)
    best = 0.0
    for threshold in np.unique(scores):
        verdicts = scores >= threshold
        if verdicts[labels == 1].mean() >= target - 1e-12:
            best = max(best, float((~verdicts[labels == 0]).mean()))
    curve = RankedScores.of(labels, scores).curve()
    assert metrics.specificity_at_sensitivity(curve, target) == pytest.approx(best, abs=1e-12)


def test_brier_and_calibration_error_agree_with_their_definitions() -> None:
    labels, scores = draw(3, 2000, None)
    weights = np.random.default_rng(1).integers(0, 3, 2000)
    calibration = CalibrationSums.of(labels, scores, bins=15)
    expected = reference.brier_score_loss(labels, scores, sample_weight=weights)
    assert calibration.brier(weights) == pytest.approx(expected, abs=1e-12)
    gap = 0.0
    for b in range(15):
        inside = (scores >= b / 15) & ((scores < (b + 1) / 15) | (b == 14))
        if weights[inside].sum():
            gap += abs((weights * (scores - labels))[inside].sum())
    assert calibration.ece(weights) == pytest.approx(gap / weights.sum(), abs=1e-12)


def test_calibration_error_of_a_worked_example() -> None:
    labels, probabilities = np.array([0, 1, 1, 1], np.int8), np.array([0.1, 0.1, 0.9, 1.0])
    calibration = CalibrationSums.of(labels, probabilities, bins=10)
    table = reliability(labels, probabilities, bins=10)
    assert [(b.patches, b.positive_share) for b in table] == [(2, 0.5), (2, 1.0)]
    assert table[-1].mean_probability == pytest.approx(0.95)
    assert calibration.ece(np.ones(4, np.int64)) == pytest.approx((2 * 0.4 + 2 * 0.05) / 4)


def test_predictive_values_at_a_stated_prevalence() -> None:
    ppv, npv = metrics.predictive_values(0.9, 0.8, 0.1)
    assert ppv == pytest.approx(0.09 / (0.09 + 0.18))
    assert npv == pytest.approx(0.72 / (0.72 + 0.01))


def test_what_cannot_be_estimated_is_nan() -> None:
    one_class = RankedScores.of([1, 1], [0.2, 0.7]).curve()
    assert math.isnan(metrics.auroc(one_class))
    assert math.isnan(metrics.specificity_at_sensitivity(one_class, 0.9))
    assert math.isnan(metrics.average_precision(RankedScores.of([0, 0], [0.2, 0.7]).curve()))
    nothing_flagged = Confusion(tp=0, fp=0, tn=5, fn=5)
    assert math.isnan(metrics.ppv(nothing_flagged))
    assert math.isnan(metrics.mcc(nothing_flagged))
    assert metrics.sensitivity(nothing_flagged) == 0


@pytest.mark.parametrize(
    ("labels", "scores", "word"),
    [
        ([0, 1], [0.1], "one score"),
        ([], [], "no patch"),
        ([0, -1], [0.1, 0.2], "other than 0 and 1"),
        ([0, 1], [0.1, math.nan], "NaN"),
        ([[0, 1]], [[0.1, 0.2]], "one score"),
    ],
)
def test_bad_input_is_refused(labels: list[int], scores: list[float], word: str) -> None:
    with pytest.raises(EvaluationError, match=word):
        RankedScores.of(labels, scores)
