"""Two real processes in a group: metrics and weights over ranks. Starting them takes seconds, so not a unit test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing
from training_parts import MemoryData, sample_measures, scored_sample

from sentinode.storage import open_store
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.loop import RankContext, run_training
from sentinode.training.state import TrainingState, load_history
from sentinode.training.validation import ValidMetrics


def plan() -> Recipe:
    return Recipe(train=TrainConfig(epochs=4, batch_size=16, lr=3e-3, precision="fp32"))


def weights(state: TrainingState) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state.net.state_dict().values()])


def _train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = MemoryData(samples=72, rank=rank, world_size=2)
    state = run_training(plan(), data.feeds(), open_store(f"{folder}/run"), RankContext(rank, 2))
    torch.save(weights(state), f"{folder}/weights{rank}")
    distributed.destroy_process_group()


def test_two_train_ranks_agree_and_train_as_one_would(tmp_path: Path) -> None:
    multiprocessing.spawn(_train_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"weights{rank}", weights_only=True) for rank in (0, 1)]
    assert torch.equal(ranks[0], ranks[1])
    two = load_history(open_store(str(tmp_path / "run")))
    no_dropout = [record.valid_loss for record in two]
    assert len(two) == 4
    assert all(0 < loss < 1 for loss in no_dropout)
    one = run_training(
        plan(), MemoryData(samples=72).feeds(), open_store(str(tmp_path / "one")), RankContext()
    )
    # Ranks draw their own dropout, so one rank and two are alike, not equal.
    assert two[-1].valid_loss == pytest.approx(one.history[-1].valid_loss, abs=0.3)


def _measure_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, labels = scored_sample()
    # Rank 1 holds padding only in its second batch, and one sample in its first.
    mine = [slice(0, 30), slice(30, 36)] if rank == 0 else [slice(36, 37), slice(0, 3)]
    metrics = ValidMetrics(torch.device("cpu"))
    for turn, part in enumerate(mine):
        mask = torch.full_like(labels[part], not (rank == 1 and turn == 1), dtype=torch.bool)
        metrics.update(logits[part], labels[part], mask)
    Path(folder, f"rank{rank}").write_text(repr(metrics.compute()))
    distributed.destroy_process_group()


def test_two_ranks_measure_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_measure_rank, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        values = [float(value) for value in (tmp_path / f"rank{rank}").read_text().strip("()").split(",")]
        assert values == pytest.approx(sample_measures(), abs=1e-6)
