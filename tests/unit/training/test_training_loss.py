"""The loss against torch's cross-entropy."""

from __future__ import annotations

import torch
from torch.nn import functional

from sentinode.data.plan import ShuffleConfig
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.loss import class_weights, mean_loss, smoothed

LOGITS = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
LABELS = (torch.arange(40) % 4 == 0).long()


def test_plain_and_smoothed_are_torchs() -> None:
    for smoothing in (0.0, 0.1):
        ours = mean_loss(LOGITS, smoothed(LABELS, smoothing), (1.0, 1.0))
        torch.testing.assert_close(ours, functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


def test_balanced_weights_are_torchs_and_average_to_one() -> None:
    weights = class_weights(Recipe(train=TrainConfig(class_weights="balanced")), (30, 10))
    assert (30 * weights[0] + 10 * weights[1]) / 40 == 1
    ours = mean_loss(LOGITS, smoothed(LABELS, 0.0), weights)
    # torch divides by the sum of the weights, which over the whole split is the number of samples.
    torch.testing.assert_close(ours, functional.cross_entropy(LOGITS, LABELS, weight=torch.tensor(weights)))
    assert class_weights(Recipe(), (30, 10)) == (1.0, 1.0)


def test_classes_that_are_drawn_equally_often_are_not_weighed_again() -> None:
    recipe = Recipe(train=TrainConfig(class_weights="balanced"), shuffle=ShuffleConfig(balanced=True))
    assert class_weights(recipe, (90, 10)) == (1.0, 1.0)
