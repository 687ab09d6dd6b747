"""The seed CNN: the small network that the project started from, kept as the baseline to beat."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sentinode.config import Frozen
from sentinode.models.dropout import SampleDropout

INPUT_PX = 46
"""46 -> 44|22 -> 20|10 -> 8|4 -> 2|1: after four unpadded convolutions and poolings one position is left."""

FILTERS = (8, 16, 32, 64)
HIDDEN = 100


class SeedCnnConfig(Frozen):
    """The seed CNN; takes patches resized to 46 pixels."""

    family: Literal["seed-cnn"] = "seed-cnn"
    """The architecture."""
    dropout: float = Field(default=0.25, ge=0.0, lt=1.0)
    """Share of hidden units silenced in training, never in evaluation."""


class SeedCNN(nn.Module):
    """Four unpadded 3x3 convolutions (8-16-32-64), each with ReLU and 2x2 max-pool; 100 hidden units; 2
    logits.

    31,230 parameters. Maps preprocessed float images_BCHW [B, 3, 46, 46] to logits_BK [B, 2]. The logits go
    into a cross-entropy, which is the seed's log-softmax and negative log-likelihood in one.
    """

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for filters in FILTERS:
            # The largest of four is the same before ReLU as after it, and leaves ReLU a quarter of the work.
            layers += [nn.Conv2d(channels, filters, kernel_size=3), nn.MaxPool2d(2), nn.ReLU()]
            channels = filters
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, HIDDEN),
            nn.ReLU(),
            SampleDropout(dropout, HIDDEN),
            nn.Linear(HIDDEN, 2),
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: torch.Tensor = self.classifier(self.features(images_BCHW))
        return logits_BK
