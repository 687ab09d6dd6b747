"""What is counted of trust: refusals, flags, abstentions, drift. Beside the counters of speed in ``metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sentinode.serving.drift import DriftWindow
from sentinode.serving.quality import Flag

_EXPLANATION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REFUSAL_REASONS = ("credential", "scope", "rate", "slow")


class TrustMetrics:
    """Counters of one replica and the gauges of ``drift``, in ``registry``."""

    def __init__(self, registry: CollectorRegistry, drift: DriftWindow) -> None:
        refusals = Counter(
            "sentinode_refusals",
            "Requests that the guard refused: no valid credential, not its scope, above its rate, too slow.",
            ("reason",),
            registry=registry,
        )
        self._refusals = {reason: refusals.labels(reason) for reason in REFUSAL_REASONS}
        flags = Counter(
            "sentinode_quality_flags", "Patches that the quality gate flagged.", ("flag",), registry=registry
        )
        self.flags = {flag: flags.labels(flag.value) for flag in Flag}
        self.abstentions = Counter(
            "sentinode_abstentions", "Patches answered without a verdict.", registry=registry
        )
        self.explanation_seconds = Histogram(
            "sentinode_explanation_seconds",
            "Time of one explanation, its wait included.",
            buckets=_EXPLANATION_BUCKETS_S,
            registry=registry,
        )
        for name, words, read in (
            (
                "score_psi",
                "Population stability index of scores against validation.",
                lambda: drift.score_psi,
            ),
            (
                "stain_distance",
                "Mean Mahalanobis distance from training's stain.",
                lambda: drift.stain_distance,
            ),
            ("abstention_rate", "Share of patches without a verdict.", lambda: drift.abstention_rate),
        ):
            gauge = Gauge(
                f"sentinode_drift_{name}", f"{words} Of the last thousands of patches.", registry=registry
            )
            gauge.set_function(read)

    def refused(self, reason: str) -> None:
        """The guard refused a request for one of ``REFUSAL_REASONS``."""
        self._refusals[reason].inc()
