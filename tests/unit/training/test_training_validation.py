"""Scores over one rank; over two they are measured in tests/integration."""

from __future__ import annotations

import pytest
import torch
from training_parts import sample_measures, scored_sample

from sentinode.training.validation import ScoreCollector


def test_padding_and_unlabelled_do_not_count() -> None:
    logits, labels = scored_sample()
    padded = (
        torch.cat([logits, torch.full((5, 2), 9.0)]),
        torch.cat([labels, torch.tensor([0, 0, 1, -1, -1])]),
    )
    mask = torch.arange(42) < 37
    mask[-2:] = True
    ids = torch.arange(42)
    collector = ScoreCollector()
    for part in (slice(0, 20), slice(20, 42)):
        collector.add(padded[0][part], padded[1][part], mask[part], ids[part])
    scores = collector.gather(1)
    assert (scores.loss, *scores.auroc_and_accuracy()) == pytest.approx(sample_measures(), abs=1e-6)
    assert scores.labels_N.tolist() == labels.tolist()


def test_manifest_order_whatever_the_order_of_arrival() -> None:
    collector = ScoreCollector()
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    collector.add(logits, torch.tensor([1, 0, 1]), torch.ones(3, dtype=torch.bool), torch.tensor([2, 0, 1]))
    scores = collector.gather(1)
    assert scores.sample_ids_N.tolist() == [0, 1, 2]
    assert scores.logits_N.tolist() == [2.0, 3.0, 1.0]
    assert scores.labels_N.tolist() == [0, 1, 1]
