"""``sentinode worklist``: scored slides in the order in which to read them, and those that may be set aside."""

from __future__ import annotations

import io
import logging
from typing import Final

from PIL import Image
from pydantic import Field, model_validator
from tyro.conf import Positional

from sentinode.commands.slides_input import judged, load_scores, load_slide_model, screening_rule, slide_rule
from sentinode.config import Frozen
from sentinode.errors import ObjectNotFoundError
from sentinode.evaluation.slide_record import file_key
from sentinode.evaluation.worklist import SCREENING, Group, Worklist, order_slides
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
    slide_model: StoreUrl | None = None
    """URL of what sentinode screen fitted on validation slides: its slide score orders, and its threshold, which
    promises something of slides, sets aside."""

    @model_validator(mode="after")
    def _one_threshold(self) -> WorklistCommand:
        if self.slide_model is not None and self.threshold is not None:
            raise ValueError("a slide model has a threshold of its own: leave one of the two out")
        return self


FLAGS = WorklistCommand


def run(config: WorklistCommand) -> int:
    """Write ``worklist.csv`` and ``worklist.html`` and say what comes first."""
    store = open_store(config.scores)
    recorded = load_scores(store)
    model = None if config.slide_model is None else load_slide_model(config.slide_model)
    if model is None:
        rule = screening_rule(recorded, config.registry, config.point, config.threshold)
    else:
        rule = slide_rule(model)
    scores, highest = judged(store, recorded, model)
    worklist = order_slides(scores, highest, rule)
    store.put(WORKLIST_CSV, worklist.to_csv())
    title = store.url.rpartition("/")[2]
    store.put(WORKLIST_HTML, render_worklist(worklist, title, _pictures(store, worklist)).encode())
    for line in describe(worklist):
        log.info("%s", line)
    log.info("worklist: %s", store.locate(WORKLIST_HTML))
    log.info("%s", RESEARCH_USE_ONLY)
    return 0


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
