"""Named recipes: plain functions, which can be read, called, changed by ``model_copy`` and tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sentinode.data.augment import AugmentConfig
from sentinode.errors import ConfigError
from sentinode.models.families import (
    ModelConfig,
    P4mDensenetConfig,
    SeedCnnConfig,
    TimmConfig,
    ValidCnnConfig,
    usual_preprocess,
)
from sentinode.models.preprocess import PreprocessConfig
from sentinode.training.config import AveragingConfig, Recipe, TrainConfig

STRONG_AUGMENT: Final = AugmentConfig(shift_px=4, brightness=0.1, contrast=0.2, hed=0.2)
"""For networks that would otherwise learn the stains of their training slides."""


def seed_cnn() -> Recipe:
    """The network that the project started from, as it was meant: augmented, seeded, dropout in training
    only.

    Adam at 3e-4, plateau schedule, the whole patch resized to 46 pixels, weights of the best validation
    AUROC.
    """
    return Recipe(
        model=SeedCnnConfig(),
        preprocess=PreprocessConfig(input_px=46, fit="resize"),
        train=TrainConfig(epochs=20, batch_size=64, optimizer="adam", lr=3e-4, schedule="plateau"),
    )


def p4m_densenet() -> Recipe:
    """The rotation-equivariant DenseNet of Veeling et al. 2018, whose PCam it made known: Adam at 1e-3, batch 64."""
    return _recipe(
        P4mDensenetConfig(),
        TrainConfig(
            epochs=40, batch_size=64, optimizer="adam", lr=1e-3, schedule="plateau", plateau_patience=3
        ),
        AugmentConfig(),
    )


def valid_cnn_small() -> Recipe:
    """Our smallest network for slides: the central 64 pixels at full scale, some minutes on two cores."""
    return _recipe(ValidCnnConfig(), _scratch(epochs=15))


def pcam_small() -> Recipe:
    """What does best on 20,000 patches of PCam, from scratch, on two cores within an hour.

    A symmetric network on the central 80 pixels, strong stain jitter, EMA weights. docs/results.md holds its
    figures and how they vary with the seed.
    """
    model = ValidCnnConfig(input_px=80, widths=(6, 12, 24), blocks=(1, 1, 1), tail_width=48, tail_kernel_px=2)
    return _recipe(model, _scratch(epochs=20))


def resnet18() -> Recipe:
    """ResNet-18 fine-tuned from its ImageNet weights, which come from the hub."""
    return _recipe(
        TimmConfig(name="resnet18.a1_in1k", pretrained="hub"),
        TrainConfig(
            epochs=12,
            optimizer="adamw",
            lr=3e-4,
            weight_decay=0.05,
            schedule="cosine",
            warmup_epochs=1,
            label_smoothing=0.1,
            clip_norm=1.0,
            averaging=AveragingConfig(kind="ema"),
        ),
    )


def linear_probe() -> Recipe:
    """A linear classifier on the frozen features of a self-supervised ViT (DINOv2 small, Apache-2.0).

    A pathology foundation model takes its place by ``--model.name hf-hub:<owner>/<model>``.
    """
    return _recipe(
        TimmConfig(name="vit_small_patch14_dinov2.lvd142m", pretrained="hub", mode="frozen", input_px=224),
        TrainConfig(
            epochs=10, batch_size=256, optimizer="adamw", lr=1e-3, weight_decay=1e-4, schedule="cosine"
        ),
        AugmentConfig(),
    )


def _scratch(epochs: int) -> TrainConfig:
    """For valid-cnn with random first weights."""
    return TrainConfig(
        epochs=epochs,
        batch_size=64,
        optimizer="adamw",
        lr=4e-3,
        adam_beta2=0.99,
        weight_decay=0.05,
        clip_norm=2.0,
        schedule="cosine",
        warmup_epochs=epochs / 10,
        label_smoothing=0.1,
        averaging=AveragingConfig(kind="ema", ema_decay=0.999),
    )


def _recipe(model: ModelConfig, train: TrainConfig, augment: AugmentConfig = STRONG_AUGMENT) -> Recipe:
    return Recipe(model=model, preprocess=usual_preprocess(model), augment=augment, train=train)


RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "seed-cnn": seed_cnn,
    "p4m-densenet": p4m_densenet,
    "valid-cnn-small": valid_cnn_small,
    "pcam-small": pcam_small,
    "resnet18": resnet18,
    "linear-probe": linear_probe,
}


def recipe(name: str) -> Recipe:
    """The recipe called ``name``. Raises ConfigError where there is none."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}", f"one of {', '.join(RECIPES)}")
    return RECIPES[name]()
