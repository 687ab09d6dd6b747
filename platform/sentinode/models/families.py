"""Which networks there are, and how one is built from its configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from sentinode.config import Frozen
from sentinode.models import seed_cnn


class ModelConfig(Frozen):
    """A network: everything that decides its shape."""

    family: Literal["seed-cnn"] = "seed-cnn"
    """The architecture."""
    dropout: float = Field(default=0.25, ge=0.0, lt=1.0)
    """Share of hidden units silenced in training, never in evaluation."""


def input_px(config: ModelConfig) -> int:
    """The side, in pixels, of the images that the network of ``config`` takes."""
    return {"seed-cnn": seed_cnn.INPUT_PX}[config.family]


def build_model(config: ModelConfig) -> nn.Module:
    """An untrained network: float images_BCHW (preprocessed) -> logits_BK [B, 2], classes as in CLASS_NAMES.

    Initial weights follow torch's generator: seed it before for a reproducible start.
    """
    return {"seed-cnn": lambda: seed_cnn.SeedCNN(config.dropout)}[config.family]()


def count_parameters(model: nn.Module) -> int:
    """Number of trained weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
