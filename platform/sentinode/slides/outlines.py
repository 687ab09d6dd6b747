"""A mask as polygons, along the edges of its pixels, and polygons as a mask."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely import MultiPolygon

from sentinode.slides.annotations import Shape, polygons_of


def outlines(mask: NDArray[np.bool_], scale: tuple[float, float], tolerance_px: float = 0.0) -> MultiPolygon:
    """The area of ``mask`` [H, W], its coordinates multiplied by ``scale`` (x, y); empty where nothing is set.

    With ``tolerance_px`` (in pixels of the mask) outlines may be that far off and have fewer points.
    """
    edges = _edges(mask)
    if not len(edges):
        return MultiPolygon()
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(edges)))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(np.int64)
    # A polygonized hole is a face of its own, and so is what lies in it.
    faces = shapely.simplify(faces[mask[inside[:, 1], inside[:, 0]]], tolerance_px)
    scaled = shapely.transform(faces, lambda points: points * np.asarray(scale))
    whole = MultiPolygon(list(scaled))
    return whole if whole.is_valid else polygons_of(shapely.union_all(shapely.make_valid(scaled)))


def _edges(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Unit edges between set and other pixels: [N, 2, 2], start and end, x and y."""
    padded = np.pad(mask, 1)
    top_y, top_x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    left_y, left_x = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    across = np.stack([top_x, top_y, top_x + 1, top_y], axis=1)
    down = np.stack([left_x, left_y, left_x, left_y + 1], axis=1)
    return np.concatenate([across, down]).reshape(-1, 2, 2)


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
