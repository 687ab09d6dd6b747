"""The int8 graph of a bundle: made from training patches, measured on validation, refused where it costs too much."""

from __future__ import annotations

from pathlib import Path

from sentinode.bundle.bundle import INT8_NAME
from sentinode.bundle.golden import Golden
from sentinode.bundle.int8 import Int8Facts
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.quantise import CALIBRATION_PATCHES, int8_facts, quantise
from sentinode.bundle.score import score_logits
from sentinode.bundle.verify import golden_difference
from sentinode.data.columns import read_columns
from sentinode.data.manifest import Manifest
from sentinode.data.pixels import sample_pixels
from sentinode.errors import BundleError
from sentinode.evaluation.calibrator import Calibration
from sentinode.evaluation.intervals import units_of
from sentinode.schema import Split
from sentinode.storage import Store


def make_int8(
    onnx_path: Path,
    manifest: Manifest,
    data: Store,
    golden: Golden,
    calibration: Calibration,
    max_loss: float,
) -> Int8Facts:
    """Write ``model.int8.onnx`` beside ``onnx_path`` and measure both graphs on validation.

    Raises BundleError where int8 loses more than ``max_loss`` of AUROC, or the graph cannot be quantised.
    """
    target = onnx_path.with_name(INT8_NAME)
    method = quantise(onnx_path, target, sample_pixels(manifest, data, Split.TRAIN, CALIBRATION_PATCHES))
    models = [OnnxModel(path, threads=2) for path in (onnx_path, target)]
    exact_N, int8_N = score_logits(models, manifest, data, Split.VALID)
    columns = read_columns(manifest, data, Split.VALID)
    rows = columns.labels >= 0
    known = any(slide is not None for slide in columns.slides)
    facts = int8_facts(
        method,
        columns.labels[rows],
        exact_N[rows],
        int8_N[rows],
        units_of(columns.slides)[0][rows] if known else None,
        golden_difference(models[1], golden, calibration),
    )
    if facts.auroc_loss > max_loss:
        raise BundleError(
            f"int8 ({method}) loses {facts.auroc_loss:.4f} of AUROC on validation",
            f"at most {max_loss:g}",
            "seal without --int8, or allow more with --int8-max-loss",
        )
    return facts


def int8_words(facts: Int8Facts | None) -> str:
    """A section of the model card; empty without int8."""
    if facts is None:
        return ""
    low, high = facts.auroc_loss_low, facts.auroc_loss_high
    interval = "" if low is None or high is None else f" (95 % interval {-high:+.4f} to {-low:+.4f})"
    return (
        f"\n## The int8 graph\n\n`{INT8_NAME}` ({facts.method}) has an AUROC of {facts.auroc:.4f} on the "
        f"{facts.patches} labelled validation patches, {-facts.auroc_loss:+.4f}{interval} against the float graph.\n"
    )
