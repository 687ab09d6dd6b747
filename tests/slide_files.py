"""Small slides that tests write: tiled pyramids of chosen pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]


def write_pyramid(
    path: Path,
    rgb: Rgb,
    mpp: tuple[float, float] | None = (0.5, 0.5),
    levels: int = 3,
    compression: str | None = None,
    **options: Any,
) -> Path:
    """A tiled TIFF whose levels halve ``rgb`` by striding; pages after the first are marked as reduced."""
    options.setdefault("tile", (64, 64))
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            tiff.write(
                np.ascontiguousarray(rgb[:: 1 << level, :: 1 << level]),
                subfiletype=1 if level else 0,
                photometric="rgb",
                compression=compression,
                metadata=None,
                **options,
            )
    return path


def gradient(width: int = 400, height: int = 300) -> Rgb:
    """Every pixel tells where it is: red and green are x and y, modulo 256."""
    y, x = np.indices((height, width))
    return np.stack([x % 256, y % 256, (x // 256 * 16 + y // 256) % 256], axis=-1).astype(np.uint8)


def tissue(width: int = 700, height: int = 600, seed: int = 0) -> Rgb:
    """A pink, textured ellipse on white glass."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    inside = ((x - width / 2) / (width * 0.4)) ** 2 + ((y - height / 2) / (height * 0.35)) ** 2 < 1
    rgb = np.full((height, width, 3), 245, np.uint8)
    coarse = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1)).repeat(10, 0).repeat(10, 1)
    shade = coarse[:height, :width, None] / 255
    stained = np.array([150, 60, 140]) + shade * np.array([80, 90, 60]) + rng.integers(-9, 9, rgb.shape)
    return np.where(inside[..., None], stained.clip(0, 255), rgb).astype(np.uint8)
