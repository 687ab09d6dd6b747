"""``sentinode evaluate --slides``: scored slides beside the pathologists' reference."""

from __future__ import annotations

import logging
from typing import Final

from sentinode.cohort.reference import read_reference
from sentinode.commands.slides_input import judged, load_scores, load_slide_model, screening_rule, slide_rule
from sentinode.errors import ConfigError, EvaluationError, ObjectNotFoundError
from sentinode.evaluation.detections import Detections, read_detections
from sentinode.evaluation.scored_slides import ScoredSlidesConfig, ScoredSlidesReport, evaluate_scored
from sentinode.evaluation.scored_slides_html import render_scored_slides
from sentinode.evaluation.slide_model import SlideModel
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore
from sentinode.evaluation.slide_reference import tumour_labels
from sentinode.evaluation.slide_scores_csv import SCORES_CSV, slide_scores_from_csv
from sentinode.storage import Store, open_store

log = logging.getLogger(__name__)

SLIDES_JSON: Final = "slides_report.json"
SLIDES_HTML: Final = "slides_report.html"


def run_slides(
    scores_url: str,
    reference_url: str,
    registry: str | None,
    point: str,
    config: ScoredSlidesConfig,
    out_url: str | None,
    slide_model: str | None = None,
) -> int:
    """Measure, keep the report, and say the headline."""
    report, where = measure_slides(scores_url, reference_url, registry, point, config, out_url, slide_model)
    for line in describe_slides(report):
        log.info("%s", line)
    log.info("report: %s", where)
    return 0


def measure_slides(
    scores_url: str,
    reference_url: str,
    registry: str | None,
    point: str,
    config: ScoredSlidesConfig,
    out_url: str | None = None,
    slide_model: str | None = None,
) -> tuple[ScoredSlidesReport, str]:
    """Measure what ``sentinode score`` wrote and keep ``slides_report.json`` and ``slides_report.html``.

    Scores of other systems come as ``slides.csv`` (see ``slide_scores_from_csv``), with or without detections.
    Without a registry or a slide model nothing is said of screening. Slides that the slide model was fitted on are in
    no figure. Returns the report and its URL. Raises SourceError and EvaluationError for a reference that does not
    fit, ConfigError, StoreError.
    """
    store = open_store(scores_url)
    model = None if slide_model is None else load_slide_model(slide_model)
    theirs = store.stat(SLIDES_NAME) is None and store.stat(SCORES_CSV) is not None
    if theirs and (registry is not None or model is not None):
        raise ConfigError(
            f"{store.locate(SCORES_CSV)} beside a registry or a slide model",
            "scores of sentinode score, which name their bundle",
            "leave both out: nothing is promised of another system's threshold",
        )
    recorded, highest = _of_others(store) if theirs else judged(store, load_scores(store), model)
    scores, note = _not_fitted_on(recorded, model)
    done = [score for score in scores if score.status == "done"]
    reference = read_reference(open_store(reference_url), {s.slide: s.um_px for s in done if s.um_px})
    rule = None if registry is None else screening_rule(scores, registry, point, None)
    if model is not None:
        rule = slide_rule(model)
    report = evaluate_scored(
        scores,
        highest,
        {} if theirs and next(store.list("detections/"), None) is None else _detections(store, done),
        reference.classes,
        reference.lesions,
        reference.stages,
        rule,
        config,
        (*reference.notes, *note),
    )
    known = {s.slide: float(s.score) for s in done if s.score is not None}
    labels = {s: label for s, label in tumour_labels(reference.classes, config.itc).items() if s in known}
    html = render_scored_slides(
        report,
        known,
        labels,
        store.url.rpartition("/")[2],
        {"Scores": scores_url, "Reference": reference_url, "Registry": registry or "not given"}
        | ({"Slide model": slide_model} if slide_model else {}),
    )
    out = store if out_url is None else open_store(out_url)
    out.put(SLIDES_JSON, report.to_json())
    out.put(SLIDES_HTML, html.encode())
    return report, out.locate(SLIDES_HTML)


def _of_others(store: Store) -> tuple[tuple[SlideScore, ...], dict[str, float]]:
    """Scores of another system, of which no cells are known."""
    return slide_scores_from_csv(store.get(SCORES_CSV), store.locate(SCORES_CSV)), {}


def _not_fitted_on(
    scores: tuple[SlideScore, ...], model: SlideModel | None
) -> tuple[tuple[SlideScore, ...], tuple[str, ...]]:
    """The slides that ``model`` does not know, and a note of those that it does. Raises EvaluationError without any."""
    seen = set() if model is None else {*model.fitted_on, *model.chosen_on}
    left = tuple(score for score in scores if score.slide not in seen)
    known = sorted(score.slide for score in scores if score.slide in seen)
    if scores and not left:
        raise EvaluationError(
            f"all {len(known)} scored slides fitted the slide model",
            "slides that it does not know",
            "score other slides, or leave --slide-model out",
        )
    if not known:
        return left, ()
    return left, (f"{len(known)} slides fitted the slide model: left out ({', '.join(known[:5])}).",)


def describe_slides(report: ScoredSlidesReport) -> list[str]:
    """The headline in plain lines."""
    lines = [report.summary]
    lines += [
        f"{row.size.value}: {row.found.count} of {row.found.of} lesions found, at any confidence"
        for row in report.sizes
    ]
    if report.stages is not None:
        lines.append(f"stages of {report.stages.patients} patients: quadratic kappa {report.stages.kappa}")
    return [*lines, *(f"careful: {caution}" for caution in report.cautions)]


def _detections(store: Store, done: list[SlideScore]) -> dict[str, Detections]:
    found = {}
    for score in done:
        key = f"detections/{score.slide}.csv"
        try:
            found[score.slide] = read_detections(store.get(key), store.locate(key))
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError(
                f"{store.locate(key)} does not exist",
                "the detections of a scored slide",
                "score the slide again; an empty file says that nothing was found",
            ) from error
    return found
