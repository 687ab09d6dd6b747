"""What is counted of trust: refusals, flags, abstentions. Beside the counters of speed in ``metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from sentinode.serving.quality import Flag

_EXPLANATION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REFUSAL_REASONS = ("credential", "scope", "rate", "slow", "host", "memory")


class TrustMetrics:
    """Counters of one replica, in ``registry``; what concerns a version carries its digest as ``bundle``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        refusals = Counter(
            "sentinode_refusals",
            "Requests that the guard refused: no valid credential, not its scope, above its rate, too slow, "
            "sent to another host, no room for the body.",
            ("reason",),
            registry=registry,
        )
        self._refusals = {reason: refusals.labels(reason) for reason in REFUSAL_REASONS}
        self._flags = Counter(
            "sentinode_quality_flags",
            "Patches that the quality gate flagged.",
            ("bundle", "flag"),
            registry=registry,
        )
        self._abstentions = Counter(
            "sentinode_abstentions", "Patches answered without a verdict.", ("bundle",), registry=registry
        )
        self.explanation_seconds = Histogram(
            "sentinode_explanation_seconds",
            "Time of one explanation, its wait included.",
            buckets=_EXPLANATION_BUCKETS_S,
            registry=registry,
        )

    def refused(self, reason: str) -> None:
        """The guard refused a request for one of ``REFUSAL_REASONS``."""
        self._refusals[reason].inc()

    def version(self, digest: str) -> VersionTrust:
        """The counters of one version."""
        flags = {flag: self._flags.labels(digest, flag.value) for flag in Flag}
        return VersionTrust(flags, self._abstentions.labels(digest))


class VersionTrust:
    """Counters of one version."""

    def __init__(self, flags: dict[Flag, Counter], abstentions: Counter) -> None:
        self.flags = flags
        self.abstentions = abstentions
