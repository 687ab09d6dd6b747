from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from sentinode.errors import EvaluationError
from sentinode.evaluation import intervals, metrics
from sentinode.evaluation.intervals import bootstrap, clopper_pearson, percentile_interval, units_of
from sentinode.evaluation.metrics import FloatArray, IntArray, RankedScores


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 5 (Clopper-Pearson).
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_gives_the_published_intervals(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=5.1e-5)


@pytest.mark.parametrize("trials", [1, 2, 17, 500, 32768])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_clopper_pearson_agrees_with_scipy(trials: int, share: float, level: float) -> None:
    successes = round(trials * share)
    expected = stats.binomtest(successes, trials).proportion_ci(level, "exact")
    assert clopper_pearson(successes, trials, level) == pytest.approx(
        (expected.low, expected.high), abs=1e-10
    )


def test_clopper_pearson_is_mirrored() -> None:
    low, high = clopper_pearson(3, 40)
    assert clopper_pearson(37, 40) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "level"), [(5, 4, 0.95), (-1, 4, 0.95), (0, 0, 0.95), (1, 4, 1.0)]
)
def test_impossible_proportions_are_refused(successes: int, trials: int, level: float) -> None:
    with pytest.raises(EvaluationError):
        clopper_pearson(successes, trials, level)


def test_incomplete_beta_agrees_with_scipy() -> None:
    for a, b in ((0.5, 0.5), (1, 30), (200, 3), (16000, 16000)):
        for x in (0.0, 1e-6, 0.1, 0.497, 0.5, 0.9, 1.0):
            assert intervals.beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), abs=1e-10)


def test_units_keep_slides_together_and_unknown_ones_apart() -> None:
    units, count = units_of(["b", None, "a", "b", None])
    assert count == 4
    assert units[0] == units[3]
    assert len(set(units.tolist())) == 4
    assert sorted(set(units.tolist())) == [0, 1, 2, 3]


def auroc_of(labels: IntArray, scores: FloatArray) -> intervals.Statistic:
    ranked = RankedScores.of(labels, scores)
    return lambda weights: np.array([metrics.auroc(ranked.curve(weights))])


def test_the_seed_alone_decides_whatever_the_threads() -> None:
    rng = np.random.default_rng(0)
    statistic = auroc_of(rng.integers(0, 2, 100), rng.random(100))
    one = bootstrap(statistic, np.arange(100), 100, 600, seed=3, threads=1)
    three = bootstrap(statistic, np.arange(100), 100, 600, seed=3, threads=3)
    np.testing.assert_array_equal(one, three)
    assert one.shape == (600, 1)
    assert not np.array_equal(one, bootstrap(statistic, np.arange(100), 100, 600, seed=4))


def test_each_resample_draws_whole_units_and_as_many_as_there_are() -> None:
    units = np.array([0, 0, 0, 1, 1, 2])
    weights = bootstrap(lambda w: w.astype(np.float64), units, 3, 300, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, [0, 3, 5]].sum(1) == 3).all()
    assert weights[:, 0].std() > 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth, covered, trials = stats.norm.cdf(1 / math.sqrt(2)), 0, 150
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 150)
        statistic = auroc_of(labels, rng.normal(size=150) + labels)
        interval = percentile_interval(
            bootstrap(statistic, np.arange(150), 150, 250, seed, threads=1)[:, 0], 0.9
        )
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    # 90 % nominal; three standard errors of 150 trials are 7 points.
    assert 0.82 <= covered / trials <= 0.97


def test_patches_of_one_slide_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    slide = np.repeat(np.arange(40), 25)
    labels = slide % 2
    scores = labels + rng.normal(size=40)[slide] * 2 + rng.normal(size=1000) * 0.3
    statistic = auroc_of(labels, scores)

    def width(units: IntArray, count: int) -> float:
        found = percentile_interval(bootstrap(statistic, units, count, 400, 0)[:, 0], 0.95)
        assert found is not None
        return found[1] - found[0]

    assert width(slide, 40) > 2 * width(np.arange(1000), 1000)


def test_no_interval_without_width_or_from_too_few_resamples() -> None:
    assert percentile_interval(np.full(100, 0.7), 0.95) is None
    mostly_lost = np.where(np.arange(100) < 20, math.nan, np.linspace(0, 1, 100))
    assert percentile_interval(mostly_lost, 0.95) is None
    few_lost = np.where(np.arange(100) < 3, math.nan, np.linspace(0, 1, 100))
    assert percentile_interval(few_lost, 0.95) == pytest.approx((0.0543, 0.9761), abs=2e-3)
