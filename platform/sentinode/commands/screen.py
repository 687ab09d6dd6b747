"""``sentinode screen``: scored validation slides choose from which slide score on a slide must be read."""

from __future__ import annotations

import logging
from typing import Final

from tyro.conf import Positional

from sentinode.cohort.reference import read_reference
from sentinode.commands.slides_input import SLIDE_MODEL, heat_maps, load_scores
from sentinode.data.sources.base import slide_columns
from sentinode.data.sources.known import is_official_test
from sentinode.errors import ConfigError, EvaluationError
from sentinode.evaluation.slide_model import ScreeningConfig, SlideModel, fit_slide_model
from sentinode.evaluation.slide_record import SlideScore
from sentinode.evaluation.slide_reference import ItcPolicy, tumour_labels
from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.storage import StoreUrl, open_parent, open_store

log = logging.getLogger(__name__)

_TEST: Final = "test_"
"""How slides begin that test, Camelyon16's and others."""


class ScreenCommand(ScreeningConfig):
    """Choose on validation slides, with a guarantee about slides, which slide scores may be set aside.

    Never on slides that test: their figures would flatter.
    """

    scores: Positional[StoreUrl]
    """URL of the folder of validation slides that sentinode score has written."""
    reference: StoreUrl
    """Folder of reference.csv, stage_labels.csv and annotations."""
    out: StoreUrl | None = None
    """File of the slide model; by default slide_model.json beside the scores."""
    itc: ItcPolicy = "negative"
    """What a slide with isolated tumour cells only counts as."""


FLAGS = ScreenCommand


def run(config: ScreenCommand) -> int:
    """Fit, keep ``slide_model.json``, and say what it promises."""
    model = fit(config)
    out = open_store(config.scores) if config.out is None else None
    store, key = (out, SLIDE_MODEL) if out else open_parent(config.out or "")
    store.put(key, model.to_json())
    for line in describe(model):
        log.info("%s", line)
    log.info("slide model: %s", store.locate(key))
    log.info("%s", RESEARCH_USE_ONLY)
    return 0


def fit(config: ScreenCommand) -> SlideModel:
    """The slide model. Raises EvaluationError, SourceError, ConfigError for slides of several bundles, StoreError."""
    store = open_store(config.scores)
    scores = load_scores(store)
    done = [score for score in scores if score.status == "done"]
    official = [score.slide for score in done if _tests(score.slide)]
    if official:
        raise EvaluationError(
            f"{official[0]} and {len(official) - 1} more are test slides by their name",
            "validation slides",
            "score slides of the training part that no model was trained on, into a folder of their own",
        )
    reference = read_reference(open_store(config.reference), {s.slide: s.um_px for s in done if s.um_px})
    labels = tumour_labels(reference.classes, config.itc)
    wanted = tuple(score for score in done if score.slide in labels)
    bundle = _one_bundle(wanted)
    found = {score.slide: heat_map for score, heat_map in heat_maps(store, wanted)}
    _, _, patients = slide_columns(list(found))
    by_patient = {slide: str(patients[i]) for i, slide in enumerate(found) if patients[i] is not None}
    settings = ScreeningConfig.model_validate(
        {name: getattr(config, name) for name in ScreeningConfig.model_fields}
    )
    return fit_slide_model(found, labels, by_patient, bundle, settings)


def _tests(slide: str) -> bool:
    return is_official_test(slide) or slide.lower().startswith(_TEST)


def describe(model: SlideModel) -> list[str]:
    """What it does and promises."""
    screening = model.screening
    fitted = f", fitted on {len(model.fitted_on)} slides" if model.fitted_on else ""
    return [
        f"slide score: {model.pooling.method.value} of the cells{fitted}",
        f"slides below {screening.threshold:.4g} may be set aside: {screening.promise}",
    ]


def _one_bundle(scores: tuple[SlideScore, ...]) -> str:
    bundles = sorted({score.bundle for score in scores})
    if len(bundles) != 1:
        raise ConfigError(
            f"slides scored by {len(bundles)} bundles" if bundles else "no scored slide with a reference",
            "slides of one bundle, with the pathologists' label of each",
            "score them by one bundle, and give the folder of their labels as --reference",
        )
    return bundles[0]
