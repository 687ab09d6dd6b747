"""``sentinode evaluate``: a finished run gains predictions, a report and, where asked for, a submission."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentinode.config import Frozen
from sentinode.data.manifest import Manifest, load_manifest
from sentinode.data.pixels import read_pixels
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.inference import predict
from sentinode.evaluation.gallery import gallery_patches, worst_errors
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationConfig, EvaluationReport, SplitResult
from sentinode.evaluation.report import evaluate
from sentinode.evaluation.report_html import render_html
from sentinode.evaluation.submission import submission_csv
from sentinode.experiment import RunRecord, load_detector
from sentinode.logs import ProgressCallback, progress_bars
from sentinode.models.preprocess import Detector
from sentinode.schema import Split
from sentinode.storage import Store, StoreUrl, open_store
from sentinode.training.checkpoint import load_history

log = logging.getLogger(__name__)
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
SUBMISSION = "submission.csv"


class EvaluateCommand(Frozen):
    """Predict all but the train split of a run's data set, choose thresholds on valid, and measure test at them."""

    run: StoreUrl
    """URL of a finished run."""
    data: StoreUrl | None = None
    """URL of the data set; by default the one that the run was trained on, which it must be."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Operating points and intervals."""
    ray_address: str | None = None
    """Cluster to join; by default RAY_ADDRESS, else a local Ray is started."""


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
    with ray_session(config.ray_address), progress_bars() as progress:
        found = evaluate_run(config, progress)
        keep_report(found)
    for line in describe(found.report):
        log.info("%s", line)
    log.info("report: %s", found.store.locate(REPORT_HTML))
    return 0


def evaluate_run(config: EvaluateCommand, progress: ProgressCallback) -> Evaluated:
    """Predict, measure, and keep predictions, ``report.json`` and ``submission.csv`` with the run."""
    record, detector = load_detector(config.run)
    manifest, data = load_manifest(config.data or record.experiment.data)
    record.check_data(manifest)
    store = open_store(config.run)
    predictions: dict[Split, Predictions] = {
        split: _predict(detector, record, manifest, data, split, progress)
        for split in manifest.splits
        if split is not Split.TRAIN
    }
    for split, columns in predictions.items():
        columns.write(store, f"predictions/{split.value}.parquet")
    progress("measure", 0, 1)
    report = evaluate(predictions[Split.VALID], predictions.get(Split.TEST), config.evaluation)
    progress("measure", 1, 1)
    store.put(REPORT_JSON, report.to_json())
    if Split.UNLABELLED in predictions:
        store.put(SUBMISSION, submission_csv(predictions[Split.UNLABELLED]).encode())
    return Evaluated(report, predictions, record, manifest, store, data)


def keep_report(found: Evaluated, steps: Sequence[Mapping[str, str]] = ()) -> str:
    """Render ``report.html``, keep it with the run, and return its text; ``steps`` is a table to show in it."""
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
