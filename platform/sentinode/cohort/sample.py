"""Candidates for patches of one slide, by PCam's rule.

The slide is tiled by cells of 32 x 32 patch pixels; each is the centre of one patch of 3 x 3 cells. The patch is tumour
if its centre cell holds tumour. Among the negatives, those near the tumour are kept apart: they are the hard ones.
(PatchCamelyon: Veeling et al. 2018, arXiv:1806.03962, who found hard negatives by a network.)
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely import MultiPolygon

from sentinode.cohort.folder import CohortSlide
from sentinode.config import Record, canonical_json
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.errors import SourceError
from sentinode.schema import CENTRE_PX, PATCH_MPP_UM_PX, PATCH_PX
from sentinode.slides.annotations import tumour_of
from sentinode.slides.asap_xml import read_asap_xml
from sentinode.slides.geojson import read_geojson
from sentinode.slides.reader import open_slide
from sentinode.slides.slide import Slide
from sentinode.slides.tissue import find_tissue
from sentinode.storage import Store, join_url

Mask = NDArray[np.bool_]
Cells = NDArray[np.int64]
Corner = tuple[int, int]

COARSEST_UM_PX: Final = 1.1
"""Slides above it cannot give patches of 0.972 um/px."""
_CELLS: Final = PATCH_PX // CENTRE_PX


SHIFTED: Final = "shifted"
"""Flag of a slide with GeoJSON whose outlines may be counted from another place than its corner."""


class SlideSample(Record):
    """Candidates of one slide: upper left corners (x, y) in level-0 pixels, in random order."""

    slide: str
    key: str
    patch_px: int
    """Side of a patch in level-0 pixels."""
    positives: tuple[Corner, ...] = ()
    near: tuple[Corner, ...] = ()
    """Negatives near the tumour."""
    negatives: tuple[Corner, ...] = ()
    """Other negatives."""
    flags: tuple[str, ...] = ()
    """What is doubtful about the tissue that was found."""
    fault: str | None = None
    """Why the slide cannot be used; then there are no candidates."""


def sample_digest(slide: CohortSlide, annotation: bytes, config: SamplingConfig) -> str:
    """Names the outcome of ``sample_slide``: equal digests, equal candidates."""
    settings = config.model_dump(mode="json", exclude={"positive_share", "hard_share", "max_bad_slides"})
    value = [3, slide.model_dump(mode="json"), hashlib.sha256(annotation).hexdigest(), settings]
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sample_slide(store: Store, slide: CohortSlide, config: SamplingConfig) -> SlideSample:
    """Open a slide, find its tissue, read its annotation and draw candidates.

    Raises SourceError for a slide or annotation that cannot be used, StoreError.
    """
    with open_slide(join_url(store.url, slide.key), config.um_px) as opened:
        check_resolution(opened)
        tissue = find_tissue(opened)
        tumour = read_tumour(store, slide.annotation) if slide.annotation else MultiPolygon()
        check_outlines(tumour, opened)
        flags: tuple[str, ...] = tissue.record.flags
        if opened.scanned_from_px != (0, 0) and slide.annotation and not _is_asap(slide.annotation):
            flags += (SHIFTED,)
        grid = Grid.over(opened, _generator(config.seed, slide.name))
        return grid.draw(slide, config, tissue.shape, tumour, flags)


def check_resolution(slide: Slide) -> None:
    """Raises SourceError where a slide is too coarse for patches."""
    if slide.um_px > COARSEST_UM_PX:
        raise SourceError(
            f"{slide.url} has {slide.um_px:.3g} um/px", f"at most {COARSEST_UM_PX}", "scan it at 10x or finer"
        )


def check_outlines(tumour: MultiPolygon, slide: Slide) -> None:
    """Raises SourceError where an outline lies wholly beside the slide: it is another's, and tissue that it leaves
    out would be taken for negative."""
    width, height = slide.level_dimensions[0]
    on_slide = shapely.intersects(list(tumour.geoms), shapely.box(0, 0, width, height))
    if not on_slide.all():
        raise SourceError(
            f"{np.count_nonzero(~on_slide)} of {len(on_slide)} annotated outlines lie beside {slide.url}",
            f"outlines in pixels of level 0, {width} x {height}",
            "see whether the annotation is that of another slide, or in other units",
        )


def read_tumour(store: Store, key: str) -> MultiPolygon:
    """The tumour that an annotation file outlines. Raises SourceError, StoreError."""
    data, where = store.get(key), store.locate(key)
    regions = read_asap_xml(data, where) if _is_asap(key) else read_geojson(data, where)
    return tumour_of(regions, where)


def _is_asap(key: str) -> bool:
    return key.lower().endswith(".xml")


class Grid:
    """The cells of one slide; a cell lies at its column and row, [rows, columns] in masks."""

    def __init__(self, size: tuple[int, int], um_px: float, rng: np.random.Generator) -> None:
        self._rng = rng
        self.cell = CENTRE_PX * PATCH_MPP_UM_PX / um_px
        """Side in level-0 pixels."""
        self._offset = rng.uniform(0, self.cell, 2)
        self._columns, self._rows = (
            max(0, int((n - o) / self.cell)) for n, o in zip(size, self._offset, strict=True)
        )

    @classmethod
    def over(cls, slide: Slide, rng: np.random.Generator) -> Grid:
        """A grid whose origin is drawn."""
        return cls(slide.level_dimensions[0], slide.um_px, rng)

    def draw(
        self,
        slide: CohortSlide,
        config: SamplingConfig,
        tissue: MultiPolygon,
        tumour: MultiPolygon,
        flags: tuple[str, ...] = (),
    ) -> SlideSample:
        """The candidates; at most ``config.patches_per_slide`` of each kind."""
        usable = self._usable(tissue, config.min_tissue)
        hit = self.holding(tumour)
        near = np.zeros_like(hit)
        if hit.any():
            near = ndimage.distance_transform_edt(~hit) * CENTRE_PX * PATCH_MPP_UM_PX <= config.near_um
        negative = usable & ~hit if slide.negatives else np.zeros_like(hit)
        kinds = (usable & hit, negative & near, negative & ~near)
        positives, hard, others = (self._chosen(mask, config.patches_per_slide) for mask in kinds)
        return SlideSample(
            slide=slide.name,
            key=slide.key,
            patch_px=self.patch_px,
            positives=positives,
            near=hard,
            negatives=others,
            flags=flags,
        )

    @property
    def patch_px(self) -> int:
        """Side of a patch in level-0 pixels."""
        return round(self.cell * _CELLS)

    def holding(self, tumour: MultiPolygon) -> Mask:
        """The cells with which ``tumour`` shares an area."""
        mask = np.zeros((self._rows, self._columns), bool)
        for part in tumour.geoms:
            shapely.prepare(part)
            left, top, right, bottom = part.bounds
            (x0, x1), (y0, y1) = (
                (max(0, int((a - o) // self.cell)), min(n, int((b - o) // self.cell) + 1))
                for a, b, o, n in zip(
                    (left, top), (right, bottom), self._offset, (self._columns, self._rows), strict=True
                )
            )
            if x0 >= x1 or y0 >= y1:
                continue
            x, y = (
                o + self.cell * np.arange(a, b)
                for o, a, b in zip(self._offset, (x0, y0), (x1, y1), strict=True)
            )
            # A hair smaller: what only touches an edge is no tumour within.
            edge = self.cell * (1 - 1e-6)
            boxes = shapely.box(x[None, :], y[:, None], x[None, :] + edge, y[:, None] + edge)
            mask[y0:y1, x0:x1] |= shapely.intersects(part, boxes)
        return mask

    def within(self, area: MultiPolygon) -> Mask:
        """The cells whose centre lies in ``area``."""
        x = self._offset[0] + self.cell * (np.arange(self._columns) + 0.5)
        y = self._offset[1] + self.cell * (np.arange(self._rows) + 0.5)
        shapely.prepare(area)
        inside: Mask = shapely.intersects_xy(area, x[None, :], y[:, None])
        return inside

    def with_room(self, mask: Mask) -> Cells:
        """Row and column [N, 2] of the cells of ``mask`` around which a whole patch lies on the slide."""
        cells: Cells = np.argwhere(mask[1:-1, 1:-1]) + 1
        return cells

    def centres(self, cells: Cells) -> NDArray[np.float64]:
        """x and y [N, 2] of the cells' centres, level-0 pixels."""
        points: NDArray[np.float64] = (cells[:, ::-1] + 0.5) * self.cell + self._offset
        return points

    def corners(self, cells: Cells) -> tuple[Corner, ...]:
        """Upper left corners of the patches around ``cells``: one cell before them."""
        corners = np.rint((cells[:, ::-1] - 1) * self.cell + self._offset).astype(int)
        return tuple((x, y) for x, y in corners.tolist())

    def _usable(self, tissue: MultiPolygon, min_tissue: float) -> Mask:
        """The cells whose patch is tissue enough, their centre included."""
        inside = self.within(tissue)
        share = ndimage.uniform_filter(inside.astype(np.float32), _CELLS, mode="constant")
        return np.asarray(inside & (share >= min_tissue - 1e-6))

    def _chosen(self, mask: Mask, most: int) -> tuple[Corner, ...]:
        cells = self.with_room(mask)
        return self.corners(cells[self._rng.permutation(len(cells))[:most]])


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(canonical_json([seed, name])).digest()
    return np.random.Generator(
        np.random.Philox(key=[int.from_bytes(digest[:8]), int.from_bytes(digest[8:16])])
    )
