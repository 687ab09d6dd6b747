"""A pathologist's corrections of what a model found on one slide, as a GeoJSON file that QuPath opens too.

    {"type": "FeatureCollection",
     "sentinode": {"schema_version": 1, "slide": ..., "slide_url": ..., "um_px": ..., "bundle": ...},
     "features": [{"type": "Feature", "geometry": {...}, "properties": {"objectType": "annotation",
         "name": ..., "classification": {"name": "Tumor"}, "measurements": {"Score": ...},
         "sentinode": {"action": "accept", "lesion": 3, "by": ..., "at": ..., "note": ...}}}]}

An accepted lesion and a drawn tumour are of class ``Tumor``, a rejected lesion is ``Ignore*`` (a drawn healthy area as
well). Features drawn in QuPath without the member ``sentinode`` count as drawn, by their class. The file speaks of what
it outlines and of nothing else: tissue without an outline is not thereby healthy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

import shapely
from pydantic import Field, ValidationError
from shapely import MultiPolygon

from sentinode.config import Frozen, Record, summarise
from sentinode.errors import SourceError
from sentinode.slides.annotations import Classes, Region, check_size, polygons_of, tumour_of
from sentinode.slides.geojson import read_geojson, write_geojson

SUFFIX: Final = ".corrections.geojson"
TUMOUR: Final = "Tumor"
HEALTHY: Final = "Ignore*"
SCORE: Final = "Score"
"""Measurement that holds the model's probability of a lesion."""
_MEMBER: Final = "sentinode"
_CLASSES: Final = Classes(tumour=(*Classes().tumour, "macro", "micro", "itc"))
"""A model's lesions that somebody kept in QuPath have their size as class."""

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
        """Give ``region`` the class that its action means; ``tumour`` says what was drawn."""
        is_tumour = {"accept": True, "reject": False, "draw": tumour is not False}[mark.action]
        label = TUMOUR if is_tumour else HEALTHY
        return cls(Region(region.shape, label, region.name, region.measurements), mark)


@dataclass(frozen=True, eq=False)
class Corrections:
    """All corrections of one slide, the latest last."""

    slide: CorrectedSlide
    corrections: tuple[Correction, ...]

    @property
    def tumour(self) -> MultiPolygon:
        """What is tumour: accepted and drawn, less what was rejected or drawn as healthy."""
        return tumour_of([c.region for c in self.corrections], self.slide.slide, _CLASSES)

    @property
    def healthy(self) -> MultiPolygon:
        """What is no tumour: rejected, or drawn as healthy."""
        excluded = set(_CLASSES.excluded)
        shapes = [c.region.shape for c in self.corrections if str(c.region.label).lower() in excluded]
        return polygons_of(shapely.union_all(shapes))

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
        Correction(region, mark)
        for mark, feature in zip(marks, features, strict=True)
        for region in read_geojson(json.dumps(feature).encode(), where)
    ]
    # Asks for a known class of each.
    tumour_of([correction.region for correction in found], where, _CLASSES)
    return Corrections(about, tuple(found))


def _member(feature: Any) -> Any:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return (properties.get(_MEMBER) if isinstance(properties, dict) else None) or {}
