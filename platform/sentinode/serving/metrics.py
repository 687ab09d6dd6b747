"""What one replica counts, in Prometheus text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from sentinode.bundle.bundle import Bundle

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORE_BUCKETS = tuple(round(0.1 * i, 1) for i in range(1, 11))


class Metrics:
    """Counters and histograms of one replica; ``replica`` is a label, as each process counts for itself."""

    CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, bundle: Bundle, operating_point: str, replica: str) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sentinode_requests", "Answered requests.", ("path", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "sentinode_request_seconds",
            "Time from the request's headers to the end of the reply, in the replica.",
            ("path",),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "sentinode_stage_seconds",
            "Time of a prediction by stage: wait for the batch, decode, inference of the batch.",
            ("stage",),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "sentinode_batch_size", "Requests in one batch.", buckets=_BATCH_BUCKETS, registry=self.registry
        )
        self.score = Histogram(
            "sentinode_score", "Probabilities given.", buckets=_SCORE_BUCKETS, registry=self.registry
        )
        self.verdicts = Counter(
            "sentinode_verdicts", "Predictions by verdict.", ("verdict",), registry=self.registry
        )
        info = Gauge(
            "sentinode_bundle_info",
            "The bundle that is served; always 1.",
            ("bundle", "name", "operating_point", "replica"),
            registry=self.registry,
        )
        info.labels(bundle.digest, bundle.card.name, operating_point, replica).set(1)

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)
