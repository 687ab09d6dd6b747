"""What the gate measures: its intervals are over slides wherever patches name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serving_parts import sealed_registry

from sentinode.bundle.bundle import Bundle, open_bundle
from sentinode.bundle.gate_facts import DataFacts, GateFacts, GatePolicy, Seen
from sentinode.bundle.gate_measure import measure
from sentinode.evaluation.predictions import Predictions

PATCHES, SLIDES = 2000, 10


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    store, digest, _ = sealed_registry(tmp_path)
    return open_bundle(store, digest, tmp_path / "cache")


def measured(bundle: Bundle, slides: list[str | None]) -> GateFacts:
    """Two models of which one is better on some slides, the other on others."""
    rng = np.random.default_rng(3)
    labels = np.arange(PATCHES) // SLIDES % 2
    old = rng.normal(size=PATCHES) + 2 * labels
    new = old + labels * rng.normal(0, 0.4, SLIDES)[np.arange(PATCHES) % SLIDES]
    both = [
        Predictions.from_logits(
            keys=[str(i) for i in range(PATCHES)],
            logits=logits,
            labels=labels,
            split="valid",
            slides=slides,
            model_digest="m" * 64,
            manifest_digest="d" * 64,
        )
        for logits in (new, old)
    ]
    seen = Seen(dataset="other", manifest_digest="d" * 64, patches=0)
    data = DataFacts(patches=PATCHES, candidate=seen, current=seen, same_validation=True)
    return measure("candidate", (bundle, both[0]), (bundle, both[1]), GatePolicy(), data)


def test_a_patch_without_slide_leaves_the_others_to_their_slides(bundle: Bundle) -> None:
    slides: list[str | None] = [f"s{i % SLIDES}" for i in range(PATCHES)]
    known, unknown = measured(bundle, slides), measured(bundle, [None] * PATCHES)
    for lacking in (0, PATCHES - 1):  # a negative patch, and one of tumour
        partly = measured(bundle, [None if i == lacking else slide for i, slide in enumerate(slides)])
        assert partly.auroc.unit == "slide"
        assert partly.auroc.low == pytest.approx(known.auroc.low, abs=2e-3)
        assert partly.sensitivity[0].found.low == pytest.approx(known.sensitivity[0].found.low, abs=2e-3)
        assert partly.cautions == (f"1 of {PATCHES} patches name no slide and count as a slide each.",)
    assert (known.cautions, unknown.auroc.unit) == ((), "patch")
    assert unknown.cautions[0].startswith("Slides are unknown")
    assert known.auroc.low is not None
    assert unknown.auroc.low is not None
    assert known.auroc.low < unknown.auroc.low - 0.01
    assert known.sensitivity[0].found.low < unknown.sensitivity[0].found.low - 0.005
