"""Costs are measured on the graph that is served."""

from __future__ import annotations

from sentinode.models.families import P4mDensenetConfig, SeedCnnConfig, usual_preprocess
from sentinode.search.cost import measure_cost
from sentinode.training.config import Recipe


def test_a_far_larger_network_is_slower() -> None:
    small = measure_cost(Recipe(model=SeedCnnConfig()))
    model = P4mDensenetConfig(stem_width=2, growth=3)
    large = measure_cost(Recipe(model=model, preprocess=usual_preprocess(model)))
    assert small.parameters == 31_230
    assert large.latency_ms > 5 * small.latency_ms > 0
