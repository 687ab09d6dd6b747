"""What ``sentinode score`` wrote, as the steps after it read it: records, heat maps, and the rule that sets aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from sentinode.bundle.bundle import read_card
from sentinode.errors import ConfigError, ObjectNotFoundError
from sentinode.evaluation.cells_table import cells_of
from sentinode.evaluation.heat_map import HeatMap
from sentinode.evaluation.slide_model import SlideModel
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, read_slides_table
from sentinode.evaluation.worklist import ScreeningRule
from sentinode.storage import Store, open_parent, open_store

SLIDE_MODEL: Final = "slide_model.json"


def load_scores(store: Store) -> tuple[SlideScore, ...]:
    """The records of all scored slides. Raises ObjectNotFoundError where there are none, EvaluationError."""
    try:
        return read_slides_table(store.get(SLIDES_NAME), store.locate(SLIDES_NAME))
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(
            f"{store.url} holds no {SLIDES_NAME}", "what sentinode score wrote", "score slides first"
        ) from error


def load_slide_model(url: str) -> SlideModel:
    """What ``sentinode screen`` wrote. Raises ObjectNotFoundError, ManifestError."""
    store, key = open_parent(url)
    return SlideModel.from_json(store.get(key), store.locate(key))


def heat_maps(store: Store, scores: tuple[SlideScore, ...]) -> Iterator[tuple[SlideScore, HeatMap]]:
    """The scored slides with their cells, one at a time: a thousand of them would fill the memory.

    Raises EvaluationError where a later scoring has begun to overwrite them, StoreError.
    """
    for score in scores:
        if score.status == "done":
            grid, cell_um = cells_of(store, score)
            rows, columns = np.nonzero(~np.isnan(grid))
            probabilities = grid[rows, columns].astype(np.float64)
            yield score, HeatMap.of(probabilities, np.stack([columns, rows], axis=1), cell_um)


def judged(
    store: Store, scores: tuple[SlideScore, ...], model: SlideModel | None = None
) -> tuple[tuple[SlideScore, ...], dict[str, float]]:
    """The records, with the score that ``model`` gives where there is one, and the highest cell of each slide.

    Raises ConfigError where the model was fitted for another bundle or stride; EvaluationError, StoreError.
    """
    found = {score.slide: score for score in scores}
    highest = {}
    for score, heat_map in heat_maps(store, scores):
        highest[score.slide] = float(heat_map.probabilities_N.max())
        if model is not None:
            model.check_fits(score.bundle, heat_map.cell_um)
            found[score.slide] = score.model_copy(
                update={"score": model.score(heat_map), "pooling": model.pooling.method.value}
            )
    return tuple(found.values()), highest


def slide_rule(model: SlideModel) -> ScreeningRule:
    """The threshold of a slide model."""
    screening = model.screening
    return ScreeningRule(level="slide", threshold=screening.threshold, promise=screening.promise)


def screening_rule(
    scores: tuple[SlideScore, ...], registry: str | None, point: str, threshold: float | None
) -> ScreeningRule:
    """The operating point of the model's card, or a threshold given by hand.

    Raises ConfigError where neither is given, where several models scored the slides, or where the card has no such
    point; BundleError, StoreError.
    """
    if threshold is not None:
        promise = "The threshold was given by hand: nothing is promised of it."
        return ScreeningRule(name="given", threshold=threshold, promise=promise)
    models = {score.bundle for score in scores}
    if registry is None or len(models) != 1:
        found = "no registry" if registry is None else f"slides scored by {len(models)} models"
        raise ConfigError(
            found,
            "a registry and slides scored by one of its bundles",
            "name --registry, or give a --threshold",
        )
    card = read_card(open_store(registry), models.pop())
    chosen = card.operating_point(point)
    if chosen is None:
        raise ConfigError(
            f"bundle {card.name} has no operating point {point!r}",
            f"one of {', '.join(p.name for p in card.operating_points)}",
            "name it with --point, or give a --threshold",
        )
    promise = chosen.guarantee.words if chosen.guarantee else f"No guarantee: {chosen.chosen_by}."
    return ScreeningRule(name=point, threshold=chosen.threshold, promise=promise)
