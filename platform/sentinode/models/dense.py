"""The dense form of a detector: tiles of a slide in, one logit for each window out.

Networks without padding say of every window of a tile what they say of that window alone. So a tile is scored in
one pass, in which windows that overlap share their work, and the result is patch-by-patch scoring.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from sentinode.models.convolution import fix_filters
from sentinode.models.dense_geometry import DenseGeometry
from sentinode.models.export import INPUT_NAME, OPSET
from sentinode.models.preprocess import Detector
from sentinode.models.symmetry import SYMMETRIES, turn
from sentinode.models.window import WindowNet
from sentinode.schema import PATCH_PX

OUTPUT_NAME: Final = "logits"


class DenseDetector(nn.Module):
    """Preprocessing and network: uint8 tiles_BHWC [B, H, W, 3] -> tumour logits [B, h, w], float32.

    ``[:, i, j]`` is what the detector says of the patch whose upper left corner is (i, j) * stride_px - crop_px.
    h = (H - window_px) // stride_px + 1; with test-time augmentation H and W must leave no remainder, or turned
    tiles would be cut at other places.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        assert isinstance(detector.net, WindowNet)
        self.net: WindowNet = detector.net
        self.tta = detector.tta
        preprocess = detector.preprocess
        self.register_buffer("mean", preprocess.mean * 255, persistent=False)
        self.register_buffer("scale", preprocess.std * 255, persistent=False)

    def forward(self, tiles_BHWC: Tensor) -> Tensor:
        tiles_BCHW = (tiles_BHWC.permute(0, 3, 1, 2).float() - self.mean) / self.scale
        if not self.tta:
            return self._score(tiles_BCHW)
        # The symmetries that undo 5 (transpose, then flip the columns) and 6 are each other.
        undo = {5: 6, 6: 5}
        turned = [
            turn(self._score(turn(tiles_BCHW, code)), undo.get(code, code)) for code in range(SYMMETRIES)
        ]
        return torch.stack(turned).mean(0)

    def _score(self, tiles_BCHW: Tensor) -> Tensor:
        logits_BKHW = self.net.dense(tiles_BCHW).float()
        return logits_BKHW[:, 1] - logits_BKHW[:, 0]


def dense_geometry(detector: Detector) -> DenseGeometry | None:
    """The windows of ``detector`` on a tile; None where one pass over a tile is not patch-by-patch scoring.

    That is so with padding, and where a patch is resized: the pixels of two resized patches are not the same.
    """
    net, config = detector.net, detector.preprocess.config
    if not isinstance(net, WindowNet) or not (config.fit == "crop" or config.input_px == PATCH_PX):
        return None
    return DenseGeometry(
        window_px=net.input_px, stride_px=net.stride_px, crop_px=(PATCH_PX - net.input_px) // 2
    )


def export_dense_onnx(detector: Detector, path: Path) -> DenseGeometry | None:
    """Write the dense form: ``images`` uint8 [B, H, W, 3] -> ``logits`` float32 [B, h, w], any B, H and W.

    None, and nothing written, where ``detector`` has none (see ``dense_geometry``).
    """
    geometry = dense_geometry(detector)
    if geometry is None:
        return None
    dense = fix_filters(DenseDetector(detector.cpu().eval()))
    side = geometry.window_px + 2 * geometry.stride_px
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # As in export: no paths of this machine in the file.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        torch.onnx.export(
            dense,
            (example,),
            str(path),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={
                INPUT_NAME: {0: "batch", 1: "height", 2: "width"},
                OUTPUT_NAME: {0: "batch", 1: "rows", 2: "columns"},
            },
            opset_version=OPSET,
            dynamo=False,
        )
    return geometry
