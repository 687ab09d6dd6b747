"""Validation over all ranks, every sample counted once: the only module that needs torchmetrics, slow to import."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

IGNORED = -1
"""Label of samples that do not count: padding and unlabelled ones."""


class ValidMetrics:
    """AUROC, accuracy and loss of a split, reduced over ranks by torchmetrics."""

    def __init__(self, device: torch.device) -> None:
        self._auroc = BinaryAUROC(ignore_index=IGNORED).to(device)
        self._accuracy = BinaryAccuracy(ignore_index=IGNORED).to(device)
        self._loss = mean_metric(device)

    def update(self, logits_BK: Tensor, labels_B: Tensor, mask_B: Tensor) -> None:
        """Add a batch: logits float32 [B, 2], labels int64 [B], mask bool [B] (False: padding)."""
        labels_B = torch.where(mask_B, labels_B, IGNORED)
        counted_B = labels_B != IGNORED
        losses_B = functional.cross_entropy(logits_BK[counted_B], labels_B[counted_B], reduction="none")
        # Probabilities of float64: in float32 many confident ones would tie at 1.
        probabilities_B = (logits_BK[:, 1] - logits_BK[:, 0]).double().sigmoid()
        self._loss.update(losses_B)
        self._accuracy.update(probabilities_B, labels_B)
        self._auroc.update(probabilities_B, labels_B)

    def compute(self) -> tuple[float, float, float]:
        """(loss, AUROC, accuracy), the same on every rank. Every rank has to call it (a collective
        operation).
        """
        return float(self._loss.compute()), float(self._auroc.compute()), float(self._accuracy.compute())


def mean_metric(device: torch.device) -> MeanMetric:
    """A mean over samples and ranks that shows a NaN instead of leaving it out. (It ignores weights,
    torchmetrics 1.9.)
    """
    return MeanMetric(nan_strategy="disable").to(device)
