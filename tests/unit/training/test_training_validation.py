"""Metrics over one and over two ranks."""

from __future__ import annotations

import pytest
import torch
from training_parts import sample_measures, scored_sample

from sentinode.training.validation import ValidMetrics


def test_padding_and_unlabelled_do_not_count() -> None:
    logits, labels = scored_sample()
    padded = (
        torch.cat([logits, torch.full((5, 2), 9.0)]),
        torch.cat([labels, torch.tensor([0, 0, 1, -1, -1])]),
    )
    mask = torch.arange(42) < 37
    mask[-2:] = True
    metrics = ValidMetrics(torch.device("cpu"))
    for part in (slice(0, 20), slice(20, 42)):
        metrics.update(padded[0][part], padded[1][part], mask[part])
    assert metrics.compute() == pytest.approx(sample_measures(), abs=1e-6)
