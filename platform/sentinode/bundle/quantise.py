"""An int8 form of a sealed graph, for processors where it is faster; what it costs in AUROC is measured and told.

Static quantisation in the QDQ format: weights int8 for each channel, activations uint8 with ranges seen on training
patches (Jacob et al. 2018, arXiv:1712.05877). Where that fails, ranges of activations are found at run time.
Preprocessing stays in float: its rounding would fall on every pixel.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sentinode.bundle.int8 import Int8Facts, Int8Method
from sentinode.bundle.onnx_model import INPUT_NAME, OnnxModel
from sentinode.errors import BundleError
from sentinode.evaluation.delong import delong, student_reach
from sentinode.evaluation.metrics import IntArray

CALIBRATION_PATCHES: Final = 512
_BATCH: Final = 64
_OPERATORS: Final = ("Conv", "MatMul", "Gemm")
_PREPROCESS: Final = "/preprocess/"
_LEVEL: Final = 0.95

log = logging.getLogger(__name__)


def quantise(onnx_path: Path, target: Path, images_BHWC: NDArray[np.uint8]) -> Int8Method:
    """Write the int8 form of ``onnx_path`` to ``target``; returns how it was made.

    ``images_BHWC`` uint8 [N, 96, 96, 3] are patches of the train split. Needs the ``onnx`` package, which serving
    does not have. Raises BundleError where the graph can be quantised in neither way.
    """
    try:
        _static(onnx_path, target, images_BHWC)
        OnnxModel(target).logits(images_BHWC[:2])
    except Exception as error:  # noqa: BLE001
        # The quantiser raises whatever its own steps do; the next way may still work.
        log.warning("static quantisation failed (%s), trying dynamic", str(error).splitlines()[:1])
    else:
        return "static QDQ"
    try:
        _dynamic(onnx_path, target)
        OnnxModel(target).logits(images_BHWC[:2])
    except Exception as error:
        raise BundleError(
            f"{onnx_path.name} cannot be quantised ({str(error).splitlines()[:1]})",
            "a graph of convolutions and matrix products",
            "seal it without int8",
        ) from error
    return "dynamic"


def int8_facts(
    method: Int8Method,
    labels_N: ArrayLike,
    float_logits_N: NDArray[np.float32],
    int8_logits_N: NDArray[np.float32],
    units_N: IntArray | None,
    golden_difference: float,
) -> Int8Facts:
    """What int8 costs on N labelled validation patches; ``units_N`` numbers their slides, None where unknown."""
    areas = delong(labels_N, [float_logits_N, int8_logits_N], units_N)
    loss, error = areas.difference(0, 1)
    reach = student_reach(_LEVEL, areas.freedom) * error
    known = not np.isnan(error)
    return Int8Facts(
        method=method,
        calibration_patches=CALIBRATION_PATCHES if method == "static QDQ" else 0,
        patches=len(float_logits_N),
        auroc=float(areas.aurocs_K[1]),
        auroc_loss=loss,
        auroc_loss_low=loss - reach if known else None,
        auroc_loss_high=loss + reach if known else None,
        golden_difference=golden_difference,
    )


def _static(onnx_path: Path, target: Path, images_BHWC: NDArray[np.uint8]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Patches(CalibrationDataReader):  # type: ignore[misc]
        """Feeds the training patches in batches."""

        def __init__(self) -> None:
            parts = np.split(images_BHWC, range(_BATCH, len(images_BHWC), _BATCH))
            self._batches: Iterator[NDArray[np.uint8]] = (part for part in parts if len(part))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT_NAME: batch}

    with tempfile.TemporaryDirectory(prefix="sentinode-int8-") as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(onnx_path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Patches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_preprocessing(prepared),
        )


def _dynamic(onnx_path: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(onnx_path),
        str(target),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_preprocessing(onnx_path),
    )


def _preprocessing(path: Path) -> list[str]:
    import onnx

    nodes = onnx.load(str(path)).graph.node
    return [node.name for node in nodes if node.name.startswith(_PREPROCESS)]
