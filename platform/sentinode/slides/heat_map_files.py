"""A heat map as files: a pyramidal TIFF for viewers of slides, and an overview as PNG for everybody."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.slides.annotations import Shape, polygons_of

Grid = NDArray[np.float32]
Rgb = NDArray[np.uint8]

TILE_PX: Final = 256
NOT_SCORED: Final = 0
"""Grey of cells that were not scored. Probability p is 1 + round(254 p)."""
COLOURS: Final = ((0.0, (40, 60, 160)), (0.5, (250, 210, 60)), (1.0, (190, 10, 30)))
"""Blue, yellow and red, told apart by those who do not see red from green as well."""
_CAPTION_PX: Final = 34


def to_grey(probabilities: Grid) -> NDArray[np.uint8]:
    """uint8 of the same shape: NOT_SCORED for NaN, else 1 to 255, true to 0.002."""
    grey = np.rint(np.nan_to_num(probabilities, nan=0.0) * 254) + 1
    return np.where(np.isnan(probabilities), NOT_SCORED, grey).astype(np.uint8)


def write_heat_map_tiff(path: Path, probabilities: Grid, cell_um: float, description: str) -> None:
    """A tiled, grey, Deflate-compressed TIFF with levels that halve, one pixel a cell of ``cell_um`` micrometres.

    It opens in OpenSlide, tiffslide and QuPath, with its micrometres per pixel. A pixel of a smaller level is the
    highest of the four below it: a small lesion is still seen from afar. BigTIFF where it is large.
    """
    import tifffile

    level = to_grey(probabilities)
    per_cm = 1e4 / cell_um
    levels = [level]
    while max(levels[-1].shape) > TILE_PX:
        levels.append(_halved(levels[-1]))
    big = 2 * level.nbytes > 2**31
    with tifffile.TiffWriter(path, bigtiff=big) as tiff:
        for number, pixels in enumerate(levels):
            ratio = level.shape[1] / pixels.shape[1]
            tiff.write(
                pixels,
                tile=(TILE_PX, TILE_PX),
                photometric="minisblack",
                compression="adobe_deflate",
                resolution=(per_cm / ratio, per_cm / ratio),
                resolutionunit="CENTIMETER",
                subfiletype=1 if number else 0,
                description=description if not number else None,
                software="Sentinode",
                metadata=None,
            )


def heat_map_png(probabilities: Grid) -> bytes:
    """The heat map alone as RGBA PNG, one pixel a cell; transparent where nothing was scored."""
    colour = _colour(np.nan_to_num(probabilities))
    opacity = np.where(np.isnan(probabilities), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([colour, opacity])).save(buffer, "PNG")
    return buffer.getvalue()


def overview_png(
    thumbnail: Rgb,
    probabilities: Grid,
    grid_px: tuple[float, float],
    lesions: Sequence[Shape],
    scale: float,
    caption: str,
) -> bytes:
    """The slide with the heat map over it, lesions outlined, a colour bar and a caption, as PNG.

    ``thumbnail`` [H, W, 3] shows the whole slide; ``grid_px`` is the width and height of the heat map in its pixels,
    which may reach beyond the slide by a part of a cell. ``lesions`` are in level-0 pixels, of which the thumbnail
    holds ``scale`` each.
    """
    height, width = thumbnail.shape[:2]
    size = (max(1, round(grid_px[0])), max(1, round(grid_px[1])))
    scored = ~np.isnan(probabilities)
    colour = Image.fromarray(_colour(np.nan_to_num(probabilities))).resize(size, Image.Resampling.NEAREST)
    # The more suspicious, the less of the tissue shines through.
    opacity = np.where(scored, 70 + 130 * np.nan_to_num(probabilities), 0).astype(np.uint8)
    mask = Image.fromarray(opacity).resize(size, Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (max(width, 480), height + _CAPTION_PX), "white")
    canvas.paste(Image.fromarray(thumbnail), (0, 0))
    canvas.paste(colour.crop((0, 0, width, height)), (0, 0), mask.crop((0, 0, width, height)))
    draw = ImageDraw.Draw(canvas)
    for ring in (part.exterior for lesion in lesions for part in polygons_of(lesion).geoms):
        # Cells at the edge reach beyond the slide: their outline would run through the legend.
        points = [(min(x * scale, width - 1), min(y * scale, height - 1)) for x, y, *_ in ring.coords]
        draw.line(points, fill="black", width=2)
    _legend(canvas, height, caption)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _legend(canvas: Image.Image, top: int, caption: str) -> None:
    draw = ImageDraw.Draw(canvas)
    bar = Image.fromarray(_colour(np.linspace(0, 1, 100, dtype=np.float32)[None].repeat(10, 0)))
    draw.text((4, top + 4), "0", fill="black")
    canvas.paste(bar, (14, top + 5))
    draw.text((118, top + 4), f"1  {caption}", fill="black")
    draw.text((4, top + 19), RESEARCH_USE_ONLY, fill="black")


def _colour(values: Grid) -> Rgb:
    stops = [at for at, _ in COLOURS]
    channels = [np.interp(values, stops, [rgb[c] for _, rgb in COLOURS]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2)))
    return np.asarray(even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).max(axis=(1, 3)))
