"""Recipes, and configurations that contradict themselves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sentinode.errors import ConfigError
from sentinode.models.preprocess import PreprocessConfig
from sentinode.recipes import RECIPES, recipe
from sentinode.training.config import Recipe, TrainConfig


def test_seed_recipe_is_the_seeds() -> None:
    seed = recipe("seed-cnn")
    assert (seed.train.optimizer, seed.train.lr, seed.train.schedule) == ("adam", 3e-4, "plateau")
    assert (seed.preprocess.fit, seed.preprocess.input_px, seed.model.dropout) == ("resize", 46, 0.25)
    assert seed.train.epochs == 20


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_their_json(name: str) -> None:
    made = recipe(name)
    assert Recipe.model_validate_json(made.canonical_json()) == made


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="seed-cnn"):
        recipe("resnet-9000")


def test_input_size_must_fit_the_network() -> None:
    with pytest.raises(ConfigError, match=r"set preprocess\.input_px to 46"):
        Recipe(preprocess=PreprocessConfig(input_px=64))


def test_early_stop_must_fit_the_epochs() -> None:
    with pytest.raises(ConfigError, match="set early_stop_patience to at most 3"):
        TrainConfig(epochs=3, early_stop_patience=4)


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"plateau_factor": 1.0}, {"lr_": 1}]
)
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(values)
