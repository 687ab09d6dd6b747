"""Validation over all ranks, every sample counted once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import functional

from sentinode.evaluation.metrics import RankedScores, specificity_at_sensitivity

KEPT_SENSITIVITY = 0.99
"""At which a screening reader would work."""


@dataclass(frozen=True)
class ValidScores:
    """The labelled samples of a split in manifest order, the same on every rank."""

    sample_ids_N: Tensor
    """int64 [N]"""
    logits_N: Tensor
    """float32 [N], of tumour."""
    labels_N: Tensor
    """int64 [N], 0 or 1."""

    @property
    def probabilities(self) -> Tensor:
        """float64 [N]: in float32 many confident ones would tie at 1."""
        return self.logits_N.double().sigmoid()

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood (nats)."""
        signs_N = 1 - 2 * self.labels_N
        return float(functional.softplus(self.logits_N.double() * signs_N).mean())

    @property
    def specificity(self) -> float:
        """The highest specificity at a sensitivity of at least 99 %."""
        curve = RankedScores.of(self.labels_N.numpy(), self.probabilities.numpy()).curve()
        return specificity_at_sensitivity(curve, KEPT_SENSITIVITY)

    def auroc_and_accuracy(self) -> tuple[float, float]:
        """AUROC, and accuracy at probability 0.5."""
        # torchmetrics takes seconds to import, and one rank alone needs it.
        from torchmetrics.functional.classification import binary_accuracy, binary_auroc

        found = (measure(self.probabilities, self.labels_N) for measure in (binary_auroc, binary_accuracy))
        auroc, accuracy = map(float, found)
        return auroc, accuracy


class ScoreCollector:
    """Gathers a split's scores, batch by batch on each rank, then over ranks."""

    def __init__(self) -> None:
        self._columns: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits_BK: Tensor, labels_B: Tensor, mask_B: Tensor, sample_ids_B: Tensor) -> None:
        """Take in a batch: logits float [B, 2], labels int64 [B] (-1 unlabelled), mask bool [B] (False: padding)."""
        logits_B = (logits_BK[:, 1] - logits_BK[:, 0]).float()
        labels_B = torch.where(mask_B, labels_B, -1)
        self._columns.append((sample_ids_B.clone(), logits_B, labels_B))

    def gather(self, world_size: int) -> ValidScores:
        """All ranks' scores, in manifest order. Every rank has to call it, having had equally many batches."""
        ids_N, logits_N, labels_N = (
            _of_all_ranks(torch.cat(column), world_size).cpu() for column in zip(*self._columns, strict=True)
        )
        place = torch.argsort(ids_N[labels_N >= 0])
        ids_N, logits_N, labels_N = (values[labels_N >= 0][place] for values in (ids_N, logits_N, labels_N))
        return ValidScores(ids_N, logits_N, labels_N)


def _of_all_ranks(values: Tensor, world_size: int) -> Tensor:
    if world_size == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world_size)]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)
