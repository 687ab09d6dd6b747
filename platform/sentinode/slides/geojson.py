"""Annotations as QuPath reads and writes them: GeoJSON features, in level-0 pixels.

    {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {...}, "properties":
        {"objectType": "annotation", "name": ..., "classification": {"name", "color"}, "measurements": {...}}}]}

Older releases of QuPath write a bare list of features, and measurements as a list of name and value. QuPath opens no
file in which a class has a name and no colour.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import shapely
from shapely import MultiPolygon

from sentinode.errors import SourceError
from sentinode.slides.annotations import PointBudget, Region, Shape, check_size, outline, polygons_of

_LOG = logging.getLogger(__name__)

COLOURS: Final = {
    "tumor": (200, 0, 0),
    "macro": (200, 0, 0),
    "micro": (230, 120, 0),
    "itc": (240, 200, 0),
    "tissue": (0, 140, 80),
    "ignore*": (180, 180, 180),
}
"""Red, green and blue of classes that Sentinode writes."""
_OTHER_COLOUR: Final = (90, 90, 200)


def write_geojson(regions: Sequence[Region]) -> bytes:
    """A feature collection that QuPath opens (drag it onto the image). Coordinates are kept to the last bit."""
    return (
        json.dumps({"type": "FeatureCollection", "features": [_feature(r) for r in regions]}) + "\n"
    ).encode()


def read_geojson(data: bytes, where: str) -> tuple[Region, ...]:
    """The regions of a feature collection, a feature or a list of features; ``where`` names the file.

    Points and lines have no area and are passed over; so are measurements that are not finite.

    Raises SourceError when the text is not such JSON, is too large, or when an outline is none (see ``outline``).
    """
    check_size(data, where)
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{where} is not JSON ({error})", "GeoJSON", "export it from QuPath again"
        ) from error
    features = raw
    if isinstance(raw, dict):
        features = [raw] if raw.get("type") == "Feature" else raw.get("features")
    if not isinstance(features, list):
        raise SourceError(
            f"{where} holds no features", "a GeoJSON feature collection", "export it from QuPath"
        )
    budget = PointBudget(where)
    regions = []
    for number, feature in enumerate(features):
        budget.take(regions=1)
        region = _region(feature, f"{where}, feature {number}", budget)
        if region is not None:
            regions.append(region)
    if passed_over := len(features) - len(regions):
        _LOG.warning("%s: %d points or lines passed over", where, passed_over)
    return tuple(regions)


def _feature(region: Region) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation"}
    if region.name:
        properties["name"] = region.name
    if region.label is not None:
        colour = COLOURS.get(region.label.lower(), _OTHER_COLOUR)
        properties["classification"] = {"name": region.label, "color": list(colour)}
    if region.measurements:
        properties["measurements"] = dict(region.measurements)
    return {"type": "Feature", "geometry": shapely.geometry.mapping(region.shape), "properties": properties}


def _region(feature: Any, where: str, budget: PointBudget) -> Region | None:
    try:
        geometry = feature["geometry"]
        kind, coordinates = geometry["type"], geometry.get("coordinates")
        properties = feature.get("properties") or {}
        label = _label(properties.get("classification"))
        name = properties.get("name") or ""
        measurements = _measurements(properties.get("measurements") or {})
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise SourceError(f"{where} is not a feature of QuPath's", "geometry and properties") from error
    if not isinstance(name, str) or not isinstance(label, str | None):
        raise SourceError(f"{where} has a name or a class that is not text", "text")
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return None
    if kind not in ("Polygon", "MultiPolygon"):
        raise SourceError(f"{where} is of type {str(kind)[:80]!r}", "Polygon or MultiPolygon")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    return Region(_shape(polygons, where, budget), label, name, measurements)


def _label(classification: Any) -> Any:
    """The class, which QuPath takes as a text too, and writes as ``names`` where it is made of several."""
    if not classification or isinstance(classification, str):
        return classification or None
    names = classification.get("names")
    return ": ".join(names) if names else classification.get("name")


def _shape(polygons: Any, where: str, budget: PointBudget) -> Shape:
    if not isinstance(polygons, list) or not polygons:
        raise SourceError(f"{where} has no coordinates", "rings of points")
    shapes = []
    for polygon in polygons:
        try:
            rings = [np.array(ring, np.float64) for ring in polygon]
        except (TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"{where} has a ring that is no list of points", "rings of x and y") from error
        if not rings or any(ring.ndim != 2 or ring.shape[1] < 2 for ring in rings):
            raise SourceError(f"{where} has a ring that is no list of points", "rings of x and y")
        budget.take(points=sum(len(ring) for ring in rings))
        shapes.append(outline([ring[:, :2] for ring in rings], where))
    if len(shapes) == 1:
        return shapes[0]
    whole = MultiPolygon([part for shape in shapes for part in shapely.get_parts(shape)])
    return whole if whole.is_valid else polygons_of(shapely.union_all(shapes))


def _measurements(raw: Any) -> dict[str, float]:
    pairs = raw.items() if isinstance(raw, dict) else [(m["name"], m["value"]) for m in raw]
    # QuPath writes NaN for what could not be measured, and null in other releases.
    found = {str(name): float(value) for name, value in pairs if value is not None}
    return {name: value for name, value in found.items() if math.isfinite(value)}
