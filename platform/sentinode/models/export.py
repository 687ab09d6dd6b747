"""ONNX: the form in which a detector is served, without PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch.jit._trace import TracerWarning
from torch.onnx import OnnxExporterError

from sentinode.errors import ConfigError
from sentinode.models.convolution import fix_filters
from sentinode.models.preprocess import Detector
from sentinode.schema import PATCH_PX

OPSET: Final = 18
"""ONNX operator set of exported files."""

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "logit"


def export_onnx(detector: Detector, path: Path) -> None:
    """Write ``detector`` to ``path``: ``images`` uint8 [B, 96, 96, 3] -> ``logit`` float32 [B], any B >= 1.

    Preprocessing is part of the graph, weights are part of the file, dropout is not. The same weights give
    the same bytes. The detector is put into evaluation mode. Raises ConfigError where the network computes what
    ONNX cannot express; bundles, which hold ONNX, are then out of reach for it.
    """
    fixed = fix_filters(detector.cpu().eval())
    example = torch.zeros(2, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter: the graph is static, and unlike the dynamo exporter it leaves no source paths
        # and stack traces of this machine in the file.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Sizes other than the batch's may become constants: patches have one size.
        warnings.simplefilter("ignore", TracerWarning)
        try:
            torch.onnx.export(
                fixed,
                (example,),
                str(path),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except OnnxExporterError as error:
            raise ConfigError(
                f"the network cannot be written as ONNX ({str(error).splitlines()[0]})",
                f"operators that ONNX has in set {OPSET}",
                "choose another network: a bundle is served from its ONNX file",
            ) from error
