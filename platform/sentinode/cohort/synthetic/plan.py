"""Where things lie on a synthetic slide: the node, its metastases, pen and blur, as polygons in level-0 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.affinity import rotate, scale, translate

from sentinode.cohort.synthetic.config import DIAMETER_UM, SlideContents
from sentinode.errors import ConfigError
from sentinode.schema import NodeClass
from sentinode.slides.lesions import JOIN_UM, longest_diameter

PEN_UM: Final = 350.0
"""Width of a pen's stroke."""
_APART_UM: Final = 3 * JOIN_UM
_LARGEST_SHARE: Final = 0.3
"""Of the slide's shorter side; a macro-metastasis has its 2.1 mm in any case."""
_TRIES: Final = 100
_PLANS: Final = 20
_ISLAND_SHARE: Final = 0.5
"""Share of macro-metastases that enclose an island of healthy tissue."""


@dataclass(frozen=True, eq=False)
class SlidePlan:
    """Level-0 pixels throughout."""

    node: Polygon
    """The lymph node with its capsule."""
    lesions: tuple[Polygon, ...]
    """One metastasis each, apart from each other; an island of healthy tissue is a hole."""
    pen: Polygon | None
    blur: Polygon | None

    @property
    def tumour(self) -> MultiPolygon:
        """All metastases."""
        return MultiPolygon(self.lesions)


def draw_plan(contents: SlideContents, rng: np.random.Generator) -> SlidePlan:
    """Raises ConfigError where a metastasis finds no room in the tissue."""
    width, height = contents.width_px, contents.height_px
    node = _blob(rng, roughness=0.05)
    left, top, right, bottom = node.bounds
    node = scale(node, 0.86 * width / (right - left), 0.86 * height / (bottom - top), origin=(0, 0))
    left, top, right, bottom = node.bounds
    node = translate(node, width / 2 - (left + right) / 2, height / 2 - (top + bottom) / 2)
    return SlidePlan(
        node,
        _lesions(rng, contents, node),
        _pen(rng, contents, node) if contents.pen else None,
        _blurred(rng, node) if contents.blur else None,
    )


def _lesions(rng: np.random.Generator, contents: SlideContents, node: Polygon) -> tuple[Polygon, ...]:
    for _ in range(_PLANS):
        lesions: list[Polygon] = []
        for size in contents.wanted:
            lesion = _placed(rng, contents, size, node, lesions)
            if lesion is None:
                break
            lesions.append(lesion)
        if len(lesions) == len(contents.wanted):
            return tuple(lesions)
    mm = (contents.width_px * contents.um_px / 1000, contents.height_px * contents.um_px / 1000)
    raise ConfigError(
        f"{contents.macro} macro-, {contents.micro} micro-metastases and {contents.itc} groups of isolated tumour "
        f"cells find no room on a slide of {mm[0]:.1f} x {mm[1]:.1f} mm",
        "a node that holds its metastases apart from each other",
        "make the slide larger (3 mm hold a macro-metastasis), or the metastases fewer",
    )


def _placed(
    rng: np.random.Generator, contents: SlideContents, size: NodeClass, node: Polygon, others: list[Polygon]
) -> Polygon | None:
    """A metastasis of ``size`` within the node and apart from the others, None where there is no room."""
    low, high = DIAMETER_UM[size]
    # On a small slide one micro-metastasis must leave room for the others.
    side_um = min(contents.width_px, contents.height_px) * contents.um_px
    diameter_um = float(rng.uniform(low, max(low, min(high, side_um * _LARGEST_SHARE))))
    room = shapely.buffer(node, -60 / contents.um_px)
    taken = shapely.buffer(shapely.union_all(others), _APART_UM / contents.um_px)
    for attempt in range(_TRIES):
        # What does not fit at first is tried slimmer and smaller, within its class.
        shape = scale(_blob(rng, roughness=0.09), 1.1 + float(rng.uniform(0, 1)), 1, origin=(0, 0))
        wanted = diameter_um + (low - diameter_um) * attempt / _TRIES
        factor = wanted / contents.um_px / longest_diameter(shape)
        shape = rotate(scale(shape, factor, factor, origin=(0, 0)), float(rng.uniform(0, 180)), origin=(0, 0))
        left, top, right, bottom = room.bounds
        shape = translate(shape, float(rng.uniform(left, right)), float(rng.uniform(top, bottom)))
        if shapely.covers(room, shape) and not shapely.intersects(taken, shape):
            return _with_island(rng, shape) if size is NodeClass.MACRO else shape
    return None


def _with_island(rng: np.random.Generator, shape: Polygon) -> Polygon:
    if rng.random() >= _ISLAND_SHARE:
        return shape
    radius = 0.12 * float(np.sqrt(shape.area))
    island = translate(
        scale(_blob(rng, 0.05), radius, radius, origin=(0, 0)), shape.centroid.x, shape.centroid.y
    )
    if not shapely.covers(shapely.buffer(shape, -radius), island):
        return shape
    return Polygon(shape.exterior, [island.exterior])


def _blob(rng: np.random.Generator, roughness: float) -> Polygon:
    """A smooth uneven disc of radius about 1 around the origin."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 8):
        radius += rng.normal(0, roughness / np.sqrt(wave / 2)) * np.cos(
            wave * angle + rng.uniform(0, 2 * np.pi)
        )
    radius = np.maximum(radius, 0.4)
    return Polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))


def _pen(rng: np.random.Generator, contents: SlideContents, node: Polygon) -> Polygon:
    """A stroke along a part of the node's border, half on the glass."""
    ring = np.asarray(node.exterior.coords)
    first = int(rng.integers(0, len(ring)))
    stroke = np.roll(ring, -first, axis=0)[: len(ring) // 4]
    return shapely.buffer(shapely.LineString(stroke), PEN_UM / contents.um_px / 2)


def _blurred(rng: np.random.Generator, node: Polygon) -> Polygon:
    """A patch of about a third of the node's extent, around one of its points."""
    left, top, right, bottom = node.bounds
    spot = scale(_blob(rng, 0.1), 0.32 * (right - left), 0.32 * (bottom - top), origin=(0, 0))
    angle = float(rng.uniform(0, 2 * np.pi))
    middle = ((left + right) / 2, (top + bottom) / 2)
    return translate(
        spot,
        middle[0] + 0.2 * (right - left) * np.cos(angle),
        middle[1] + 0.2 * (bottom - top) * np.sin(angle),
    )
