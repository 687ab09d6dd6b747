"""Trials and searches for tests."""

from __future__ import annotations

from typing import Any

from sentinode.search.config import Budget, RetrainConfig, SearchConfig
from sentinode.search.records import Cost, SweepRecord, TrialRecord, TrialState
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.metrics import EpochRecord


def epoch(number: int, auroc: float, specificity: float = 0.1) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        lr=1e-3,
        train_loss=0.5,
        valid_loss=0.5,
        valid_auroc=auroc,
        valid_accuracy=0.5,
        valid_specificity=specificity,
        train_s=1.0,
        valid_s=0.1,
        patches_per_s=100.0,
        wait_fraction=0.0,
        slowest_rank=0,
        slowest_ratio=1.0,
        world_size=1,
    )


def trial(
    number: int,
    *aurocs: float,
    latency_ms: float | None = 1.0,
    state: TrialState = TrialState.FINISHED,
    **more: Any,
) -> TrialRecord:
    """A trial with an epoch for each of ``aurocs``."""
    return TrialRecord(
        number=number,
        run=f"trials/{number:04d}",
        choices=more.pop("choices", {}),
        recipe=more.pop("recipe", Recipe(train=TrainConfig(epochs=4))),
        state=state,
        cost=None if latency_ms is None else Cost(latency_ms=latency_ms, parameters=1000),
        epochs=tuple(epoch(at + 1, auroc) for at, auroc in enumerate(aurocs)),
        **more,
    )


def sweep_record(*trials: TrialRecord, **more: Any) -> SweepRecord:
    settings: dict[str, Any] = {
        "name": "test",
        "data": "/data/test",
        "dataset": "lesson",
        "manifest_digest": "0" * 64,
        "code_commit": "unknown",
        "versions": {},
        "started_at": "2026-01-01T00:00:00+00:00",
        "machine": "test",
        "config": SearchConfig(),
        "budget": Budget(),
        "retrain": RetrainConfig(),
        "workers": 1,
        "trials": trials,
    }
    return SweepRecord(**settings | more)
