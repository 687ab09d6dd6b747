"""What is noted of an epoch, and of a run under way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from sentinode.config import Frozen

BestBy = Literal["auroc", "specificity", "loss"]
"""What epochs are compared by, all on the validation split; specificity is that at a sensitivity of 99 %."""


class EpochRecord(Frozen):
    """One line of ``metrics.jsonl``. Figures are over all ranks unless said otherwise."""

    epoch: int
    """From 1."""
    lr: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean loss (nats) over the training steps, with dropout, augmentation, mixing and smoothing."""
    valid_loss: float
    """Mean negative log-likelihood (nats) over the validation split."""
    valid_auroc: float
    valid_accuracy: float
    """At probability 0.5."""
    valid_specificity: float | None = None
    """Highest specificity at a sensitivity of at least 99 %; None in records of former releases."""
    train_s: float
    """Wall time of the training steps."""
    valid_s: float
    patches_per_s: float
    """Training patches a second, all ranks together."""
    wait_fraction: float
    """Share of ``train_s`` that ranks waited for data, mean over ranks."""
    slowest_rank: int
    """The rank that took longest for its own work: waiting for data, augmentation, forward pass."""
    slowest_ratio: float
    """Its time over the mean of all ranks; well above 1, it holds up the others."""
    world_size: int
    """Ranks at the epoch's end."""


def best_epoch(history: Iterable[EpochRecord], by: BestBy) -> EpochRecord | None:
    """The first of the best epochs of ``history``, None where it is empty."""

    def quality(record: EpochRecord) -> float:
        match by:
            case "auroc":
                return record.valid_auroc
            case "specificity":
                return record.valid_specificity or 0.0
            case "loss":
                return -record.valid_loss

    return max(history, key=quality, default=None)


class ProgressRecord(Frozen):
    """``progress.json``: where a run is, written every few seconds for whoever looks on."""

    epoch: int
    """From 1."""
    step: int
    """Optimiser steps done in this epoch."""
    steps: int
    """Optimiser steps of an epoch."""
    epochs: int
    loss: float
    """Mean over this epoch's steps so far."""
    valid_auroc: float | None = Field(default=None)
    """Of the latest finished epoch."""
    patches_per_s: float
    wait_fraction: float
    """Of rank 0."""
    world_size: int
