"""What people outline on a slide: regions with a class, as polygons in level-0 pixels.

``asap_xml`` and ``geojson`` read regions from files; ``tumour_of`` makes one tumour area of them. Camelyon
marks holes in a tumour and healthy islands by regions of their own, which are taken away from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from sentinode.config import Frozen
from sentinode.errors import SourceError

FloatArray = NDArray[np.float64]
Shape: TypeAlias = Polygon | MultiPolygon
Role = Literal["tumour", "excluded", "other"]
"""What a class means; see ``Classes``."""

MAX_BYTES: Final = 256 << 20
"""Largest annotation file that is read."""
MAX_POINTS: Final = 2_000_000
"""Most points in one file; tumor_064 of Camelyon16 has 25,531."""
MAX_REGIONS: Final = 100_000
"""Most regions in one file."""
MAX_REPAIR_POINTS: Final = 100_000
MAX_CROSSINGS: Final = 100_000
"""Largest outline that is repaired: n points can cross in n^2 places, each of which takes memory."""
MAX_COORDINATE_PX: Final = 10_000_000
"""Coordinates beyond it, either way, lie on no slide. Slightly negative ones occur: outlines across the edge."""


@dataclass(frozen=True, eq=False)
class Region:
    """One outlined region."""

    shape: Shape
    """Valid, not empty, level-0 pixels."""
    label: str | None = None
    """Group in ASAP, class in QuPath; None where the region has none."""
    name: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    """Finite figures, by name (QuPath's measurements)."""


class Classes(Frozen):
    """What the labels of regions mean. Upper and lower case are the same."""

    tumour: tuple[str, ...] = ("_0", "_1", "tumor", "tumour", "metastases", "metastasis")
    """Camelyon16's training and test sets, Camelyon17, QuPath."""
    excluded: tuple[str, ...] = ("_2", "exclusion", "none", "normal", "ignore*")
    """Not tumour even inside a tumour region: Camelyon's holes and healthy islands."""
    other: tuple[str, ...] = (
        "stroma",
        "immune cells",
        "necrosis",
        "other",
        "region*",
        "positive",
        "negative",
    )
    """Neither: QuPath's own further classes."""

    @cached_property
    def roles(self) -> dict[str, Role]:
        """What each class means, by its name in lower case."""
        return {name.lower(): role for role in get_args(Role) for name in getattr(self, role)}


def tumour_of(regions: Sequence[Region], where: str, classes: Classes | None = None) -> MultiPolygon:
    """The union of the tumour regions less that of the excluded ones; empty where nothing is left. Raises as
    ``roles_of``.
    """
    roles = roles_of(regions, where, classes)

    def union(wanted: Role) -> shapely.Geometry:
        return shapely.union_all([r.shape for r, role in zip(regions, roles, strict=True) if role == wanted])

    return polygons_of(shapely.difference(union("tumour"), union("excluded")))


def roles_of(regions: Sequence[Region], where: str, classes: Classes | None = None) -> list[Role]:
    """What each region means.

    Raises SourceError when a region's label is none of ``classes``: a tumour must not go unseen for its name.
    """
    role = (classes or Classes()).roles
    unknown = {str(r.label or "") for r in regions if not r.label or r.label.lower() not in role}
    if unknown:
        named = f"of class {', '.join(sorted(unknown - {''})[:5])}" if unknown - {""} else "without a class"
        raise SourceError(
            f"{where} has regions {named}",
            f"one of {', '.join(role)}",
            "give them one of these classes: Tumor, or Ignore* for what is to be taken away from it",
        )
    return [role[str(r.label).lower()] for r in regions]


def outline(rings: Sequence[FloatArray], where: str) -> Shape:
    """The polygon inside ``rings[0]`` and outside the other rings; each float64 [N, 2], x and y in pixels.

    Rings may be open or closed. One that crosses itself is repaired, and every loop counts as inside: whoever
    draws over the start of an outline means the overlap to belong to it.

    Raises SourceError on fewer than three different points, coordinates that are not finite or lie on no
    slide, and outlines that enclose nothing.
    """
    for ring in rings:
        if not np.isfinite(ring).all():
            raise SourceError(f"{where} has a coordinate that is not a finite number", "pixels at level 0")
        if np.abs(ring).max(initial=0) > MAX_COORDINATE_PX:
            raise SourceError(
                f"{where} has a coordinate of {ring.flat[np.abs(ring).argmax()]:.0f}",
                f"pixels at level 0, within {MAX_COORDINATE_PX:,} of the corner",
            )
        if len(np.unique(ring, axis=0)) < 3:
            raise SourceError(
                f"{where} has {len(ring)} points, fewer than three of them different",
                "an outline of three points or more",
                "draw the outline again, or delete it",
            )
    polygon: Shape = shapely.Polygon(rings[0], rings[1:])
    if polygon.is_valid:
        return polygon
    _refuse_tangle(polygon, where)
    found = polygons_of(shapely.make_valid(polygon, method="structure", keep_collapsed=False))
    if not found.is_valid:
        # Rounding may leave parts that overlap by a hair, as in one outline of Camelyon16's tumor_064.
        found = polygons_of(shapely.union_all(list(found.geoms)))
    if found.is_empty:
        raise SourceError(f"{where} encloses no area", "an outline", "draw the outline again, or delete it")
    return found.geoms[0] if len(found.geoms) == 1 else found


def _refuse_tangle(polygon: Polygon, where: str) -> None:
    points = shapely.get_num_coordinates(polygon)
    crossings = 0.0
    if points <= MAX_REPAIR_POINTS:
        coordinates, ring = shapely.get_coordinates(shapely.get_rings(polygon), return_index=True)
        ends = np.stack([coordinates[:-1], coordinates[1:]], axis=1)[ring[:-1] == ring[1:]]
        segments = shapely.linestrings(ends)
        some = segments[:: max(1, len(segments) // 200)]
        found = shapely.STRtree(segments).query(some, "crosses").shape[1]
        crossings = found * len(segments) / len(some) / 2
    if points > MAX_REPAIR_POINTS or crossings > MAX_CROSSINGS:
        raise SourceError(
            f"{where} has {points:,} points and crosses itself in about {crossings:,.0f} places",
            f"at most {MAX_REPAIR_POINTS:,} points and {MAX_CROSSINGS:,} crossings in an outline to be repaired",
            "draw the outline again, or delete it",
        )


def polygons_of(geometry: shapely.Geometry) -> MultiPolygon:
    """The polygons of any geometry; lines and points, which have no area, are left out."""
    parts = shapely.get_parts(shapely.get_parts([geometry]))
    return MultiPolygon([p for p in parts if isinstance(p, Polygon) and not p.is_empty])


class PointBudget:
    """Counts the points and regions of one file, against memory exhausted by a hostile or broken one."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._points = 0
        self._regions = 0

    def take(self, points: int = 0, regions: int = 0) -> None:
        """Count. Raises SourceError beyond MAX_POINTS or MAX_REGIONS."""
        self._points += points
        self._regions += regions
        if self._points > MAX_POINTS or self._regions > MAX_REGIONS:
            raise SourceError(
                f"{self._where} has more than {MAX_POINTS:,} points or {MAX_REGIONS:,} regions",
                "the annotation of one slide",
                "simplify the outlines, or split the file",
            )


def check_size(data: bytes, where: str) -> None:
    """Raises SourceError when the file is larger than MAX_BYTES."""
    if len(data) > MAX_BYTES:
        raise SourceError(f"{where} has {len(data):,} bytes", f"at most {MAX_BYTES:,}", "split the file")
