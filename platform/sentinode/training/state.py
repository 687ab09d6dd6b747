"""The state of a run at any step: everything that the rest of it depends on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sentinode.config import Frozen
from sentinode.training.config import Recipe
from sentinode.training.metrics import BestBy, EpochRecord, best_epoch


class PartialEpoch(Frozen):
    """What is known of an epoch under way."""

    steps: int = 0
    """Optimiser steps done."""
    loss_sum: float = 0.0
    """Of the steps' mean losses over all ranks."""
    train_s: float = 0.0
    wait_s: float = 0.0
    """Of rank 0."""


@dataclass
class TrainingState:
    """Weights, their average, optimiser, epochs done, and the position within the next one.

    Learning rate and random numbers are no part of it: they are functions of the position (see
    ``learning_rate`` and ``seed_everything``), so a resumed run draws what the uninterrupted one would have.
    """

    net: nn.Module
    average: nn.Module | None
    optimizer: Optimizer
    history: list[EpochRecord] = field(default_factory=list)
    partial: PartialEpoch = field(default_factory=PartialEpoch)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Of the best epoch."""
    best_by: BestBy = "auroc"

    @property
    def best(self) -> EpochRecord | None:
        """The epoch whose weights are kept, None before the first one ends."""
        return best_epoch(self.history, self.best_by)

    def add(self, record: EpochRecord, scored: nn.Module) -> bool:
        """Note an epoch; keeps a copy of the weights that were ``scored`` where it is the best so far: then True."""
        self.history.append(record)
        self.partial = PartialEpoch()
        if self.best is not record:
            return False
        self.best_weights = {name: value.detach().clone() for name, value in scored.state_dict().items()}
        return True

    def is_over(self, recipe: Recipe) -> bool:
        """Whether all epochs are done, or none got better for ``early_stop_patience`` of them."""
        best, patience = self.best, recipe.train.early_stop_patience
        stalled = best is not None and patience is not None and len(self.history) - best.epoch >= patience
        return stalled or len(self.history) >= recipe.train.epochs


def seed_everything(*parts: int) -> None:
    """Seed torch's generators by ``parts``, e.g. (seed, epoch, step, rank): different parts, unrelated numbers."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    seed = int.from_bytes(digest[:8], "little")
    # Not torch.manual_seed: it formats the stack for each kind of device that is not in use, at every step.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
