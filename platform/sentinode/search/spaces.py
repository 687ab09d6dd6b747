"""The search spaces: plain functions, which can be read, called and tested. Your own is one more function."""

from __future__ import annotations

from typing import Final, Literal

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
from sentinode.search.space import Choice, Choices, Space
from sentinode.training.config import AveragingConfig, Recipe, TrainConfig


def two_core(choose: Choices) -> Recipe:
    """Three families small enough for two cores: some seconds to two minutes an epoch of 5,000 patches."""
    family = choose.one_of("family", ("seed-cnn", "p4m-densenet", "valid-cnn"))
    model: ModelConfig
    if family == "seed-cnn":
        model = SeedCnnConfig()
    elif family == "p4m-densenet":
        model = P4mDensenetConfig(
            stem_width=choose.one_of("p4m.stem_width", (1, 2)), growth=choose.one_of("p4m.growth", (1, 2))
        )
    else:
        model = valid_cnn(choose, widths=("2-4-8", "3-6-12", "4-8-16"), crops_px=(56, 64))
    return _recipe(choose, model, epochs=9)


def pcam(choose: Choices) -> Recipe:
    """All families at full size, for one GPU a trial or a part of one."""
    family = choose.one_of("family", ("seed-cnn", "p4m-densenet", "valid-cnn", "timm"))
    model: ModelConfig
    match family:
        case "seed-cnn":
            model = SeedCnnConfig(dropout=choose.number("seed.dropout", 0.0, 0.5))
        case "p4m-densenet":
            model = P4mDensenetConfig(
                stem_width=choose.integer("p4m.stem_width", 4, 12),
                growth=choose.integer("p4m.growth", 4, 16),
                dropout=choose.number("p4m.dropout", 0.0, 0.3),
            )
        case "valid-cnn":
            model = valid_cnn(choose, widths=("4-8-16", "6-12-24", "8-16-32"), crops_px=(56, 64, 80))
        case _:
            model = TimmConfig(
                name=choose.one_of("timm.name", ("resnet18", "resnet34", "convnext_atto", "efficientnet_b0"))
            )
    return _recipe(choose, model, epochs=27)


def rates(choose: Choices) -> Recipe:
    """The seed CNN alone, a grid of learning rates, batch sizes and augmentation: for benchmarks."""
    train = TrainConfig(
        epochs=9,
        batch_size=choose.one_of("batch_size", (32, 128)),
        optimizer="adam",
        lr=choose.one_of("lr", (1e-5, 1e-4, 1e-3, 1e-2)),
        schedule="constant",
        seed=0,
    )
    model = SeedCnnConfig()
    augment = augmentation(choose.one_of("augment", ("light", "strong")))
    return Recipe(model=model, preprocess=usual_preprocess(model), augment=augment, train=train)


def valid_cnn(choose: Choices, widths: tuple[str, ...], crops_px: tuple[int, ...]) -> ValidCnnConfig:
    """valid-cnn by depth, width, kernel, kind of block and crop; ``widths`` are fields of its stages, "4-8-16".

    Without symmetry a field is one channel instead of eight, so there it stands for four. The crop is the nearest
    that the layers divide without remainder.
    """
    equivariant = choose.one_of("valid.equivariant", (True, False))
    fields = tuple(
        int(part) * (1 if equivariant else 4) for part in choose.one_of("valid.widths", widths).split("-")
    )
    depth = choose.one_of("valid.depth", (1, 2))
    return ValidCnnConfig.near(
        input_px=choose.one_of("valid.crop_px", crops_px),
        equivariant=equivariant,
        widths=fields,
        blocks=(depth, depth, 0),
        second_kernel_px=choose.one_of("valid.second_kernel_px", (1, 3)),
        tail_width=32 if equivariant else 128,
        norm=choose.one_of("valid.norm", ("weights", "batch")),
    )


def augmentation(strength: str) -> AugmentConfig:
    """``light`` or ``strong`` changes of stain, light and place."""
    if strength == "light":
        return AugmentConfig()
    return AugmentConfig(shift_px=4, brightness=0.1, contrast=0.2, hed=0.2)


def _recipe(choose: Choices, model: ModelConfig, epochs: int) -> Recipe:
    """The part of a recipe that all families share: optimiser, schedule, augmentation."""
    optimizer: Literal["adamw", "sgd"] = choose.one_of("optimizer", ("adamw", "sgd"))
    # Each optimiser has rates of its own.
    low, high = (5e-4, 8e-3) if optimizer == "adamw" else (5e-3, 8e-2)
    train = TrainConfig(
        epochs=epochs,
        batch_size=64,
        optimizer=optimizer,
        lr=choose.number(f"{optimizer}.lr", low, high, log=True),
        weight_decay=0.05 if optimizer == "adamw" else 5e-4,
        clip_norm=2.0,
        schedule=choose.one_of("schedule", ("cosine", "constant")),
        warmup_epochs=epochs / 10,
        label_smoothing=choose.one_of("label_smoothing", (0.0, 0.1)),
        averaging=AveragingConfig(kind="ema", ema_decay=0.995),
    )
    augment = augmentation(choose.one_of("augment", ("light", "strong")))
    return Recipe(model=model, preprocess=usual_preprocess(model), augment=augment, train=train)


_USUAL: Final[dict[str, Choice]] = {
    "optimizer": "adamw", "adamw.lr": 3e-3, "schedule": "cosine", "label_smoothing": 0.1, "augment": "light",
}  # fmt: skip
_USUAL_VALID: Final[dict[str, Choice]] = {
    "family": "valid-cnn", "valid.equivariant": True, "valid.depth": 1, "valid.crop_px": 64,
    "valid.second_kernel_px": 3, "valid.norm": "weights",
}  # fmt: skip

SPACES: Final[dict[str, Space]] = {
    "two-core": Space(
        "two-core",
        two_core,
        starts=(
            {**_USUAL, "family": "seed-cnn", "adamw.lr": 1e-3},
            {**_USUAL, **_USUAL_VALID, "valid.widths": "4-8-16"},
            {**_USUAL, "family": "p4m-densenet", "p4m.stem_width": 1, "p4m.growth": 2},
        ),
    ),
    "pcam": Space(
        "pcam",
        pcam,
        starts=(
            {**_USUAL, "family": "seed-cnn", "seed.dropout": 0.2, "adamw.lr": 1e-3},
            {**_USUAL, **_USUAL_VALID, "valid.widths": "6-12-24"},
            {**_USUAL, "family": "p4m-densenet", "p4m.stem_width": 8, "p4m.growth": 9, "p4m.dropout": 0.0},
            {**_USUAL, "family": "timm", "timm.name": "resnet18"},
        ),
    ),
    "rates": Space("rates", rates),
}


def space_called(name: str) -> Space:
    """The space called ``name``. Raises ConfigError where there is none."""
    if name not in SPACES:
        raise ConfigError(f"there is no search space {name!r}", f"one of {', '.join(SPACES)}")
    return SPACES[name]
