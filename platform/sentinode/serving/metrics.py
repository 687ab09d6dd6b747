"""What one replica counts, in Prometheus text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from sentinode.bundle.bundle import Bundle
from sentinode.serving.batching import Answer
from sentinode.serving.predictor import Scored
from sentinode.serving.protocol import ABSTAINED
from sentinode.serving.tallies import Buckets, Count, CounterTally, HistogramTally
from sentinode.serving.trust_metrics import TrustMetrics

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORE_BUCKETS = tuple(round(0.1 * i, 1) for i in range(1, 11))
_DIFFERENCE_BUCKETS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_STAGES = ("wait", "decode", "gate", "inference")


class Metrics:
    """Counters and histograms of one replica. What concerns a version carries its digest as ``bundle``."""

    CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        """For counters of other modules as well."""
        self._requests = CounterTally(
            "sentinode_requests", "Answered requests.", ("path", "status"), self.registry
        )
        self._request_seconds = HistogramTally(
            "sentinode_request_seconds",
            "Time from the request's headers to the end of the reply, in the replica.",
            ("path",),
            _LATENCY_BUCKETS_S,
            self.registry,
        )
        stage_seconds = HistogramTally(
            "sentinode_stage_seconds",
            "Time of a prediction by stage: wait for the batch, decode, gate and inference of the batch.",
            ("stage",),
            _LATENCY_BUCKETS_S,
            self.registry,
        )
        self.stage_seconds = {stage: stage_seconds.labels(stage) for stage in _STAGES}
        self.batch_size = HistogramTally(
            "sentinode_batch_size", "Patches in one batch.", (), _BATCH_BUCKETS, self.registry
        ).labels()
        self.waiting = Gauge("sentinode_waiting_patches", "Patches in the queues.", registry=self.registry)
        self._score = HistogramTally(
            "sentinode_score", "Probabilities given.", ("bundle",), _SCORE_BUCKETS, self.registry
        )
        self._verdicts = CounterTally(
            "sentinode_verdicts", "Patches by verdict.", ("bundle", "verdict"), self.registry
        )
        self._shadow_difference = HistogramTally(
            "sentinode_shadow_difference",
            "Absolute difference of a shadow's probability from the one that was answered.",
            ("bundle",),
            _DIFFERENCE_BUCKETS,
            self.registry,
        )
        self._shadow = CounterTally(
            "sentinode_shadow_patches",
            "Patches that a shadow was asked: agreed, disagreed in the verdict, or missed because it was busy. "
            "Those on which both abstained do not count.",
            ("bundle", "outcome"),
            self.registry,
        )
        self.trust = TrustMetrics(self.registry)
        self._by_answer: dict[tuple[str, int], tuple[Count, Buckets]] = {}

    def version(self, bundle: Bundle) -> VersionCounts:
        """The counters of one version."""
        digest = bundle.digest
        verdicts = (*bundle.card.class_names, ABSTAINED)
        return VersionCounts(
            self,
            self._score.labels(digest),
            {verdict: self._verdicts.labels(digest, verdict) for verdict in verdicts},
            self._shadow_difference.labels(digest),
            {o: self._shadow.labels(digest, o) for o in ("agreed", "disagreed", "missed")},
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request is over. ``path`` is of a closed set: clients must not be able to make new time series."""
        counted = self._by_answer.get((path, status))
        if counted is None:
            counted = self._requests.labels(path, str(status)), self._request_seconds.labels(path)
            self._by_answer[path, status] = counted
        counted[0].value += 1
        counted[1].observe(seconds)

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)


class VersionCounts:
    """Counters of one version."""

    def __init__(
        self,
        metrics: Metrics,
        score: Buckets,
        verdicts: dict[str, Count],
        shadow_difference: Buckets,
        shadow: dict[str, Count],
    ) -> None:
        self._metrics = metrics
        self._score = score
        self._verdicts = verdicts
        self._shadow_difference = shadow_difference
        self._shadow = shadow

    def answered(self, answer: Answer[Scored], verdicts: list[str]) -> None:
        """The version answered a request, with these verdicts."""
        scored, stages = answer.result, self._metrics.stage_seconds
        self._metrics.batch_size.observe(answer.batch_size)
        stages["wait"].observe(answer.wait_s)
        stages["decode"].observe(scored.decode_s)
        stages["gate"].observe(scored.gate_s)
        stages["inference"].observe(scored.inference_s)
        for probability, verdict in zip(scored.probabilities, verdicts, strict=True):
            if verdict != ABSTAINED:
                self._score.observe(probability)
            self._verdicts[verdict].inc()

    def compared(self, differences: list[float], agreed: int, disagreed: int) -> None:
        """As a shadow, the version was asked as well; ``differences`` of what both gave a probability."""
        for difference in differences:
            self._shadow_difference.observe(difference)
        self._shadow["disagreed"].inc(disagreed)
        self._shadow["agreed"].inc(agreed)

    def missed(self, patches: int) -> None:
        """As a shadow, the version could not be asked."""
        self._shadow["missed"].inc(patches)
