"""Polygons as a mask: the way back from ``outlines``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sentinode.slides.annotations import Shape, polygons_of


def rasterised(
    shape: Shape, corner: tuple[float, float], scale: float, width: int, height: int
) -> NDArray[np.bool_]:
    """Mask [height, width] of ``shape``, right to a pixel, seen from ``corner`` (x, y), its coordinates multiplied by
    ``scale``."""
    x0, y0 = corner
    left, top, right, bottom = shape.bounds if not shape.is_empty else (0.0, 0.0, -np.inf, -np.inf)
    if left > x0 + width / scale or right < x0 or top > y0 + height / scale or bottom < y0:
        return np.zeros((height, width), bool)
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    # What lies in a hole of another part is drawn after it.
    for part in sorted(polygons_of(shape).geoms, key=lambda part: -part.envelope.area):
        for number, ring in enumerate([part.exterior, *part.interiors]):
            # Pillow takes a coordinate as the centre of a pixel.
            points = (np.asarray(ring.coords)[:, :2] - (x0, y0)) * scale - 0.5
            draw.polygon([tuple(point) for point in points.tolist()], fill=number == 0)
    return np.asarray(image)
