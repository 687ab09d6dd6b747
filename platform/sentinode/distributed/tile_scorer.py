"""Tiles of a slide through a bundle: dense where the network has that form, else patch by patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.bundle import Bundle
from sentinode.bundle.card import Card
from sentinode.bundle.dense_model import DenseModel, patch_logits
from sentinode.bundle.golden import probabilities
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.errors import ConfigError
from sentinode.models.dense_geometry import DenseGeometry
from sentinode.schema import PATCH_PX
from sentinode.slides.model_pixels import read_model_pixels
from sentinode.slides.score_grid import ScoreGrid, Tile
from sentinode.slides.slide import Slide

Method = Literal["dense", "patches"]
Pixels = NDArray[np.uint8]

_PATCHES: DenseGeometry = DenseGeometry(window_px=PATCH_PX, stride_px=1, crop_px=0)


def method_for(card: Card, stride_px: int, wanted: Method | None = None) -> Method:
    """How slides are scored: dense where the bundle can. Raises ConfigError where it cannot as ``wanted``."""
    if card.dense is None:
        if wanted == "dense":
            raise ConfigError(
                f"bundle {card.name} has no dense form: its network pads, or resizes its patches",
                "a network without padding, such as valid-cnn or p4m-densenet",
                "leave --method out to score patch by patch, or promote the run again if the bundle is old",
            )
        return "patches"
    if wanted != "patches" and stride_px % card.dense.stride_px:
        raise ConfigError(
            f"a stride of {stride_px} pixels",
            f"a multiple of {card.dense.stride_px}, the distance of the network's windows",
            f"--stride-px {max(1, round(stride_px / card.dense.stride_px)) * card.dense.stride_px}, or "
            "--method patches",
        )
    return wanted or "dense"


class TileScorer:
    """One bundle at one stride. Scoring is safe to call from several threads.

    Starting it runs the golden patches: BundleError where this machine gives other probabilities.
    """

    def __init__(self, bundle: Bundle, stride_px: int, method: Method, threads: int = 1) -> None:
        self.stride_px = stride_px
        card = bundle.card
        patches = OnnxModel(bundle.onnx_path, threads, sizes_vary=True)
        found = probabilities(patches.logits(bundle.golden.images_BHWC), card.calibration)
        bundle.golden.check_reproduced(found, f"ONNX Runtime ({patches.providers[0]})")
        self._model: OnnxModel | DenseModel = patches
        self._windows = _PATCHES
        if method == "dense":
            assert bundle.dense_path is not None
            assert card.dense is not None
            # Of the patch graph nothing is kept but its answer: it has memory of its own.
            self._model = DenseModel(bundle.dense_path, card.dense, threads)
            self._model.check_equals(patches, bundle.golden.images_BHWC)
            self._windows = card.dense

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return self._model.providers[0]

    def read(self, slide: Slide, grid: ScoreGrid, tile: Tile) -> Pixels:
        """What the windows of the tile's cells see, uint8 [H, W, 3]. Raises as ``Slide.read_region``."""
        first = self.stride_px // 2 - PATCH_PX // 2 + self._windows.crop_px
        left, top = (at * self.stride_px + first for at in (tile.column, tile.row))
        width, height = (
            (n - 1) * self.stride_px + self._windows.window_px for n in (tile.columns, tile.rows)
        )
        return read_model_pixels(slide, grid, left, top, width, height)

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """Logits float32 [rows, columns] of the cells of what ``read`` gave. In patches, each pixel was read once."""
        if isinstance(self._model, OnnxModel):
            return patch_logits(self._model, pixels, self.stride_px)
        every = self.stride_px // self._windows.stride_px
        return np.ascontiguousarray(self._model.logits(pixels[None])[0, ::every, ::every])


class ReadAhead:
    """Tiles read by threads while others are scored; at most ``ahead`` wait, so memory is bounded."""

    def __init__(self, threads: int, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="slide-read")
        self._ahead = ahead

    def over(self, read: Callable[[Tile], Pixels], tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Pixels]]:
        """Each tile with its pixels, in order. An error of ``read`` is raised at its tile."""
        waiting: list[Future[Pixels]] = []
        try:
            for number, tile in enumerate(tiles):
                while len(waiting) <= self._ahead and number + len(waiting) < len(tiles):
                    waiting.append(self._pool.submit(read, tiles[number + len(waiting)]))
                yield tile, waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for reads that are under way."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
