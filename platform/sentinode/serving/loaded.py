"""What is loaded now, and its drift, as metrics. They are read off the catalogue whenever they are asked for.

So nothing has to be registered or forgotten when versions come and go: a bundle that stays with another operating point
goes on being told, and one that was refused never is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sentinode.serving.catalogue import Fleet

_DRIFT: Final = {
    "score_psi": "Population stability index of scores against validation.",
    "stain_distance": "Mean Mahalanobis distance from training's stain.",
    "abstention_rate": "Share of patches without a verdict.",
}


class Loaded(Collector):
    """Gauges of one replica's ``fleet``. Within a model a bundle is one version; two models may share a bundle."""

    def __init__(self, fleet: Fleet, replica: str) -> None:
        self._fleet = fleet
        self._replica = replica

    def collect(self) -> Iterable[Metric]:
        """All series, as Prometheus knows them."""
        info = GaugeMetricFamily(
            "sentinode_bundle_info",
            "A bundle that is loaded; always 1.",
            labels=("bundle", "name", "operating_point", "replica"),
        )
        drift = {
            name: GaugeMetricFamily(
                f"sentinode_drift_{name}",
                f"{words} Of the last thousands of patches.",
                labels=("bundle", "model"),
            )
            for name, words in _DRIFT.items()
        }
        told = set()
        for model in self._fleet.models:
            for version in model.versions:
                card, point = version.bundle.card, version.engine.operating_point
                told.add((version.bundle.digest, card.name, point.name, self._replica))
                for name, family in drift.items():
                    value: float = getattr(version.trust.drift, name)
                    family.add_metric((version.bundle.digest, model.name), value)
        for labels in sorted(told):
            info.add_metric(labels, 1)
        yield from (info, *drift.values())
