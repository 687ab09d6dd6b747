"""``sentinode evaluate``: a finished run gains predictions, a report and, where asked for, a submission."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import model_validator

from sentinode.commands.evaluate_keep import REPORT_HTML, keep_texts, measure, places, refuse_early
from sentinode.commands.evaluate_slides import run_slides
from sentinode.commands.predictions_input import read_predictions
from sentinode.commands.report_facts import facts_of, facts_of_file
from sentinode.config import Frozen
from sentinode.data.manifest import Manifest, load_manifest
from sentinode.data.pixels import read_pixels
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.inference import model_digest, predict
from sentinode.errors import ConfigError
from sentinode.evaluation.gallery import gallery_patches, worst_errors
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationConfig, EvaluationReport, SplitResult
from sentinode.evaluation.report_html import render_html
from sentinode.evaluation.scored_slides import ScoredSlidesConfig
from sentinode.evaluation.submission import submission_csv
from sentinode.evaluation.worklist import SCREENING
from sentinode.experiment import RunRecord, load_detector
from sentinode.logs import ProgressCallback, progress_bars
from sentinode.models.preprocess import Detector
from sentinode.schema import Split
from sentinode.storage import Store, StoreUrl, open_store
from sentinode.training.checkpoint import load_history

log = logging.getLogger(__name__)
SUBMISSION = "submission.csv"
_GO_WITH = {
    "run": ("data", "again", "evaluation", "lesion_sizes"),
    "predictions": ("reference", "out", "again", "evaluation", "lesion_sizes"),
    "slides": ("reference", "registry", "point", "slide_model", "slide_evaluation", "out"),
}
"""Settings that each input takes; one that would go unheard is refused."""


class EvaluateCommand(Frozen):
    """Predict all but the train split of a run's data set, choose thresholds on valid, and measure test at them."""

    run: StoreUrl | None = None
    """URL of a finished run."""
    predictions: StoreUrl | None = None
    """In place of a run: a file of predictions, .parquet or .csv (id,probability or id,label as for Kaggle)."""
    slides: StoreUrl | None = None
    """In place of a run: what sentinode score wrote, to be measured against the reference of slides; of other systems
    a folder with slides.csv (slide,score,um_px and class) and detections/<slide>.csv (confidence,x,y)."""
    reference: StoreUrl | None = None
    """Labels for a CSV file without its own: a table id,label, or the URL of a data set. For slides: the folder of
    reference.csv, stage_labels.csv and annotations."""
    registry: StoreUrl | None = None
    """For slides: the registry of the bundle, whose card says which slides are set aside."""
    point: str = SCREENING
    """For slides: the operating point that sets them aside."""
    slide_model: StoreUrl | None = None
    """For slides: what sentinode screen fitted; its score and threshold take the place of the recorded ones."""
    lesion_sizes: StoreUrl | None = None
    """Size of the largest lesion by slide, for strata: a table slide,size, or Camelyon16's reference.csv."""
    out: StoreUrl | None = None
    """For predictions and slides: folder of the report; by default that of the file, or of the scores. A run keeps its
    own."""
    again: bool = False
    """Measure a test split that this model was measured on before. The card counts it."""
    data: StoreUrl | None = None
    """URL of the data set; by default the one that the run was trained on, which it must be."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Operating points and intervals."""
    slide_evaluation: ScoredSlidesConfig = ScoredSlidesConfig()
    """How scored slides are measured."""
    ray_address: str | None = None
    """Cluster to join; by default RAY_ADDRESS, else a local Ray is started."""

    @model_validator(mode="after")
    def _one_input(self) -> EvaluateCommand:
        if [self.run, self.predictions, self.slides].count(None) != 2:
            raise ValueError("give one of run, predictions and slides")
        if self.slides is not None and self.reference is None:
            raise ValueError("slides are measured against a reference: give its folder")
        (source,) = (name for name in _GO_WITH if getattr(self, name) is not None)
        for name, field in EvaluateCommand.model_fields.items():
            if (
                name not in {source, "ray_address", *_GO_WITH[source]}
                and getattr(self, name) != field.default
            ):
                raise ValueError(f"{name} does not go with {source}, only {', '.join(_GO_WITH[source])}")
        return self


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation left: the figures, and each split's predictions."""

    report: EvaluationReport
    predictions: Mapping[Split, Predictions]
    record: RunRecord
    manifest: Manifest
    store: Store
    data: Store


FLAGS = EvaluateCommand


def run(config: EvaluateCommand) -> int:
    """Evaluate, keep everything with the run, and say the headline."""
    if config.slides is not None and config.reference is not None:
        told = (config.registry, config.point, config.slide_evaluation, config.out, config.slide_model)
        return run_slides(config.slides, config.reference, *told)
    if config.predictions is not None:
        report, where = evaluate_file(config, config.predictions)
        for line in describe(report):
            log.info("%s", line)
        log.info("report: %s", where)
        return 0
    with ray_session(config.ray_address), progress_bars() as progress:
        found = evaluate_run(config, progress)
        keep_report(found)
    for line in describe(found.report):
        log.info("%s", line)
    log.info("report: %s", found.store.locate(REPORT_HTML))
    return 0


def evaluate_file(config: EvaluateCommand, url: str) -> tuple[EvaluationReport, str]:
    """Measure a file of predictions and keep report, model card and checklists; returns the report and its page's URL.

    A file with a validation split and one other split is evaluated as a run is; else thresholds come from the
    patches that are measured, and the report warns of it. Raises EvaluationError, ConfigError.
    """
    found = read_predictions(url, config.reference)
    store, counted = places(url, config.out)
    names = sorted(set(found.splits.tolist()) - {Split.TRAIN.value, Split.UNLABELLED.value})
    if len(names) > 2 or (len(names) == 2 and Split.VALID.value not in names):
        raise ConfigError(f"{url} holds the splits {', '.join(names)}", "valid and one other, or one split")
    parts = {name: found.select(found.splits == name) for name in names}
    if not parts:
        raise ConfigError(f"{url} holds no split to measure", "validation or test patches")
    sizes = {name: len(part) for name, part in parts.items()}
    valid = parts.pop(Split.VALID.value) if len(parts) == 2 else parts.popitem()[1]
    test = parts.popitem()[1] if parts else None
    report = measure(config.evaluation, valid, test, store, counted, config.again, config.lesion_sizes)
    facts = facts_of_file(url, config.reference, sizes)
    text = render_html(
        report,
        valid.calibrated(report.calibration),
        None if test is None else test.calibrated(report.calibration),
        title=facts.name,
        reference=facts.reference,
        provenance={"Predictions": url, "Reference": config.reference or "labels of the same file"},
    )
    store.put(REPORT_HTML, text.encode())
    keep_texts(store, report, facts)
    return report, store.locate(REPORT_HTML)


def evaluate_run(config: EvaluateCommand, progress: ProgressCallback) -> Evaluated:
    """Predict, measure, and keep predictions, ``report.json`` and ``submission.csv`` with the run."""
    if config.run is None:
        raise ConfigError("no run was given", "--run URL")
    record, detector = load_detector(config.run)
    manifest, data = load_manifest(config.data or record.experiment.data)
    record.check_data(manifest)
    store = open_store(config.run)
    refuse_early(store, model_digest(detector), record.manifest_digest, config.again)
    predictions: dict[Split, Predictions] = {
        split: _predict(detector, record, manifest, data, split, progress)
        for split in manifest.splits
        if split is not Split.TRAIN
    }
    for split, columns in predictions.items():
        columns.write(store, f"predictions/{split.value}.parquet")
    progress("measure", 0, 1)
    valid, test = predictions[Split.VALID], predictions.get(Split.TEST)
    report = measure(config.evaluation, valid, test, store, store, config.again, config.lesion_sizes)
    progress("measure", 1, 1)
    if Split.UNLABELLED in predictions:
        store.put(SUBMISSION, submission_csv(predictions[Split.UNLABELLED]).encode())
    shown = {split: columns.calibrated(report.calibration) for split, columns in predictions.items()}
    return Evaluated(report, shown, record, manifest, store, data)


def keep_report(found: Evaluated, steps: Sequence[Mapping[str, str]] = ()) -> str:
    """Keep ``report.html``, ``model_card.md`` and ``checklists.md`` with the run; returns the first one's text.

    ``steps`` is a table to show in the report.
    """
    report = found.report
    headline = Split(report.headline.split)
    shown = found.predictions[headline]
    rows = worst_errors(shown, report.verdict_point.threshold)
    pixels = read_pixels(found.manifest, found.data, headline, rows)
    text = render_html(
        report,
        found.predictions[Split.VALID],
        found.predictions.get(Split.TEST),
        title=f"{found.record.experiment.name} on {found.manifest.dataset}",
        reference=f"the reference labels of {found.manifest.dataset}",
        training_history=[line.model_dump() for line in load_history(found.store)],
        gallery=gallery_patches(shown, rows, pixels),
        provenance=provenance(found),
        steps=steps,
    )
    found.store.put(REPORT_HTML, text.encode())
    keep_texts(found.store, report, facts_of(found.record, found.manifest, found.store.url))
    return text


def provenance(found: Evaluated) -> dict[str, str]:
    """Where the figures come from, for the report's last table."""
    record, manifest = found.record, found.manifest
    return {
        "Run": found.store.url,
        "Model": f"{record.experiment.model.family}, weights {found.report.model_digest[:16]}",
        "Data set": f"{manifest.dataset} ({manifest.source}), manifest {record.manifest_digest[:16]}",
        "Splits": "; ".join(
            f"{name.value}: {part.samples}, {part.origin}" for name, part in manifest.splits.items()
        ),
        "Slides": "known" if manifest.slides_known else "unknown",
        "Code": record.code_commit,
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Started": record.started_at,
    }


def describe(report: EvaluationReport) -> list[str]:
    """The headline in plain lines."""
    lines = [report.summary]
    lines += [f"careful: {warning}" for warning in report.warnings]
    return lines


def figure(result: SplitResult, measure: str, point: str | None = None) -> str:
    """A measure with its interval as text: ``0.913 (0.899 to 0.927)``."""
    estimate = result.measures[measure] if point is None else result.points[point].measures[measure]
    if estimate.value is None:
        return "not estimable"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _predict(
    detector: Detector,
    record: RunRecord,
    manifest: Manifest,
    data: Store,
    split: Split,
    progress: ProgressCallback,
) -> Predictions:
    def tell(done: int, total: int) -> None:
        progress(f"predict {split.value}", done, total)

    return predict(detector, record.experiment.model, manifest, data, split, tell)
