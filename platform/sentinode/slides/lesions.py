"""Lesions: the tumour area of a slide in pieces that count as one metastasis each, and how large each is.

Pieces closer than 75 um (about five tumour cells) are one lesion, as in Camelyon16's ``Evaluation_FROC.py``:
that script widens the tumour mask by half of it all round, fills the holes, and labels what hangs together.
Here the same is done with the polygons themselves, so no mask of a whole slide is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from sentinode.errors import ConfigError
from sentinode.schema import NodeClass
from sentinode.slides.annotations import FloatArray, Shape, polygons_of

IntArray = NDArray[np.int64]

JOIN_UM: Final = 75.0
"""Gap below which pieces of tumour are one lesion (Camelyon16)."""
ITC_UM: Final = 200.0
MACRO_UM: Final = 2000.0
"""Longest diameter of the largest ITC and of the largest micro-metastasis (AJCC Cancer Staging Manual, 8th ed.;
Bandi et al. 2019, Camelyon17). The manual's other rule, 200 cells, cannot be told from an outline."""

_QUARTER_CIRCLE_STEPS: Final = 32
"""Segments of a quarter circle when a polygon is widened; with what GEOS simplifies, 37.5 um are right to 0.4 um."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """One metastasis."""

    tumour: Shape
    """The tumour itself, level-0 pixels."""
    reach: Polygon
    """The tumour widened by half the joining gap, without holes where they were filled: a detection in here has found
    it."""
    um_px: float

    @cached_property
    def longest_diameter_um(self) -> float:
        """Largest distance between two points of the tumour."""
        return longest_diameter(self.tumour) * self.um_px

    @property
    def area_um2(self) -> float:
        return float(self.tumour.area) * self.um_px**2

    @property
    def size(self) -> NodeClass:
        """ITC, micro or macro, by the longest diameter."""
        return size_of(self.longest_diameter_um)

    @property
    def centre(self) -> tuple[float, float]:
        """A point inside the tumour, level-0 pixels."""
        point = self.tumour.representative_point()
        return float(point.x), float(point.y)


def lesions_of(
    tumour: Shape, um_px: float, join_um: float = JOIN_UM, fill_holes: bool = True
) -> tuple[Lesion, ...]:
    """The lesions of a slide, from left to right; ``tumour`` in level-0 pixels of ``um_px`` micrometres.

    ``fill_holes`` as Camelyon16 does with what pathologists outlined: what lies in a hole of a piece belongs to it,
    however far it is from its edge.

    Raises ConfigError unless 0 < um_px <= 10 and join_um >= 0.
    """
    if not (0 < um_px <= 10 and 0 <= join_um < math.inf):
        raise ConfigError(
            f"{um_px} um/px and a gap of {join_um} um", "the pixel size at level 0, such as 0.243"
        )
    pieces = polygons_of(tumour).geoms
    if not pieces:
        return ()
    # Holes are filled before as well as after: the result is the same, and there is less to widen.
    fill = _filled if fill_holes else list
    wide = shapely.buffer(fill(pieces), join_um / 2 / um_px, quad_segs=_QUARTER_CIRCLE_STEPS)
    reaches = sorted(fill(polygons_of(shapely.union_all(wide)).geoms), key=lambda reach: reach.bounds)
    tree = shapely.STRtree(reaches)
    inside: list[list[Polygon]] = [[] for _ in reaches]
    for piece, reach in zip(*tree.query([p.representative_point() for p in pieces], "within"), strict=True):
        inside[reach].append(pieces[piece])
    return tuple(
        Lesion(parts[0] if len(parts) == 1 else MultiPolygon(parts), reach, um_px)
        for parts, reach in zip(inside, reaches, strict=True)
    )


def _filled(pieces: Sequence[Polygon]) -> list[Polygon]:
    """The pieces without their holes; what lay inside a hole becomes part of the piece around it."""
    return list(polygons_of(shapely.union_all([Polygon(piece.exterior) for piece in pieces])).geoms)


def lesion_at(lesions: Sequence[Lesion], xy_N2: FloatArray) -> IntArray:
    """Index of the lesion whose reach holds each point [N], -1 where there is none; level-0 pixels."""
    found = np.full(len(xy_N2), -1, np.int64)
    for index, lesion in enumerate(lesions):
        shapely.prepare(lesion.reach)
        found[shapely.intersects_xy(lesion.reach, xy_N2[:, 0], xy_N2[:, 1])] = index
    return found


def size_of(longest_diameter_um: float) -> NodeClass:
    """ITC, micro or macro."""
    if longest_diameter_um > MACRO_UM:
        return NodeClass.MACRO
    return NodeClass.MICRO if longest_diameter_um > ITC_UM else NodeClass.ITC


def node_class_of(lesions: Sequence[Lesion]) -> NodeClass:
    """The class of a slide: that of its largest lesion, negative without any."""
    return size_of(max(lesion.longest_diameter_um for lesion in lesions)) if lesions else NodeClass.NEGATIVE


def longest_diameter(shape: Shape) -> float:
    """Largest distance between two points of ``shape``, in its units (the largest Feret diameter).

    The farthest corners of the convex hull are antipodal (Shamos 1978): for each edge only the corner farthest
    behind it and its neighbours are tried.
    """
    hull = np.asarray(shapely.orient_polygons(shapely.convex_hull(shape)).exterior.coords)[:-1]
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    first = int(np.argmin(angles))
    hull, angles = np.roll(hull, -first, axis=0), np.roll(angles, -first)
    opposite = np.searchsorted(angles, np.where(angles < 0, angles + np.pi, angles - np.pi))
    here = np.arange(len(hull))
    return max(
        float(np.hypot(*(hull[(here + i) % len(hull)] - hull[(opposite + j) % len(hull)]).T).max())
        for i in (0, 1)
        for j in (-1, 0, 1)
    )


def ellipse_axis(polygon: Polygon) -> float:
    """Longest axis of the ellipse with the same second moments as ``polygon`` (no holes), in its units.

    This is the ``major_axis_length`` by which ``Evaluation_FROC.py`` tells ITC. By Green's theorem.
    """
    centre = polygon.centroid
    ring = np.asarray(polygon.exterior.coords) - (centre.x, centre.y)
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    cross = x0 * y1 - x1 * y0
    area = cross.sum() / 2
    xx = (cross * (x0 * x0 + x0 * x1 + x1 * x1)).sum() / 12 / area
    yy = (cross * (y0 * y0 + y0 * y1 + y1 * y1)).sum() / 12 / area
    xy = (cross * (x0 * y1 + 2 * x0 * y0 + 2 * x1 * y1 + x1 * y0)).sum() / 24 / area
    return 4 * math.sqrt((xx + yy) / 2 + math.hypot((xx - yy) / 2, xy))
