"""A bundle proved on this machine, before anything uses it: intact, and giving the probabilities it was sealed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sentinode.bundle.bundle import Bundle, open_bundle
from sentinode.bundle.golden import probabilities
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.storage import Store


def open_verified(store: Store, digest: str, folder: Path) -> Bundle:
    """``open_bundle``, and the golden patches run through ONNX Runtime here. Raises BundleError naming what differs."""
    bundle = open_bundle(store, digest, folder)
    model = OnnxModel(bundle.onnx_path)
    logits_B = model.logits(bundle.golden.images_BHWC)
    bundle.golden.check_reproduced(
        probabilities(logits_B, bundle.card.calibration), f"ONNX Runtime ({model.providers[0]})"
    )
    return bundle


def golden_difference(bundle: Bundle, model: OnnxModel) -> float:
    """The largest difference between the golden probabilities and those that ``model`` gives; infinite for NaN."""
    given_B = probabilities(model.logits(bundle.golden.images_BHWC), bundle.card.calibration)
    difference = np.abs(given_B - bundle.golden.probabilities_B)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
