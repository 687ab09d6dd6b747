"""Metrics over one and over two ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from sentinode.training.validation import ValidMetrics


def sample(count: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(5)
    labels = torch.from_numpy(rng.integers(0, 2, count))
    logits = torch.from_numpy(rng.normal(size=(count, 2)).astype(np.float32))
    logits[:, 1] += labels
    return logits, labels


def expected() -> tuple[float, float, float]:
    logits, labels = sample()
    probability = (logits[:, 1] - logits[:, 0]).double().sigmoid().numpy()
    return (
        log_loss(labels, probability),
        roc_auc_score(labels, probability),
        accuracy_score(labels, probability > 0.5),
    )


def test_padding_and_unlabelled_do_not_count() -> None:
    logits, labels = sample()
    padded = (
        torch.cat([logits, torch.full((5, 2), 9.0)]),
        torch.cat([labels, torch.tensor([0, 0, 1, -1, -1])]),
    )
    mask = torch.arange(42) < 37
    mask[-2:] = True
    metrics = ValidMetrics(torch.device("cpu"))
    for part in (slice(0, 20), slice(20, 42)):
        metrics.update(padded[0][part], padded[1][part], mask[part])
    assert metrics.compute() == pytest.approx(expected(), abs=1e-6)
