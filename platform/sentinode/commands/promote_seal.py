"""From an evaluated run to a sealed bundle: the parts, the card, and the golden patches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from sentinode.bundle.bundle import INT8_NAME
from sentinode.bundle.card import Card, OperatingPoint, Provenance
from sentinode.bundle.golden import Golden
from sentinode.bundle.scores import ScoreReference
from sentinode.bundle.seal import seal
from sentinode.bundle.stain import StainStatistics
from sentinode.commands.evaluate_keep import REPORT_JSON
from sentinode.commands.promote_int8 import int8_words, make_int8
from sentinode.commands.report_facts import facts_of
from sentinode.data.manifest import Manifest, load_manifest
from sentinode.data.pixels import read_pixels, sample_pixels
from sentinode.distributed.inference import model_digest
from sentinode.errors import ConfigError, ObjectNotFoundError
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationReport, SplitResult
from sentinode.evaluation.report_markdown import model_card
from sentinode.experiment import RunRecord, load_detector
from sentinode.models.dense import export_dense_onnx
from sentinode.models.export import export_onnx
from sentinode.models.families import start_licence
from sentinode.schema import Split
from sentinode.storage import Store, open_store
from sentinode.training.checkpoint import WEIGHTS_KEY

GOLDEN_PATCHES = 16
STAIN_PATCHES = 4096
"""Training patches whose stain the card describes."""


def seal_run(
    run: str,
    registry: Store,
    *,
    name: str | None,
    licence: str,
    licence_at_start: str | None = None,
    int8_max_loss: float | None = None,
) -> str:
    """Seal the detector of ``run`` with its evaluation into ``registry``; returns the bundle's digest.

    ``licence_at_start``: of the weights that training started from, where these are not timm's own.
    ``int8_max_loss``: the AUROC that an int8 graph may lose on validation; None makes none. Raises ConfigError where
    the run has not finished, was not evaluated or holds the report of something else, BundleError where the exported
    graph does not reproduce PyTorch's probabilities on the golden patches or int8 loses more.
    """
    store = open_store(run)
    record, detector = load_detector(run)
    report = _report(store, model_digest(detector), record.manifest_digest)
    manifest, data = load_manifest(record.experiment.data)
    record.check_data(manifest)
    valid = Predictions.read(store, f"predictions/{Split.VALID.value}.parquet")
    images_BHWC = _golden_images(valid, manifest, data)
    with torch.inference_mode():
        logits_B = detector(torch.from_numpy(images_BHWC)).numpy()
    golden = Golden.of(images_BHWC, logits_B, report.calibration)
    with tempfile.TemporaryDirectory(prefix="sentinode-seal-") as folder:
        onnx, weights = Path(folder, "model.onnx"), Path(folder, "model.safetensors")
        export_onnx(detector, onnx)
        dense_path = Path(folder, "dense.onnx")
        dense = export_dense_onnx(detector, dense_path)
        store.download(WEIGHTS_KEY, weights)
        int8 = None
        if int8_max_loss is not None:
            int8 = make_int8(onnx, manifest, data, golden, report.calibration, int8_max_loss)
        card = _card(name, licence, record, manifest, report).model_copy(
            update={
                "stain": StainStatistics.of(sample_pixels(manifest, data, Split.TRAIN, STAIN_PATCHES)),
                "scores": _scores(valid, report),
                "dense": dense,
                "int8": int8,
                "start_licence": licence_at_start or start_licence(record.experiment.model),
            }
        )
        return seal(
            registry,
            card,
            onnx_path=onnx,
            safetensors_path=weights,
            golden=golden,
            dense_path=dense_path if dense else None,
            int8_path=onnx.with_name(INT8_NAME) if int8 else None,
            model_card=model_card(report, facts_of(record, manifest, store.url, licence)) + int8_words(int8),
        )


def _report(store: Store, model: str, manifest: str) -> EvaluationReport:
    """The run's own report: thresholds and figures of other weights or other patches must not go on its card."""
    again = f"sentinode evaluate --run {store.url}"
    try:
        report = EvaluationReport.from_json(store.get(REPORT_JSON), store.locate(REPORT_JSON))
    except ObjectNotFoundError as error:
        raise ConfigError(f"the run {store.url} was not evaluated", "a report.json", again) from error
    own = (model, manifest, Split.VALID.value)
    if (report.model_digest, report.manifest_digest, report.valid.split) != own:
        raise ConfigError(
            f"{store.locate(REPORT_JSON)} is of model {report.model_digest[:16]} with thresholds from the "
            f"{report.valid.split} split of {report.manifest_digest[:16]}",
            f"the run's own: model {model[:16]}, the valid split of {manifest[:16]}",
            f"{again} (with --again where its test split was measured before)",
        )
    return report


def _card(
    name: str | None, licence: str, record: RunRecord, manifest: Manifest, report: EvaluationReport
) -> Card:
    experiment = record.experiment
    points = tuple(
        OperatingPoint(
            name=point.name,
            threshold=point.threshold,
            chosen_by=point.chosen_by,
            sensitivity=point.valid_sensitivity,
            specificity=point.valid_specificity,
            guarantee=point.guarantee,
        )
        for point in report.operating_points
    )
    splits = {"valid": report.valid} | ({"test": report.test} if report.test else {})
    return Card(
        name=name or f"{experiment.model.family}-{manifest.dataset}",
        patch_px=manifest.patch_px,
        mpp_um_px=manifest.mpp_um_px,
        preprocess=experiment.preprocess.model_dump(mode="json"),
        operating_points=points,
        default_operating_point=report.config.operating_point,
        calibration=report.calibration,
        test_uses=report.test_uses,
        training=Provenance(
            dataset=manifest.dataset,
            manifest_digest=record.manifest_digest,
            run_name=experiment.name,
            run_url=experiment.run,
            code_commit=record.code_commit,
            versions=record.versions,
        ),
        metrics={name: _figures(result) for name, result in splits.items()},
        licence=licence,
        golden_computed_by=f"PyTorch {torch.__version__} (CPU, float32)",
    )


def _figures(result: SplitResult) -> dict[str, JsonValue]:
    """Measure -> value and interval."""
    rows = result.measures | {
        f"{point}/{name}": estimate
        for point, found in result.points.items()
        for name, estimate in found.measures.items()
    }
    return {name: [e.value, e.low, e.high] for name, e in rows.items()}


def _scores(valid: Predictions, report: EvaluationReport) -> ScoreReference:
    shown = valid.labelled().calibrated(report.calibration)
    return ScoreReference.of(shown.probabilities, shown.labels)


def _golden_images(
    valid: Predictions, manifest: Manifest, data: Store
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Validation patches spread evenly over the range of scores, the lowest and the highest included."""
    order = np.argsort(valid.logits, kind="stable")
    picks = np.unique(np.linspace(0, len(order) - 1, GOLDEN_PATCHES).round().astype(np.int64))
    return read_pixels(manifest, data, Split.VALID, order[picks])
