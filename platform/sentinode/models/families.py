"""Which networks there are, and how one is built from its configuration.

Every family has a frozen configuration, told apart by its ``family``, and a builder.
"""

from __future__ import annotations

from typing import Annotated, Final, assert_never

from pydantic import Field, TypeAdapter
from torch import nn

from sentinode.models import p4m_densenet, seed_cnn
from sentinode.models.p4m_densenet import P4mDensenetConfig, build_p4m_densenet
from sentinode.models.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessConfig
from sentinode.models.seed_cnn import SeedCNN, SeedCnnConfig
from sentinode.models.timm_backbone import TimmConfig, build_timm, hub_licence
from sentinode.models.valid_cnn import ValidCnnConfig, build_valid_cnn
from sentinode.schema import PATCH_PX

__all__ = [
    "ModelConfig",
    "P4mDensenetConfig",
    "SeedCnnConfig",
    "TimmConfig",
    "ValidCnnConfig",
    "build_model",
    "count_parameters",
    "input_px",
    "model_from_json",
    "start_licence",
    "usual_preprocess",
]

ModelConfig = Annotated[
    SeedCnnConfig | P4mDensenetConfig | ValidCnnConfig | TimmConfig, Field(discriminator="family")
]
"""A network: everything that decides its shape and its first weights."""

_ADAPTER: Final[TypeAdapter[ModelConfig]] = TypeAdapter(ModelConfig)


def model_from_json(text: str | bytes) -> ModelConfig:
    """The configuration whose JSON is ``text``. Raises pydantic's ValidationError where it is none."""
    return _ADAPTER.validate_json(text)


def input_px(config: ModelConfig) -> int:
    """The side, in pixels, of the images that the network of ``config`` takes."""
    match config:
        case SeedCnnConfig():
            return seed_cnn.INPUT_PX
        case P4mDensenetConfig():
            return p4m_densenet.INPUT_PX
        case ValidCnnConfig() | TimmConfig():
            return config.input_px
        case _:
            assert_never(config)


def usual_preprocess(config: ModelConfig) -> PreprocessConfig:
    """The preprocessing that the network of ``config`` was made for.

    valid-cnn sees the centre at full scale, on which PCam's label rests; the others see the whole patch.
    """
    px = input_px(config)
    match config:
        case ValidCnnConfig() if px <= PATCH_PX:
            return PreprocessConfig(input_px=px, fit="crop")
        case TimmConfig() if config.pretrained != "no":
            return PreprocessConfig(input_px=px, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        case _:
            return PreprocessConfig(input_px=px)


def build_model(config: ModelConfig, *, pretrained: bool = True) -> nn.Module:
    """A network to train: float images_BCHW (preprocessed) -> logits_BK [B, 2], classes as in CLASS_NAMES.

    Initial weights follow torch's generator: seed it before for a reproducible start. ``pretrained`` False
    leaves out the weights that the configuration asks to start from, for callers that load trained ones.
    Raises ConfigError where there is no such network or its weights cannot be had.
    """
    match config:
        case SeedCnnConfig():
            return SeedCNN(config.dropout)
        case P4mDensenetConfig():
            return build_p4m_densenet(config)
        case ValidCnnConfig():
            return build_valid_cnn(config)
        case TimmConfig():
            return build_timm(config, pretrained=pretrained)
        case _:
            assert_never(config)


def start_licence(config: ModelConfig) -> str | None:
    """Licence of the weights that training starts from, None for random ones; ``unknown`` where nobody says."""
    if not isinstance(config, TimmConfig) or config.pretrained == "no":
        return None
    return hub_licence(config.name) if config.pretrained == "hub" else "unknown"


def count_parameters(model: nn.Module) -> int:
    """Number of trained weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
