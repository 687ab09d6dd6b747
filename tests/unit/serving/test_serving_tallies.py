"""The hot path's own counters say what prometheus_client's would say of the same observations."""

from __future__ import annotations

import random

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from sentinode.serving.tallies import CounterTally, HistogramTally

BOUNDS = (0.001, 0.1, 1.0, 2.5)


def lines(registry: CollectorRegistry) -> list[str]:
    """The text that a scraper gets, without the times of creation."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_the_text_is_that_of_prometheus_client() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter = Counter("asked", "Words.", ("path", "status"), registry=theirs)
    histogram = Histogram("seconds", "Words.", ("path",), buckets=BOUNDS, registry=theirs)
    bare = Histogram("size", "Words.", buckets=BOUNDS, registry=theirs)
    count_tally = CounterTally("asked", "Words.", ("path", "status"), ours)
    histogram_tally = HistogramTally("seconds", "Words.", ("path",), BOUNDS, ours)
    bare_tally = HistogramTally("size", "Words.", (), BOUNDS, ours).labels()
    rng = random.Random(3)
    for value in (*BOUNDS, 0.0, 7.0, *(rng.uniform(0, 4) for _ in range(200))):
        path, status = rng.choice("ab"), str(rng.choice((200, 400)))
        counter.labels(path, status).inc(2)
        count_tally.labels(path, status).inc(2)
        histogram.labels(path).observe(value)
        histogram_tally.labels(path).observe(value)
        bare.observe(value)
        bare_tally.observe(value)
    assert lines(ours) == lines(theirs)
    assert any('seconds_bucket{le="+Inf",path=' in line for line in lines(ours))


def test_a_series_is_there_before_it_is_counted() -> None:
    registry = CollectorRegistry()
    CounterTally("asked", "Words.", ("path",), registry).labels("/")
    assert 'asked_total{path="/"} 0.0' in lines(registry)
