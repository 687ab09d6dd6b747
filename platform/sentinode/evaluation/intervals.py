"""How sure are we: percentile bootstrap over slides or patches, and exact intervals for proportions.

The bootstrap draws as many units (slides where they are known, else patches) as there are, with replacement,
and takes quantiles of the measure over the resamples (Efron 1979; for clusters Field and Welsh 2007). It is
not stratified: the number of positives varies between resamples, as it would between samples of patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sentinode.errors import EvaluationError
from sentinode.evaluation.metrics import FloatArray, IntArray

Statistic = Callable[[IntArray], FloatArray]
"""Maps how often each patch counts [N] to M measures [M], NaN where one is not estimable."""

BLOCK_RESAMPLES = 250
"""Resamples of one random stream: results depend on the seed alone, not on the number of threads."""

MAX_LOST = 0.05
"""Share of resamples in which a measure may be not estimable before its interval is refused."""


def units_of(slides: Sequence[str | None]) -> tuple[IntArray, int]:
    """Number the slides: the unit of each patch, int64 [N], and how many units there are.

    A patch without slide is a unit of its own.
    """
    numbers: dict[str, int] = {}
    units = np.empty(len(slides), np.int64)
    alone = 0
    for i, slide in enumerate(slides):
        if slide is None:
            units[i] = -1 - alone
            alone += 1
        else:
            units[i] = numbers.setdefault(slide, len(numbers))
    units[units < 0] = len(numbers) - 1 - units[units < 0]
    return units, len(numbers) + alone


def bootstrap(
    statistic: Statistic, units_N: IntArray, n_units: int, resamples: int, seed: int, threads: int = 2
) -> FloatArray:
    """The statistic over resampled units: float64 [resamples, M].

    ``units_N`` gives each patch its unit, 0 to ``n_units`` - 1; a unit's patches come and go together.
    """
    single = n_units == len(units_N) and bool((units_N == np.arange(n_units)).all())

    def block(task: tuple[int, np.random.SeedSequence]) -> list[FloatArray]:
        count, stream = task
        rng = np.random.default_rng(stream)
        rows = []
        for _ in range(count):
            weights = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)
            rows.append(statistic(weights if single else np.take(weights, units_N)))
        return rows

    counts = [min(BLOCK_RESAMPLES, resamples - done) for done in range(0, resamples, BLOCK_RESAMPLES)]
    tasks = zip(counts, np.random.SeedSequence(seed).spawn(len(counts)), strict=True)
    with ThreadPoolExecutor(threads) as pool:
        return np.array([row for rows in pool.map(block, tasks) for row in rows])


def percentile_interval(replicates_R: FloatArray, level: float) -> tuple[float, float] | None:
    """The central ``level`` of the replicates; None where too many are not estimable, or all agree.

    Replicates that all agree would make an interval of no width, which claims certainty that nobody has.
    """
    found = replicates_R[~np.isnan(replicates_R)]
    if not len(found) or len(found) < (1 - MAX_LOST) * len(replicates_R):
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high)) if low < high else None


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934), for independent trials.

    Raises EvaluationError unless 0 <= successes <= trials, trials > 0 and 0 < level < 1.
    """
    if not (0 <= successes <= trials and trials > 0 and 0 < level < 1):
        raise EvaluationError(
            f"{successes} of {trials} at level {level}", "0 <= successes <= trials, trials > 0, 0 < level < 1"
        )
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, trials - successes + 1)
    high = 1.0 if successes == trials else beta_quantile(1 - tail, successes + 1, trials - successes)
    return low, high


def beta_quantile(p: float, a: float, b: float) -> float:
    """Where the beta distribution's ``beta_cdf`` reaches ``p``, by bisection."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return middle


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 100_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _nonzero(1 + numerator * d, tiny)
            c = _nonzero(1 + numerator / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def _nonzero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
