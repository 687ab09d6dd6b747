"""``sentinode worklist``: scored slides in the order in which to read them, and those that may be set aside."""

from __future__ import annotations

import io
import logging
from typing import Final

import numpy as np
from PIL import Image
from pydantic import Field
from tyro.conf import Positional

from sentinode.bundle.bundle import read_card
from sentinode.config import Frozen
from sentinode.errors import ConfigError, ObjectNotFoundError
from sentinode.evaluation.cells_table import read_cells
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, read_slides_table
from sentinode.evaluation.worklist import SCREENING, Group, ScreeningRule, Worklist, order_slides
from sentinode.evaluation.worklist_html import render_worklist
from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.storage import Store, StoreUrl, open_store

log = logging.getLogger(__name__)

WORKLIST_CSV: Final = "worklist.csv"
WORKLIST_HTML: Final = "worklist.html"
_PICTURES: Final = 60
_PICTURE_PX: Final = (168, 120)
_SHOWN: Final = 10


class WorklistCommand(Frozen):
    """Order scored slides by what to read first, and name those that an operating point sets aside."""

    scores: Positional[StoreUrl]
    """URL of the folder that sentinode score has written; the worklist is put there as well."""
    registry: StoreUrl | None = None
    """URL of the registry that holds the bundle, whose card has the operating point."""
    point: str = SCREENING
    """Operating point of the card that sets slides aside."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Probability that sets aside what stays below it, in place of a card's operating point."""


FLAGS = WorklistCommand


def run(config: WorklistCommand) -> int:
    """Write ``worklist.csv`` and ``worklist.html`` and say what comes first."""
    store = open_store(config.scores)
    scores = load_scores(store)
    rule = screening_rule(scores, config.registry, config.point, config.threshold)
    worklist = order_slides(scores, highest_cells(store, scores), rule)
    store.put(WORKLIST_CSV, worklist.to_csv())
    title = store.url.rpartition("/")[2]
    store.put(WORKLIST_HTML, render_worklist(worklist, title, _pictures(store, worklist)).encode())
    for line in describe(worklist):
        log.info("%s", line)
    log.info("worklist: %s", store.locate(WORKLIST_HTML))
    log.info("%s", RESEARCH_USE_ONLY)
    return 0


def load_scores(store: Store) -> tuple[SlideScore, ...]:
    """The records of all scored slides. Raises ObjectNotFoundError where there are none, EvaluationError."""
    try:
        return read_slides_table(store.get(SLIDES_NAME), store.locate(SLIDES_NAME))
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(
            f"{store.url} holds no {SLIDES_NAME}", "what sentinode score wrote", "score slides first"
        ) from error


def highest_cells(store: Store, scores: tuple[SlideScore, ...]) -> dict[str, float]:
    """The highest probability of a cell, by slide. Raises EvaluationError, StoreError."""
    found = {}
    for score in scores:
        if score.status == "done":
            key = file_key(score.slide, "cells.parquet")
            grid, _ = read_cells(store.get(key), store.locate(key))
            found[score.slide] = float(np.nanmax(grid))
    return found


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


def describe(worklist: Worklist) -> list[str]:
    """What comes first, and how many may be set aside."""
    lines = [
        f"{entry.rank}. {entry.score.slide}: {entry.group.value}; {entry.why}"
        for entry in worklist.entries[:_SHOWN]
    ]
    counts = ", ".join(f"{len(worklist.of(group))} {group.value}" for group in Group)
    return [
        *lines,
        f"{len(worklist.entries)} slides: {counts}",
        *(f"careful: {c}" for c in worklist.cautions),
    ]


def _pictures(store: Store, worklist: Worklist) -> dict[str, bytes]:
    """Small overviews of the first slides, as JPEG; a missing one is no fault."""
    found = {}
    for entry in worklist.entries[:_PICTURES]:
        try:
            data = store.get(file_key(entry.score.slide, "overview.png"))
        except ObjectNotFoundError:
            continue
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            small = image.convert("RGB")
        small.thumbnail(_PICTURE_PX)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        found[entry.score.slide] = buffer.getvalue()
    return found
