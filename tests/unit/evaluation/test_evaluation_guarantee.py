from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sentinode.evaluation.guarantee import binomial_cdf, guaranteed_threshold, hoeffding_bentkus_p
from sentinode.evaluation.intervals import clopper_pearson


def test_in_expectation_one_miss_more_must_be_affordable() -> None:
    scores = np.arange(1, 200) / 200  # 199 patches: (misses + 1) / 200 <= 0.02 allows 3.
    threshold, promise = guaranteed_threshold(scores, np.arange(199), 0.98, "expectation", 0.95)
    assert threshold == scores[3]
    assert (promise.kind, promise.unit, promise.units, promise.units_needed) == (
        "expectation", "patch", 199, 49,
    )  # fmt: skip
    assert promise.confidence is None
    assert "exchangeable" in promise.words


def test_with_confidence_the_exact_bound_must_hold() -> None:
    scores = np.arange(1, 1001) / 1001
    threshold, promise = guaranteed_threshold(scores, np.arange(1000), 0.98, "confidence", 0.95)
    assert threshold is not None
    misses = int((scores < threshold).sum())
    # One-sided 95 % is two-sided 90 %.
    assert clopper_pearson(misses, 1000, 0.9)[1] <= 0.02 < clopper_pearson(misses + 1, 1000, 0.9)[1]
    assert promise.confidence == 0.95


def test_with_slides_the_risk_is_the_mean_over_slides() -> None:
    # 9 slides of 1 patch, one of 99 whose patches all score low: missing them is a tenth of the risk, no more.
    scores = np.concatenate([np.linspace(0.8, 0.9, 9), np.linspace(0.1, 0.2, 99)])
    units = np.concatenate([np.arange(9), np.full(99, 9)])
    threshold, promise = guaranteed_threshold(scores, units, 0.8, "expectation", 0.95)
    # (10 R + 1) / 11 <= 0.2: R <= 0.12.
    assert threshold == scores[0]
    assert (promise.unit, promise.units) == ("slide", 10)


@given(st.integers(0, 9999), st.sampled_from(["expectation", "confidence"]), st.sampled_from([30, 400]))
@settings(max_examples=40, deadline=None)
def test_the_threshold_is_the_highest_that_keeps_the_promise(seed: int, kind: str, slides: int) -> None:
    rng = np.random.default_rng(seed)
    units = np.concatenate([np.arange(slides), rng.integers(0, slides, 600)])
    scores = np.round(rng.random(len(units)), 2)
    threshold, promise = guaranteed_threshold(scores, units, 0.8, kind, 0.9)  # type: ignore[arg-type]

    def keeps(at: float) -> bool:
        risk = float(np.mean([(scores[units == u] < at).mean() for u in range(slides)]))
        if kind == "expectation":
            return slides * risk + 1 <= 0.2 * (slides + 1)
        return hoeffding_bentkus_p(risk, slides, 0.2) <= 0.1

    kept = [s for s in np.unique(scores).tolist() if keeps(s)]
    assert threshold == (max(kept) if kept else None)
    assert (promise.kind == "none") == (threshold is None)


@pytest.mark.parametrize(
    ("kind", "sensitivity", "patches", "needed", "word"),
    [
        (
            "expectation",
            0.99,
            98,
            99,
            "the tumour patches of validation number 98, and at least 99 are needed",
        ),
        ("confidence", 0.99, 298, 299, "at least 299 are needed"),
        ("expectation", 1.0, 5000, None, "no number of them"),
        ("none", 0.9, 5000, None, "No guarantee was asked for"),
    ],
)
def test_too_few_units_promise_nothing(
    kind: str, sensitivity: float, patches: int, needed: int | None, word: str
) -> None:
    scores = np.linspace(0.1, 0.9, patches)
    threshold, promise = guaranteed_threshold(scores, np.arange(patches), sensitivity, kind, 0.95)  # type: ignore[arg-type]
    assert threshold is None
    assert (promise.kind, promise.units_needed) == ("none", needed)
    assert word in promise.words
    if needed is not None:
        more = np.linspace(0.1, 0.9, needed)
        assert guaranteed_threshold(more, np.arange(needed), sensitivity, kind, 0.95)[0] == 0.1  # type: ignore[arg-type]


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.001, 0.999))
def test_binomial_agrees_with_scipy(successes: int, trials: int, share: float) -> None:
    expected = stats.binom.cdf(successes, trials, share)
    assert binomial_cdf(successes, trials, share) == pytest.approx(expected, abs=1e-10)


def test_hoeffding_bentkus_is_a_p_value_at_the_worst_binomial() -> None:
    # Bates et al. 2021: P(p <= delta) <= delta whenever the mean risk is alpha.
    n, alpha = 50, 0.1
    counts = np.arange(n + 1)
    chance = stats.binom.pmf(counts, n, alpha)
    p_values = np.array([hoeffding_bentkus_p(k / n, n, alpha) for k in counts])
    for delta in (0.01, 0.05, 0.2):
        assert chance[p_values <= delta].sum() <= delta
    assert (np.diff(p_values) >= 0).all()
    assert hoeffding_bentkus_p(0.2, n, 0.1) == 1.0
