"""Metrics over one and over two ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import distributed, multiprocessing

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


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, labels = sample()
    # Rank 1 holds padding only in its second batch, and one sample in its first.
    mine = [slice(0, 30), slice(30, 36)] if rank == 0 else [slice(36, 37), slice(0, 3)]
    metrics = ValidMetrics(torch.device("cpu"))
    for turn, part in enumerate(mine):
        mask = torch.full_like(labels[part], not (rank == 1 and turn == 1), dtype=torch.bool)
        metrics.update(logits[part], labels[part], mask)
    Path(folder, f"rank{rank}").write_text(repr(metrics.compute()))
    distributed.destroy_process_group()


def test_two_ranks_measure_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        values = [float(value) for value in (tmp_path / f"rank{rank}").read_text().strip("()").split(",")]
        assert values == pytest.approx(expected(), abs=1e-6)
