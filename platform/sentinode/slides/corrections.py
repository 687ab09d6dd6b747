"""A pathologist's corrections of what a model found on one slide, as a GeoJSON file that QuPath opens too.

    {"type": "FeatureCollection",
     "sentinode": {"schema_version": 1, "slide": ..., "slide_url": ..., "um_px": ..., "bundle": ...},
     "features": [{"type": "Feature", "geometry": {...}, "properties": {"objectType": "annotation",
         "name": ..., "classification": {"name": "Tumor"}, "measurements": {"Score": ...},
         "sentinode": {"action": "accept", "lesion": 3, "by": ..., "at": ..., "note": ...}}}]}

An accepted lesion and a drawn tumour are of class ``Tumor``, a rejected lesion is ``Ignore*`` (a drawn healthy area as
well). Features drawn in QuPath without the member ``sentinode`` count as drawn, by their class, of which reading makes
one of these two where it means one (``macro``, ``Normal``) and which it leaves as it is where it means neither
(``Stroma``). The file speaks of what it outlines and of nothing else: tissue without an outline is not thereby healthy.

Where outlines of different meaning overlap, a drawn one stands above a judged one: who rejects a lesion for its outline
draws the right one inside. Among either, the later one stands above.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import shapely
from pydantic import Field, ValidationError
from shapely import MultiPolygon

from sentinode.config import Frozen, Record, summarise
from sentinode.errors import SourceError
from sentinode.slides.annotations import Classes, Region, Role, check_size, polygons_of, roles_of
from sentinode.slides.geojson import read_geojson, write_geojson

SUFFIX: Final = ".corrections.geojson"
TUMOUR: Final = "Tumor"
HEALTHY: Final = "Ignore*"
SCORE: Final = "Score"
"""Measurement that holds the model's probability of a lesion."""
_MEMBER: Final = "sentinode"
_CLASSES: Final = Classes(tumour=(*Classes().tumour, "macro", "micro", "itc"))
"""A model's lesions that somebody kept in QuPath have their size as class."""

_NOW: Final = "~"
"""Sorts behind every date."""

Action = Literal["accept", "reject", "draw"]


class Mark(Frozen):
    """What was done with one outline, by whom and when."""

    action: Action = "draw"
    lesion: int | None = None
    """Number of the model's lesion that was judged; None for a drawn one."""
    by: str = Field(default="", max_length=200)
    """Who did it, as the caller was known; no name is needed."""
    at: str = Field(default="", max_length=40)
    """When: ISO 8601 in UTC."""
    note: str = Field(default="", max_length=2000)


class CorrectedSlide(Record):
    """Which slide was corrected."""

    slide: str = Field(min_length=1, max_length=500)
    """Name: the file's, without its extension."""
    slide_url: str = Field(default="", max_length=2000)
    """Where it lay."""
    um_px: float | None = Field(default=None, gt=0, le=10)
    """Micrometres per pixel at level 0, where they were given by hand."""
    bundle: str = Field(default="", max_length=200)
    """Digest of the model whose lesions were judged."""


@dataclass(frozen=True, eq=False)
class Correction:
    """One outline with its mark."""

    region: Region
    mark: Mark

    @classmethod
    def of(cls, region: Region, mark: Mark, tumour: bool | None = None) -> Correction:
        """Give ``region`` the class that its action means; ``tumour`` says what was drawn, or else its class does."""
        role = _CLASSES.roles.get((region.label or "").lower())
        if mark.action == "draw" and tumour is None and role == "other":
            return cls(region, mark)
        drawn = role != "excluded" if tumour is None else tumour
        label = TUMOUR if {"accept": True, "reject": False, "draw": drawn}[mark.action] else HEALTHY
        return cls(Region(region.shape, label, region.name, region.measurements), mark)


@dataclass(frozen=True, eq=False)
class Corrections:
    """All corrections of one slide; of those that do not say when, the latest last."""

    slide: CorrectedSlide
    corrections: tuple[Correction, ...]

    @property
    def tumour(self) -> MultiPolygon:
        """What is tumour: accepted or drawn, less what stands above it as healthy."""
        return self._left_of("tumour")

    @property
    def healthy(self) -> MultiPolygon:
        """What is no tumour: rejected or drawn as healthy, less what stands above it as tumour."""
        return self._left_of("excluded")

    @property
    def overlaps(self) -> int:
        """Pairs of outlines that share an area and mean different things there."""
        return sum(len(above) for above in self._above)

    @cached_property
    def _roles(self) -> list[Role]:
        return roles_of([c.region for c in self.corrections], self.slide.slide, _CLASSES)

    @cached_property
    def _above(self) -> list[list[int]]:
        """For each outline, those above it that mean the other thing."""
        shapes = [c.region.shape for c in self.corrections]
        rank = {n: place for place, n in enumerate(sorted(range(len(shapes)), key=self._standing))}
        above: list[list[int]] = [[] for _ in shapes]
        for low, high in shapely.STRtree(shapes).query(shapes, "intersects").T.tolist():
            differ = {self._roles[low], self._roles[high]} == {"tumour", "excluded"}
            if differ and rank[low] < rank[high] and not shapely.touches(shapes[low], shapes[high]):
                above[low].append(high)
        return above

    def _standing(self, number: int) -> tuple[bool, str]:
        mark = self.corrections[number].mark
        # What does not say when is new: it is dated when it is saved.
        return mark.action == "draw", mark.at or _NOW

    def _left_of(self, role: Role) -> MultiPolygon:
        shapes = [c.region.shape for c in self.corrections]
        left = [
            shapely.difference(shape, shapely.union_all([shapes[n] for n in above]))
            for shape, above, own in zip(shapes, self._above, self._roles, strict=True)
            if own == role
        ]
        return polygons_of(shapely.union_all(left))

    def to_geojson(self) -> bytes:
        """The file."""
        whole = json.loads(write_geojson([c.region for c in self.corrections]))
        whole[_MEMBER] = self.slide.model_dump(mode="json")
        for feature, correction in zip(whole["features"], self.corrections, strict=True):
            feature["properties"][_MEMBER] = correction.mark.model_dump(mode="json")
        return (json.dumps(whole) + "\n").encode()


def read_corrections(data: bytes, where: str, slide: str) -> Corrections:
    """The corrections of a file; ``slide`` is the slide's name where the file does not say it (QuPath's exports).

    Raises SourceError when it is no GeoJSON, an outline is none or has no class, or a class means neither.
    """
    check_size(data, where)
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{where} is not JSON ({error})", "GeoJSON", "save the corrections again"
        ) from error
    features = whole.get("features") if isinstance(whole, dict) else whole
    if not isinstance(features, list):
        raise SourceError(f"{where} holds no features", "a GeoJSON feature collection")
    header = whole.get(_MEMBER) if isinstance(whole, dict) else None
    try:
        about = CorrectedSlide.model_validate(header or {"slide": slide})
        marks = [Mark.model_validate(_member(feature)) for feature in features]
    except ValidationError as error:
        raise SourceError(
            f"{where}: {summarise(error)}", "corrections as slides.corrections has them"
        ) from error
    if about.schema_version != CorrectedSlide.model_fields["schema_version"].default:
        raise SourceError(
            f"{where} has schema_version {about.schema_version}", "1", "use the release that wrote it"
        )
    found = [
        (region, mark, bool(_member(feature)))
        for mark, feature in zip(marks, features, strict=True)
        for region in read_geojson(json.dumps(feature).encode(), where)
    ]
    # Asks for a known class of each.
    roles = roles_of([region for region, *_ in found], where, _CLASSES)
    # QuPath tells neither when nor in which order: Ignore* is what is to be taken away, wherever it stands in the file.
    last = [not is_marked and role == "excluded" for (*_, is_marked), role in zip(found, roles, strict=True)]
    ordered = sorted(range(len(found)), key=last.__getitem__)
    return Corrections(about, tuple(Correction.of(*found[n][:2]) for n in ordered))


def _member(feature: Any) -> Any:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return (properties.get(_MEMBER) if isinstance(properties, dict) else None) or {}
