"""Which windows of a tile a dense detector scores: what a server must know of it, without PyTorch."""

from __future__ import annotations

from pydantic import Field

from sentinode.config import Frozen


class DenseGeometry(Frozen):
    """The windows of a dense detector. It scores all of them in one pass over a tile."""

    window_px: int = Field(ge=1)
    """Side of a window: what the network sees of a patch."""
    stride_px: int = Field(ge=1)
    """Distance of two windows."""
    crop_px: int = Field(ge=0)
    """Distance of a window from the edges of the patch that it stands for."""

    def windows(self, side_px: int) -> int:
        """How many windows a tile of ``side_px`` holds along that side."""
        return max(0, (side_px - self.window_px) // self.stride_px + 1)
