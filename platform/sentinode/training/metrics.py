"""What is noted of an epoch."""

from __future__ import annotations

from sentinode.config import Frozen


class EpochRecord(Frozen):
    """One line of ``metrics.jsonl``. Figures are over all ranks unless said otherwise."""

    epoch: int
    """From 1."""
    lr: float
    """Learning rate used in this epoch."""
    train_loss: float
    """Mean negative log-likelihood (nats) over the training steps, with dropout and augmentation."""
    valid_loss: float
    """Mean negative log-likelihood (nats) over the validation split."""
    valid_auroc: float
    valid_accuracy: float
    """At probability 0.5."""
    train_s: float
    """Wall time of the training steps."""
    valid_s: float
    patches_per_s: float
    """Training patches a second, all ranks together."""
    wait_fraction: float
    """Share of ``train_s`` that rank 0 waited for data."""
