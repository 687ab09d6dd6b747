"""The training loss: two-class cross-entropy against shares of tumour."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from sentinode.training.config import Recipe

ClassWeights = tuple[float, float]


def class_weights(recipe: Recipe, class_counts: tuple[int, int]) -> ClassWeights:
    """Weights of (negative, tumour) patches in the loss; their mean over an epoch is 1."""
    # Drawn equally often, classes weigh equally already.
    if recipe.train.class_weights == "none" or recipe.shuffle.balanced or min(class_counts) == 0:
        return 1.0, 1.0
    total = sum(class_counts)
    return total / (2 * class_counts[0]), total / (2 * class_counts[1])


def smoothed(labels_B: Tensor, smoothing: float) -> Tensor:
    """Labels (int64 [B], 0 or 1) as shares of tumour, float32 [B], ``smoothing`` of each spread over both classes."""
    return labels_B.float() * (1 - smoothing) + smoothing / 2


def mean_loss(logits_BK: Tensor, targets_B: Tensor, weights: ClassWeights) -> Tensor:
    """Mean negative log-likelihood (nats). Weights are not divided out, so that ranks with equal batches average."""
    log_B2 = functional.log_softmax(logits_BK.float(), dim=1)
    negative_B = weights[0] * (1 - targets_B) * log_B2[:, 0]
    tumour_B = weights[1] * targets_B * log_B2[:, 1]
    return -(negative_B + tumour_B).mean()
