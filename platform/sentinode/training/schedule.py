"""The learning rate as a function of the settings, the position and the epochs before: no state to save."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sentinode.training.config import TrainConfig

_BETTER_SHARE = 1e-4
"""A validation loss counts as better when it is lower by this share, as in torch's ReduceLROnPlateau."""


def learning_rate(
    config: TrainConfig, step: int, steps_per_epoch: int, valid_losses: Sequence[float]
) -> float:
    """The rate of the optimiser step number ``step`` (from 0, over the whole run).

    ``valid_losses``: of the epochs finished so far, which only the plateau schedule looks at.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    if config.schedule == "plateau":
        return config.lr * config.plateau_factor ** _plateaus(config, valid_losses)
    if config.schedule == "cosine":
        share = (step - warmup_steps) / max(1, config.epochs * steps_per_epoch - warmup_steps)
        return config.lr * (1 + math.cos(math.pi * share)) / 2
    return config.lr


def _plateaus(config: TrainConfig, valid_losses: Sequence[float]) -> int:
    """How often the loss has stalled for more than the patience."""
    best, stalled, plateaus = math.inf, 0, 0
    for loss in valid_losses:
        if loss < best * (1 - _BETTER_SHARE):
            best, stalled = loss, 0
        else:
            stalled += 1
        if stalled > config.plateau_patience:
            stalled, plateaus = 0, plateaus + 1
    return plateaus
