"""The worst errors: which patches they are, and their pixels as images inside the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sentinode.errors import EvaluationError
from sentinode.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class GalleryPatch:
    """A patch to show: uint8 RGB ``pixels_HWC`` with what was said of it."""

    key: str
    label: int
    probability: float
    pixels_HWC: NDArray[np.uint8]
    slide: str | None = None

    def data_uri(self) -> str:
        """The pixels as a lossless PNG in a ``data:`` URI. Raises EvaluationError unless uint8 [H, W, 3]."""
        pixels = self.pixels_HWC
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise EvaluationError(
                f"pixels of {self.key} are {pixels.dtype} {list(pixels.shape)}", "uint8 [H, W, 3]"
            )
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def worst_errors(predictions: Predictions, threshold: float, each: int = 12) -> NDArray[np.int64]:
    """Rows of the worst errors: up to ``each`` missed tumour patches, lowest probability first, then up to
    ``each`` false alarms, highest first. Unlabelled patches are never among them.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    missed = np.flatnonzero((labels == 1) & (probabilities < threshold))
    alarms = np.flatnonzero((labels == 0) & (probabilities >= threshold))
    missed = missed[np.argsort(probabilities[missed], kind="stable")][:each]
    alarms = alarms[np.argsort(-probabilities[alarms], kind="stable")][:each]
    return np.concatenate((missed, alarms))


def gallery_patches(
    predictions: Predictions, rows: NDArray[np.int64], pixels_BHWC: NDArray[np.uint8]
) -> list[GalleryPatch]:
    """Pair ``rows`` of ``predictions`` with their pixels, uint8 [len(rows), H, W, 3], in the same order."""
    if len(pixels_BHWC) != len(rows):
        raise EvaluationError(f"{len(pixels_BHWC)} images for {len(rows)} rows", "one image a row")
    return [
        GalleryPatch(
            key=str(predictions.keys[row]),
            label=int(predictions.labels[row]),
            probability=float(predictions.probabilities[row]),
            pixels_HWC=pixels,
            slide=predictions.slides[row],
        )
        for row, pixels in zip(rows.tolist(), pixels_BHWC, strict=True)
    ]
