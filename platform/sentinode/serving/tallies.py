"""Counters and histograms of the hot path, as Prometheus metrics that cost a fraction of a microsecond to count.

``prometheus_client`` takes a lock and checks its labels at each observation: ten of them cost a request as much as the
rest of its way through the endpoint. These are plain numbers of one thread, made into samples when asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """One time series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Count ``by`` more."""
        self.value += by


class Buckets:
    """The observations of one time series, by upper bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count ``value`` once."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add its samples to ``family``."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = [(name, float(total)) for name, total in zip(names, accumulate(self._counts), strict=True)]
        family.add_metric(labels, buckets, self._sum)


class CounterTally(Collector):
    """A counter ``name`` with ``labels``; for one thread."""

    def __init__(self, name: str, words: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._described = name, words, tuple(labels)
        self._series: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series with these label values, made where it is not there."""
        return self._series.setdefault(values, Count())

    def collect(self) -> Iterable[Metric]:
        """All series, as Prometheus knows them."""
        name, words, labels = self._described
        family = CounterMetricFamily(name, words, labels=labels)
        for values, count in self._series.items():
            family.add_metric(values, count.value)
        yield family


class HistogramTally(Collector):
    """A histogram ``name`` with ``labels`` and upper ``bounds``; for one thread."""

    def __init__(
        self,
        name: str,
        words: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._described = name, words, tuple(labels)
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Buckets] = {}
        registry.register(self)

    def labels(self, *values: str) -> Buckets:
        """The series with these label values, made where it is not there."""
        return self._series.setdefault(values, Buckets(self._bounds))

    def collect(self) -> Iterable[Metric]:
        """All series, as Prometheus knows them."""
        name, words, labels = self._described
        family = HistogramMetricFamily(name, words, labels=labels)
        for values, buckets in self._series.items():
            buckets.add_to(family, values)
        yield family
