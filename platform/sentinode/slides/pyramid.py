"""A pyramidal tiled TIFF written from bands of rows: a slide of any height in bounded memory.

OpenSlide opens it as ``generic-tiff`` and QuPath by itself; both take the pixel size from the resolution tags. Levels
halve by averages of 2 x 2 pixels, down to one that fits a tile. Reduced levels wait in a temporary file beside the
slide, since a TIFF page is written whole before the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sentinode.errors import ConfigError
from sentinode.storage.files import typed_os_errors

Rgb = NDArray[np.uint8]

TILE_PX: Final = 256
JPEG_QUALITY: Final = 90


def write_pyramid(
    path: Path, bands_HWC: Iterable[Rgb], size: tuple[int, int], um_px: float, quality: int = JPEG_QUALITY
) -> None:
    """Write the slide whose rows, from the top, are ``bands_HWC``: uint8 RGB [h, W, 3], ``h`` any even number.

    ``size`` is (W, H); ``um_px`` the pixel size at level 0. The file appears under its name once it is whole.

    Raises ConfigError where the bands are not of that size, StoreError where the disk fails.
    """
    import tifffile

    options: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": quality},
        "dtype": np.uint8,
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        "software": "sentinode",
    }
    bands_HWC = _checked(bands_HWC, size)
    with (
        typed_os_errors(str(path)),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".pyramid-") as folder,
    ):
        part = Path(folder, "slide.tif")
        with tifffile.TiffWriter(part, bigtiff=size[0] * size[1] > 1 << 30) as tiff:
            for level, (width, height) in enumerate(level_sizes(size)):
                below = _Halves((width // 2, height // 2), Path(folder, f"level-{level + 1}"))
                tiff.write(
                    _tiles(below.passing(bands_HWC), (width, height)),
                    shape=(height, width, 3),
                    subfiletype=1 if level else 0,
                    resolution=(1e4 / um_px / (1 << level),) * 2,
                    **options,
                )
                bands_HWC = below.bands()
        part.replace(path)


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(W, H) of every level, largest first."""
    sizes = [size]
    while max(sizes[-1]) > TILE_PX and min(sizes[-1]) >= 2:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


class _Halves:
    """The next smaller level, in a file of its own."""

    def __init__(self, size: tuple[int, int], path: Path) -> None:
        width, height = size
        self._rows = np.memmap(path, np.uint8, "w+", shape=(height, width, 3)) if min(size) else None

    def passing(self, bands_HWC: Iterable[Rgb]) -> Iterator[Rgb]:
        """The bands themselves, each halved on its way."""
        top = 0
        for band in bands_HWC:
            # Before it goes on: after the last band nobody comes back.
            if self._rows is not None:
                half = _halve(band)
                self._rows[top : top + len(half)] = half[: len(self._rows) - top]
                top += len(half)
            yield band

    def bands(self) -> Iterator[Rgb]:
        if self._rows is not None:
            for top in range(0, len(self._rows), TILE_PX):
                yield np.asarray(self._rows[top : top + TILE_PX])


def _halve(band: Rgb) -> Rgb:
    """Averages of 2 x 2 pixels, rounded; an odd last row or column is left out."""
    height, width = band.shape[0] // 2 * 2, band.shape[1] // 2 * 2
    total = np.full((height // 2, width // 2, 3), 2, np.uint16)
    for y in (0, 1):
        for x in (0, 1):
            total += band[y:height:2, x:width:2]
    return (total >> 2).astype(np.uint8)


def _checked(bands_HWC: Iterable[Rgb], size: tuple[int, int]) -> Iterator[Rgb]:
    width, height = size
    rows = 0
    for band in bands_HWC:
        rows += len(band)
        if band.shape[1:] != (width, 3) or rows > height or (len(band) % 2 and rows != height):
            raise ConfigError(
                f"a band of shape {band.shape} that ends at row {rows}",
                f"rows of a slide of {width} x {height} pixels",
            )
        yield band
    if rows != height:
        raise ConfigError(f"{rows} rows", f"{height}, the height of the slide")


def _tiles(bands_HWC: Iterable[Rgb], size: tuple[int, int]) -> Iterator[Rgb]:
    """Tiles row by row; those at the border are filled up with its last pixels, which compress well."""
    width, height = size
    waiting = np.empty((0, width, 3), np.uint8)
    left = height
    for band in bands_HWC:
        left -= len(band)
        waiting = np.concatenate([waiting, band]) if len(waiting) else band
        while len(waiting) >= TILE_PX or (not left and len(waiting)):
            yield from _row(waiting[:TILE_PX])
            waiting = waiting[TILE_PX:]


def _row(rows: Rgb) -> Iterator[Rgb]:
    for left in range(0, rows.shape[1], TILE_PX):
        piece = rows[:, left : left + TILE_PX]
        if piece.shape[:2] == (TILE_PX, TILE_PX):
            yield np.ascontiguousarray(piece)
        else:
            missing = [(0, TILE_PX - length) for length in piece.shape[:2]]
            yield np.pad(piece, [*missing, (0, 0)], mode="edge")
