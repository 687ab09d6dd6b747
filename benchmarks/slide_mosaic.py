"""A large slide for benchmarks: a pyramidal, tiled JPEG TIFF of real tissue on glass.

Squares of 1,024 pixels, cut from five tiles of Camelyon17 at 0.25 um/px, are laid side by side, turned and mirrored,
in blobs that cover about a third of the slide, as tissue does. By hand:

    python benchmarks/slide_mosaic.py OUT.tif WIDTH HEIGHT
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TILES = Path(__file__).resolve().parents[2] / "shared" / "data" / "camelyon17_tiles"
MPP_UM_PX = 0.25
TILE_PX = 256
SQUARE_PX = 1024
LEVELS = 6
GLASS = 243
"""Grey of glass in a tile that holds tissue too; tiles of glass alone are left out, as scanners do, and read white."""
TISSUE_SHARE = 0.33


def write_slide(path: Path, width: int, height: int, seed: int = 0, tissue: float = TISSUE_SHARE) -> float:
    """Write a slide of ``width`` x ``height`` pixels at level 0; returns the share that is tissue.

    Memory does not depend on its size. Raises FileNotFoundError without the tiles.
    """
    images = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(TILES.glob("*.jpeg"))]
    if not images:
        raise FileNotFoundError(f"no tiles in {TILES}")
    side = SQUARE_PX
    squares = [
        image[y : y + side, x : x + side]
        for image in images
        for y in range(0, image.shape[0] - side + 1, side)
        for x in range(0, image.shape[1] - side + 1, side)
    ]
    rng = np.random.default_rng(seed)
    columns, rows = -(-width // side), -(-height // side)
    blobs = _smooth(rng.random((rows + 4, columns + 4)))[2:-2, 2:-2]
    is_tissue = blobs >= np.quantile(blobs, 1 - tissue)
    kinds, turns = rng.integers(0, len(squares), (rows, columns)), rng.integers(0, 8, (rows, columns))
    pyramids = [[_turned(_shrunk(s, level), t) for level in range(LEVELS) for t in range(8)] for s in squares]

    def tiles(level: int) -> Iterator[np.ndarray | None]:
        scaled_w, scaled_h, step = width >> level, height >> level, side >> level
        for top in range(0, scaled_h, TILE_PX):
            for left in range(0, scaled_w, TILE_PX):
                # The writer asks the first tile what all are like.
                tile = None if top or left else np.full((TILE_PX, TILE_PX, 3), GLASS, np.uint8)
                for y in range(top // step, (top + TILE_PX - 1) // step + 1):
                    for x in range(left // step, (left + TILE_PX - 1) // step + 1):
                        if y >= rows or x >= columns or not is_tissue[y, x]:
                            continue
                        if tile is None:
                            tile = np.full((TILE_PX, TILE_PX, 3), GLASS, np.uint8)
                        square = pyramids[kinds[y, x]][level * 8 + turns[y, x]]
                        y1, y2 = max(top, y * step), min(top + TILE_PX, (y + 1) * step)
                        x1, x2 = max(left, x * step), min(left + TILE_PX, (x + 1) * step)
                        part = square[y1 - y * step : y2 - y * step, x1 - x * step : x2 - x * step]
                        tile[y1 - top : y2 - top, x1 - left : x2 - left] = part
                yield tile

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(LEVELS):
            per_cm = 1e4 / (MPP_UM_PX * 2**level)
            tiff.write(
                tiles(level),
                shape=(height >> level, width >> level, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
            )
    return float(is_tissue.mean())


def _smooth(values: np.ndarray) -> np.ndarray:
    for _ in range(3):
        values = sum(np.roll(values, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return values


def _shrunk(square: np.ndarray, level: int) -> np.ndarray:
    size = square.shape[0] >> level
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BOX))


def _turned(square: np.ndarray, code: int) -> np.ndarray:
    turned = np.rot90(square, code % 4)
    return np.ascontiguousarray(turned[:, ::-1] if code >= 4 else turned)


if __name__ == "__main__":
    share = write_slide(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(f"{sys.argv[1]}: {share:.0%} tissue")
