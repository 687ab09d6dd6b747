"""``sentinode models``: the networks there are, what they cost and what they see."""

from __future__ import annotations

import json
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.models.describe import ModelSummary, summarise_model
from sentinode.models.families import (
    ModelConfig,
    P4mDensenetConfig,
    SeedCnnConfig,
    TimmConfig,
    ValidCnnConfig,
    usual_preprocess,
)
from sentinode.models.preprocess import PreprocessConfig
from sentinode.recipes import RECIPES

TIMM_PREFIX = "timm:"
FAMILIES: tuple[ModelConfig, ...] = (SeedCnnConfig(), P4mDensenetConfig(), ValidCnnConfig(), TimmConfig())


class ModelsConfig(Frozen):
    """List networks with their parameters, multiplications for a patch, receptive field and dense scoring."""

    names: Positional[tuple[str, ...]] = ()
    """Recipes, families or timm:<name>; by default all families and recipes."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


FLAGS = ModelsConfig


def run(config: ModelsConfig) -> int:
    """Print the table. Raises ConfigError for a name that is none."""
    known = listed()
    asked = {name: known.get(name) or _timm(name, list(known)) for name in config.names} or known
    summaries = [summarise_model(name, *parts) for name, parts in asked.items()]
    if config.as_json:
        Console().print_json(json.dumps([summary.model_dump(mode="json") for summary in summaries]))
    else:
        Console().print(table(summaries))
    return 0


def listed() -> dict[str, tuple[ModelConfig, PreprocessConfig]]:
    """Network and preprocessing by name: families with their defaults, and recipes, which take precedence."""
    families = {
        f"{TIMM_PREFIX}{model.name}" if isinstance(model, TimmConfig) else model.family: (
            model,
            usual_preprocess(model),
        )
        for model in FAMILIES
    }
    recipes = {name: make() for name, make in RECIPES.items()}
    return families | {name: (recipe.model, recipe.preprocess) for name, recipe in recipes.items()}


def table(summaries: list[ModelSummary]) -> Table:
    """The summaries for a terminal."""
    shown = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption="MMACs: million multiply-adds for a patch. Input: its side in pixels. Field: receptive field of "
        "one position of the last map, in pixels of the patch (support of its gradient), before pooling. Dense: "
        "one pass over a large tile equals patch-by-patch scoring at steps of so many pixels.",
        caption_justify="left",
    )
    shown.add_column("network", overflow="fold", min_width=16)
    shown.add_column("family", no_wrap=True)
    for column in ("parameters", "MMACs", "input", "field", "dense"):
        shown.add_column(column, justify="right", no_wrap=True)
    for summary in summaries:
        frozen = summary.parameters - summary.trained_parameters
        shown.add_row(
            summary.name,
            summary.family,
            f"{summary.parameters:,}" + (f"\n{summary.trained_parameters:,} trained" if frozen else ""),
            f"{summary.macs_per_patch / 1e6:,.1f}",
            str(summary.input_px),
            str(summary.receptive_field_px),
            str(summary.dense_stride_px or "no"),
        )
    return shown


def _timm(name: str, known: list[str]) -> tuple[ModelConfig, PreprocessConfig]:
    if not name.startswith(TIMM_PREFIX):
        raise ConfigError(
            f"there is no network {name!r}",
            f"one of {', '.join(known)}, or {TIMM_PREFIX}<name>",
            "see sentinode models",
        )
    model = TimmConfig(name=name.removeprefix(TIMM_PREFIX))
    return model, usual_preprocess(model)
