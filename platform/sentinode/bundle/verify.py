"""A bundle proved on this machine, before anything uses it: intact, and giving the probabilities it was sealed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sentinode.bundle.bundle import INT8_NAME, Bundle, open_bundle
from sentinode.bundle.golden import Golden, probabilities
from sentinode.bundle.int8 import INT8_TOLERANCE, Int8Facts
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.errors import BundleError
from sentinode.evaluation.calibrator import Calibration
from sentinode.storage import Store


def open_verified(store: Store, digest: str, folder: Path) -> Bundle:
    """``open_bundle``, and the golden patches run through ONNX Runtime here. Raises BundleError naming what differs."""
    bundle = open_bundle(store, digest, folder)
    golden, calibration = bundle.golden, bundle.card.calibration
    model = OnnxModel(bundle.onnx_path)
    logits_B = model.logits(golden.images_BHWC)
    golden.check_reproduced(probabilities(logits_B, calibration), f"ONNX Runtime ({model.providers[0]})")
    if bundle.int8_path is not None and bundle.card.int8 is not None:
        check_int8(OnnxModel(bundle.int8_path), bundle.card.int8, golden, calibration)
    return bundle


def check_int8(model: OnnxModel, facts: Int8Facts, golden: Golden, calibration: Calibration) -> None:
    """Raises BundleError where the int8 graph gives golden probabilities that are further off than ``facts`` say, by
    more than ``INT8_TOLERANCE``.
    """
    difference = golden_difference(model, golden, calibration)
    most = facts.golden_difference + INT8_TOLERANCE
    if not difference <= most:
        raise BundleError(
            f"{INT8_NAME} gives a golden probability that is {difference:.4f} off",
            f"at most {most:.4f}, as when it was sealed and {INT8_TOLERANCE:g}",
            "use the float graph of this bundle here, or seal it anew without int8",
        )


def golden_difference(model: OnnxModel, golden: Golden, calibration: Calibration) -> float:
    """The largest difference between the golden probabilities and those that ``model`` gives; infinite for NaN."""
    given_B = probabilities(model.logits(golden.images_BHWC), calibration)
    difference = np.abs(given_B - golden.probabilities_B)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
