"""Named recipes: plain functions, which can be read, called, changed by ``model_copy`` and tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sentinode.errors import ConfigError
from sentinode.models.families import SeedCnnConfig
from sentinode.models.preprocess import PreprocessConfig
from sentinode.training.config import Recipe, TrainConfig


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


RECIPES: Final[dict[str, Callable[[], Recipe]]] = {"seed-cnn": seed_cnn}


def recipe(name: str) -> Recipe:
    """The recipe called ``name``. Raises ConfigError where there is none."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}", f"one of {', '.join(RECIPES)}")
    return RECIPES[name]()
