"""ASAP's annotation XML, in which Camelyon16 and Camelyon17 give their lesions.

    ASAP_Annotations / Annotations / Annotation[@Name, @Type, @PartOfGroup]
        / Coordinates / Coordinate[@Order, @X, @Y]

The file is streamed through expat, and a document type declaration is refused: with none there are no entities,
thus no entity bombs and no reads of other files.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

import numpy as np
from shapely import LinearRing

from sentinode.errors import SourceError
from sentinode.slides.annotations import PointBudget, Region, check_size, outline, polygons_of

_LOG = logging.getLogger(__name__)

_ROOT: Final = "ASAP_Annotations"
_OUTLINES: Final = ("Polygon", "Rectangle", "Spline")
"""Types with an area. A spline counts as the polygon of its points."""
_MARKS: Final = ("Dot", "PointSet", "Measurement")
"""Types without an area, which are passed over."""


def read_asap_xml(data: bytes, where: str) -> tuple[Region, ...]:
    """The regions of an ASAP file in its order; the label of a region is its group. ``where`` names the file.

    Raises SourceError when the file is not whole XML, has another root, declares entities, is too large, or
    when an outline is none (see ``outline``).
    """
    check_size(data, where)
    reader = _Reader(where)
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: of an encoding that is none
        raise SourceError(
            f"{where} is not whole XML ({error})", "ASAP's annotation file", "save it again from ASAP"
        ) from error
    if reader.marks:
        _LOG.warning("%s: %d dots, point sets or measurements passed over", where, reader.marks)
    return tuple(reader.regions)


class _Reader:
    """Takes the parser's events; one annotation at a time is open."""

    def __init__(self, where: str) -> None:
        self.regions: list[Region] = []
        self.marks = 0
        self._where = where
        self._budget = PointBudget(where)
        self._started = False
        self._open: dict[str, str] | None = None
        self._points = array("d")

    def doctype(self, *_: object) -> None:
        raise SourceError(
            f"{self._where} declares a document type",
            "an ASAP file, which has none",
            "remove the declaration",
        )

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._started and tag != _ROOT:
            raise SourceError(f"{self._where} has the root element {tag[:80]}", _ROOT)
        self._started = True
        if tag == "Annotation":
            if self._open is not None:
                raise SourceError(f"{self._where} has an annotation within another", "one after the other")
            self._budget.take(regions=1)
            self._open, self._points = attributes, array("d")
        elif tag == "Coordinate" and self._open is not None:
            self._budget.take(points=1)
            self._points.extend(self._point(attributes))

    def end(self, tag: str) -> None:
        if tag != "Annotation" or self._open is None:
            return
        attributes, self._open = self._open, None
        name, kind = attributes.get("Name", ""), attributes.get("Type", "")
        at = f"{self._where}, annotation {name[:80]!r}"
        if kind in _MARKS:
            self.marks += 1
            return
        if kind not in _OUTLINES:
            raise SourceError(f"{at} is of type {kind[:80]!r}", " or ".join(_OUTLINES + _MARKS))
        if "PartOfGroup" not in attributes:
            raise SourceError(f"{at} names no group", "the attribute PartOfGroup")
        points = np.array(self._points, np.float64).reshape(-1, 3)
        ring = points[np.argsort(points[:, 0], kind="stable"), 1:]
        self.regions.append(Region(outline([ring], at), attributes["PartOfGroup"], name))

    def _point(self, attributes: dict[str, str]) -> tuple[float, float, float]:
        try:
            order = attributes.get("Order", len(self._points) // 3)
            return float(order), float(attributes["X"]), float(attributes["Y"])
        except (KeyError, ValueError) as error:
            raise SourceError(
                f"{self._where} has a coordinate {str(attributes)[:120]}", "numbers as Order, X and Y"
            ) from error


def write_asap_xml(regions: Sequence[Region], hole_group: str = "_2") -> bytes:
    """An ASAP file of ``regions`` in their order, the label as the group; ``read_asap_xml`` reads it.

    ASAP knows no holes: one becomes an annotation of ``hole_group``, which ``tumour_of`` takes away again, and a
    region of several parts becomes one annotation a part.
    """
    rings = [
        (region.label or "None", part.exterior, [*part.interiors])
        for region in regions
        for part in polygons_of(region.shape).geoms
    ]
    flat = [(group, outer) for group, outer, _ in rings]
    flat += [(hole_group, hole) for _, _, holes in rings for hole in holes]
    annotations = "".join(
        f'\t\t<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup={quoteattr(group)} '
        f'Color="#F4FA58">\n\t\t\t<Coordinates>\n{_points(ring)}\t\t\t</Coordinates>\n\t\t</Annotation>\n'
        for number, (group, ring) in enumerate(flat)
    )
    groups = "".join(
        f'\t\t<Group Name={quoteattr(group)} PartOfGroup="None" Color="#00ff00"><Attributes /></Group>\n'
        for group in sorted({group for group, _ in flat})
    )
    return (
        f'<?xml version="1.0"?>\n<{_ROOT}>\n\t<Annotations>\n{annotations}\t</Annotations>\n'
        f"\t<AnnotationGroups>\n{groups}\t</AnnotationGroups>\n</{_ROOT}>\n"
    ).encode()


def _points(ring: LinearRing) -> str:
    """A closed ring as ASAP's open one."""
    return "".join(
        f'\t\t\t\t<Coordinate Order="{order}" X="{x!r}" Y="{y!r}" />\n'
        for order, (x, y) in enumerate(np.asarray(ring.coords)[:-1, :2].tolist())
    )
