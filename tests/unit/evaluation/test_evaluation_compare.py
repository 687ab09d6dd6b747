from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from evaluation_parts import make_predictions
from scipy import stats

from sentinode.errors import EvaluationError
from sentinode.evaluation.compare import compare, mcnemar
from sentinode.evaluation.comparison import ComparisonConfig, ComparisonReport
from sentinode.evaluation.predictions import Predictions

QUICK = ComparisonConfig(resamples=200)
A = make_predictions(400, "test", 2, slides=20)


def scored(p: Predictions, logits: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Predictions:
    return dataclasses.replace(
        p, logits=logits, probabilities=1 / (1 + np.exp(-logits)), model_digest="b" * 64
    )


def worse(seed: int = 5, noise: float = 2.0) -> Predictions:
    return scored(A, A.logits + np.random.default_rng(seed).normal(size=len(A)) * noise)


def test_a_clear_difference_is_found_by_every_method() -> None:
    report = compare(A, worse(), QUICK)
    for name in ("auroc", "auroc_delong", "average_precision", "accuracy"):
        found = report.differences[name]
        assert found.difference is not None, name
        assert found.low is not None, name
        assert found.high is not None, name
        assert found.p_value is not None, name
        assert 0 < found.low < found.difference < found.high, name
        assert found.p_value < 0.02, name
    assert report.interval_unit == "slide"
    assert report.mcnemar.only_a_right > report.mcnemar.only_b_right
    assert ComparisonReport.from_json(report.to_json(), "here") == report


def test_sides_may_be_swapped() -> None:
    ab, ba = compare(A, worse(), QUICK), compare(worse(), A, QUICK)
    for name, found in ab.differences.items():
        assert found.difference == pytest.approx(-(ba.differences[name].difference or 0.0), abs=1e-12)
        assert found.low == pytest.approx(-(ba.differences[name].high or 0.0), abs=1e-9)
    assert ab.mcnemar.p_value == ba.mcnemar.p_value


def test_a_model_does_not_differ_from_itself() -> None:
    shuffled = A.select(np.random.default_rng(0).permutation(len(A)))
    report = compare(A, shuffled, QUICK)
    assert {found.difference for found in report.differences.values()} == {0.0}
    assert {found.low for found in report.differences.values()} == {None}
    assert report.mcnemar.p_value == 1.0
    assert report.disagreements == ()


def test_mcnemar_is_the_exact_binomial_test() -> None:
    b = worse()
    found = mcnemar(A, b, 0.5, 0.4)
    right = [(p.probabilities >= t) == (p.labels == 1) for p, t in ((A, 0.5), (b, 0.4))]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (found.only_a_right, found.only_b_right) == (only_a, only_b)
    assert found.p_value == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, abs=1e-12)


def test_disagreements_stand_widest_first() -> None:
    b = worse()
    report = compare(A, b, QUICK)
    gaps = [abs(d.probability_a - d.probability_b) for d in report.disagreements]
    assert gaps == sorted(gaps, reverse=True)
    assert len(gaps) == int(((A.probabilities >= 0.5) != (b.probabilities >= 0.5)).sum())


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(EvaluationError, match="1 labelled patches stand in one"):
        compare(A, A.select(np.arange(1, 400)), QUICK)
    with pytest.raises(EvaluationError, match="label 400 patches differently"):
        compare(A, dataclasses.replace(A, labels=1 - A.labels), QUICK)
    with pytest.raises(EvaluationError, match="both classes"):
        compare(A.select(A.labels == 1), A.select(A.labels == 1), QUICK)


def test_unknown_slides_are_warned_of() -> None:
    report = compare(make_predictions(60, "test"), make_predictions(60, "test"), QUICK)
    assert report.interval_unit == "patch"
    assert "Slides are unknown" in report.warnings[0]
