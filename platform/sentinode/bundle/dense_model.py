"""A dense detector as ONNX Runtime runs it: tiles of a slide in, the tumour logit of every window out."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.onnx_model import INPUT_NAME, OnnxModel, load_session
from sentinode.errors import BundleError
from sentinode.models.dense_geometry import DenseGeometry
from sentinode.schema import PATCH_PX

OUTPUT_NAME: Final = "logits"
DENSE_TOLERANCE: Final = 1e-4
"""Largest difference of a logit in a tile from that of the patch alone: rounding in another order."""
_MOSAIC: Final = 2


class DenseModel:
    """One session over ``path``; safe to call from several threads.

    The graph takes ``images`` uint8 [B, H, W, 3] and gives ``logits`` float32 [B, h, w], windows as ``geometry``
    says. Raises BundleError where the file is no such graph.
    """

    def __init__(self, path: Path, geometry: DenseGeometry, threads: int = 1) -> None:
        self.geometry = geometry
        self._name = path.name
        self._session = load_session(path, threads, sizes_vary=True)
        inputs = [(i.name, i.type, len(i.shape), i.shape[-1]) for i in self._session.get_inputs()]
        outputs = [(o.name, o.type, len(o.shape)) for o in self._session.get_outputs()]
        if inputs != [(INPUT_NAME, "tensor(uint8)", 4, 3)] or outputs != [(OUTPUT_NAME, "tensor(float)", 3)]:
            raise BundleError(
                f"{path.name} takes {inputs} and gives {outputs}",
                f"{INPUT_NAME}: uint8 [B, H, W, 3] to {OUTPUT_NAME}: float32 [B, h, w]",
            )

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use."""
        return tuple(self._session.get_providers())

    def logits(self, tiles_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 [B, h, w] of tiles uint8 [B, H, W, 3]; [:, i, j] is the window at (i, j) * stride_px.

        Raises BundleError where the graph gives another number of windows than its geometry says.
        """
        (found_Bhw,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: tiles_BHWC})
        wanted = (len(tiles_BHWC), *(self.geometry.windows(side) for side in tiles_BHWC.shape[1:3]))
        if found_Bhw.shape != wanted:
            raise BundleError(
                f"{self._name} gives {list(found_Bhw.shape)} logits",
                f"{list(wanted)} for {list(tiles_BHWC.shape)}",
            )
        return cast("NDArray[np.float32]", found_Bhw)

    def check_equals(self, patches: OnnxModel, images_BHWC: NDArray[np.uint8]) -> None:
        """Compare with ``patches``, the patch graph, on every window of a mosaic of patches [B, 96, 96, 3].

        Raises BundleError where a logit differs by more than DENSE_TOLERANCE (of logits above 1: relative to them).
        """
        g = self.geometry
        picks = np.resize(np.arange(len(images_BHWC)), _MOSAIC**2)
        rows = images_BHWC[picks].reshape(_MOSAIC, _MOSAIC, PATCH_PX, PATCH_PX, 3)
        tile = np.ascontiguousarray(rows.transpose(0, 2, 1, 3, 4)).reshape(_MOSAIC * PATCH_PX, -1, 3)
        inner = tile[g.crop_px : len(tile) - g.crop_px, g.crop_px : len(tile) - g.crop_px]
        dense = self.logits(np.ascontiguousarray(inner[None]))[0]
        alone = patch_logits(patches, tile, g.stride_px)
        difference = np.abs(dense - alone) / np.maximum(1, np.abs(alone))
        worst = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
        if not difference[worst] <= DENSE_TOLERANCE:
            raise BundleError(
                f"{self._name} gives a window the logit {dense[worst]:.6f}, {difference[worst]:.2g} off",
                f"{alone[worst]:.6f} to {DENSE_TOLERANCE:g}, as the patch graph says of it alone",
                "export both graphs from the same weights, and seal anew",
            )


def patch_logits(
    model: OnnxModel, tile_HWC: NDArray[np.uint8], stride_px: int, batch: int = 32
) -> NDArray[np.float32]:
    """Logits float32 [h, w] of the 96x96 patches of ``tile_HWC``, ``stride_px`` apart, each scored alone."""
    views = np.lib.stride_tricks.sliding_window_view(tile_HWC, (PATCH_PX, PATCH_PX), (0, 1))
    views = views[::stride_px, ::stride_px].transpose(0, 1, 3, 4, 2)
    rows, columns = views.shape[:2]
    at = np.arange(rows * columns)
    parts = [
        model.logits(np.ascontiguousarray(views[part // columns, part % columns]))
        for part in np.split(at, range(batch, len(at), batch))
    ]
    return np.concatenate(parts).reshape(rows, columns)
