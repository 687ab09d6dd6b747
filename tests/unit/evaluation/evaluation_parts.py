"""Made-up predictions for the tests of this room."""

from __future__ import annotations

import hashlib

import numpy as np

from sentinode.evaluation.heat_map import HeatMap
from sentinode.evaluation.predictions import Predictions


def make_predictions(
    patches: int = 400, split: str = "valid", seed: int = 0, slides: int | None = None, shift: float = 1.5
) -> Predictions:
    """Binormal logits, half of the patches tumour; the keys are SHA-1 digests."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(patches) % 2).astype(np.int8)
    names = None if slides is None else [f"{split}_{i % slides:03d}" for i in range(patches)]
    return Predictions.from_logits(
        keys=[hashlib.sha1(f"{split}{seed}-{i}".encode()).hexdigest() for i in range(patches)],
        logits=rng.normal(size=patches).astype(np.float32) + np.float32(shift) * (labels - np.float32(0.5)),
        labels=labels,
        split=split,
        slides=names,
        model_digest="m" * 64,
        manifest_digest="d" * 64,
    )


def warm_slides(count: int, seed: int, cell_um: float) -> tuple[dict[str, HeatMap], dict[str, bool]]:
    """Slides of 8 x 8 cells, and their labels; every second one is tumour and has a warmer corner."""
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2)
    found, labels = {}, {}
    for i in range(count):
        warm = (cells < 3).all(axis=1) & (i % 2 == 1)
        p = 1 / (1 + np.exp(-(rng.normal(-2, 1.5, 64) + 2 * warm)))
        found[f"s{i:04d}"] = HeatMap.of(p, cells, cell_um)
        labels[f"s{i:04d}"] = i % 2 == 1
    return found, labels
