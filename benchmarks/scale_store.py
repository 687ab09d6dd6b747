"""A simulation of a first epoch from S3: nodes with parallel connections, one limit of requests for each prefix.

Every part of every shard is one event. What a request does: wait for the store's answer, then move its bytes at
its connection's pace, which shares the node's network. Above the limit of its prefix the store answers 503, and
the client waits at random, twice as long with each attempt, as ``storage/s3_read.py`` does.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Store:
    """What S3 grants; the figures are AWS's published guidance."""

    gets_per_s: float = 5500.0
    """Of each prefix."""
    prefixes: int = 1
    connection_mb_s: float = 90.0
    """Median pace of one connection."""
    latency_s: float = 0.06
    """Median time to the first byte."""


@dataclass(frozen=True)
class Fleet:
    """Nodes that train on ``samples`` patches of ``sample_bytes`` each, stored in shards."""

    nodes: int = 64
    gpus: int = 8
    """Of a node."""
    gpu_patches_s: float = 5000.0
    network_mb_s: float = 12_500.0
    """Of a node: 100 Gbit/s."""
    connections: int = 32
    """Of a node: eight shards at a time, four parts each."""
    samples: int = 100_000_000
    sample_bytes: int = 30_730
    """As measured in npy shards, headers included."""
    shards: int = 12_000
    part_mb: float = 33.55
    attempts: int = 5
    backoff_s: float = 0.2

    @property
    def set_mb(self) -> float:
        return self.samples * self.sample_bytes / 1e6

    @property
    def demand_mb_s(self) -> float:
        """What the GPUs of a node read."""
        return self.gpus * self.gpu_patches_s * self.sample_bytes / 1e6


@dataclass
class Outcome:
    """Of downloading, for all nodes together."""

    seconds: float = 0.0
    """Until the last part was there."""
    requests: int = 0
    refused: int = 0
    """Answers 503."""
    failed: int = 0
    """Parts given up after the last attempt."""
    node_mb_s: float = 0.0
    """Pace of a node, mean over nodes."""
    peak_gets_s: float = 0.0


@dataclass
class _Bucket:
    """Tokens of one prefix: a second's worth at most."""

    rate: float
    tokens: float
    at: float = 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(order=True)
class _Event:
    at: float
    number: int
    node: int = field(compare=False)
    attempt: int = field(compare=False)


def download(fleet: Fleet, store: Store, node_mb: float, seed: int = 0) -> Outcome:
    """Every node downloads ``node_mb`` megabytes by its connections, all nodes at once."""
    rng = random.Random(seed)
    parts = [max(round(node_mb / fleet.part_mb), 1)] * fleet.nodes
    buckets = [_Bucket(store.gets_per_s, store.gets_per_s) for _ in range(store.prefixes)]
    pace = min(store.connection_mb_s, fleet.network_mb_s / fleet.connections)
    out, events, number = Outcome(), [], 0
    for node in range(fleet.nodes):
        for _ in range(min(fleet.connections, parts[node])):
            heapq.heappush(events, _Event(rng.random() * 0.1, number, node, 0))
            number += 1
            parts[node] -= 1
    second: dict[int, int] = {}
    while events:
        event = heapq.heappop(events)
        now, out.requests = event.at, out.requests + 1
        second[int(now)] = second.get(int(now), 0) + 1
        if buckets[rng.randrange(store.prefixes)].take(now):
            took = store.latency_s * rng.lognormvariate(0, 0.5)
            took += fleet.part_mb / (pace * min(rng.lognormvariate(0, 0.3), fleet.network_mb_s / pace))
            again, attempt = parts[event.node] > 0, 0
            parts[event.node] -= again
            out.seconds = max(out.seconds, now + took)
        else:
            out.refused += 1
            took = 0.03 + rng.uniform(0, fleet.backoff_s * 2**event.attempt)
            again, attempt = True, event.attempt + 1
            if attempt >= fleet.attempts:
                out.failed += 1
                again, attempt = parts[event.node] > 0, 0
                parts[event.node] -= again
        if again:
            heapq.heappush(events, _Event(now + took, number, event.node, attempt))
            number += 1
    out.node_mb_s = node_mb / out.seconds
    out.peak_gets_s = max(second.values())
    return out
