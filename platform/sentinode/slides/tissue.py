"""Where the tissue of an H&E slide is: Otsu's threshold on the saturation at low power, less ink and blur.

The result is a polygon in level-0 pixels and a record that says how much was taken, what was left out, and whether
the mask is to be trusted: one that takes nearly everything or nothing is flagged, never passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field
from shapely import MultiPolygon

from sentinode.config import Frozen, Record
from sentinode.slides.annotations import Region
from sentinode.slides.focus import out_of_focus
from sentinode.slides.geojson import write_geojson
from sentinode.slides.outlines import outlines
from sentinode.slides.slide import Slide
from sentinode.slides.tissue_mask import Bytes, Mask, clean, hue_saturation_value, ink, otsu
from sentinode.storage import Store

_TOLERANCE_PX: Final = 0.75
"""A diagonal staircase becomes a line (0.71); corners stay."""

Flag = Literal["nearly_everything", "nearly_nothing", "no_contrast", "pen", "blurred"]
"""Mask beyond ``most_share``; below ``least_mm2``; saturation without two classes; ink found; much tissue blurred."""


class TissueSettings(Frozen):
    """How tissue is found. The defaults are for H&E."""

    um_px: float = Field(default=8.0, ge=1, le=64)
    """Resolution of the mask."""
    least_saturation: float = Field(default=0.05, ge=0, le=1)
    most_saturation: float = Field(default=0.15, ge=0, le=1)
    """Bounds of Otsu's threshold. Glass is below 0.03. Above 0.15 Otsu would part pale tissue from dark tissue."""
    close_um: float = Field(default=24.0, ge=0)
    open_um: float = Field(default=24.0, ge=0)
    min_object_mm2: float = Field(default=0.01, ge=0)
    max_hole_mm2: float = Field(default=0.02, ge=0)
    pen_stroke_um: float = Field(default=150.0, gt=0)
    """Thinner ink-coloured things are no pen."""
    pen_margin_um: float = Field(default=40.0, ge=0)
    focus_cell_um: float = Field(default=512.0, ge=256)
    min_sharpness: float = Field(default=0.6, ge=0)
    """See ``focus``; 0 takes blurred tissue too. Five Camelyon17 centres have 5.9 to 9.1, and 0.66 to 1.3, 0.20 to 0.37
    and 0.09 to 0.20 after a Gaussian blur of 2, 3 and 4 um; scans at 20x have 1.2 and more."""
    most_share: float = Field(default=0.95, gt=0, le=1)
    least_mm2: float = Field(default=0.1, ge=0)
    most_blurred: float = Field(default=0.2, ge=0, le=1)
    """Blurred share of the tissue from which on the slide is flagged."""


class TissueRecord(Record):
    """What was found on one slide. Shares are of the slide's area unless said."""

    slide: str
    slide_digest: str
    um_px: float
    """Micrometres per pixel of the slide at level 0."""
    settings: TissueSettings
    threshold: float
    """Saturation from which on a pixel is tissue, 0 to 1."""
    share: float
    area_mm2: float
    pieces: int
    pen_share: float
    blurred_of_tissue: float
    """Share of the tissue that was left out for its blur."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True, eq=False)
class Tissue:
    """The tissue of one slide, level-0 pixels."""

    shape: MultiPolygon
    pen: MultiPolygon
    blurred: MultiPolygon
    record: TissueRecord

    def to_geojson(self) -> bytes:
        """For QuPath: what was taken as ``Tissue``, what was left out as ``Ignore*``."""
        regions = [Region(self.shape, "Tissue", "tissue", {"Area mm^2": self.record.area_mm2})]
        regions += [Region(self.pen, "Ignore*", "pen"), Region(self.blurred, "Ignore*", "blurred")]
        return write_geojson([region for region in regions if not region.shape.is_empty])

    def save(self, store: Store, name: str) -> None:
        """Write ``<name>.tissue.geojson`` and, last, ``<name>.tissue.json``. Raises StoreError."""
        store.put(f"{name}.tissue.geojson", self.to_geojson())
        store.put(f"{name}.tissue.json", self.record.to_json())


def find_tissue(slide: Slide, settings: TissueSettings | None = None) -> Tissue:
    """Raises SourceError where the slide is damaged, ConfigError where its overview is too large, StoreError."""
    settings = settings or TissueSettings()
    rgb = slide.overview(settings.um_px)
    mask, pen, threshold, contrast = _tissue_and_pen(rgb, settings, _um_px(slide, rgb.shape[1]))
    blurred = out_of_focus(slide, mask, settings.focus_cell_um, settings.min_sharpness)
    kept = mask & ~blurred
    scale = (slide.level_dimensions[0][0] / rgb.shape[1], slide.level_dimensions[0][1] / rgb.shape[0])
    shape, pen_shape, blurred_shape = (outlines(m, scale, _TOLERANCE_PX) for m in (kept, pen, blurred))
    area_mm2 = float(shape.area) * slide.um_px**2 / 1e6
    blurred_of_tissue = float(blurred.sum() / max(1, mask.sum()))
    flags: dict[Flag, bool] = {
        "nearly_everything": mask.mean() > settings.most_share,
        "nearly_nothing": area_mm2 < settings.least_mm2,
        "no_contrast": contrast < settings.least_saturation,
        "pen": bool(pen.any()),
        "blurred": blurred_of_tissue > settings.most_blurred,
    }
    record = TissueRecord(
        slide=slide.url,
        slide_digest=slide.digest,
        um_px=slide.um_px,
        settings=settings,
        threshold=threshold,
        share=float(kept.mean()),
        area_mm2=area_mm2,
        pieces=len(shape.geoms),
        pen_share=float(pen.mean()),
        blurred_of_tissue=blurred_of_tissue,
        flags=tuple(flag for flag, raised in flags.items() if raised),
    )
    return Tissue(shape, pen_shape, blurred_shape, record)


def _um_px(slide: Slide, width: int) -> float:
    """Micrometres per pixel of an overview ``width`` wide."""
    return slide.um_px * slide.level_dimensions[0][0] / width


def _tissue_and_pen(rgb: Bytes, settings: TissueSettings, um_px: float) -> tuple[Mask, Mask, float, float]:
    """Masks of tissue without pen and of pen, the threshold (0 to 1), and the contrast of the two classes."""

    def odd(um: float) -> int:
        return 2 * round(um / um_px / 2) + 1

    hue, saturation, value = hue_saturation_value(rgb)
    pen = ink(hue, saturation, value, odd(settings.pen_stroke_um), round(settings.pen_margin_um / um_px))
    found, contrast = otsu(saturation[~pen]) if not pen.all() else (0.0, 0.0)
    threshold = min(max(found / 255, settings.least_saturation), settings.most_saturation)
    px_mm2 = (1000 / um_px) ** 2
    mask = clean(
        (saturation >= threshold * 255) & ~pen,
        odd(settings.close_um),
        odd(settings.open_um),
        round(settings.min_object_mm2 * px_mm2),
        round(settings.max_hole_mm2 * px_mm2),
    )
    # Closing and filling may have reached over a stroke.
    return mask & ~pen, pen, threshold, contrast / 255
