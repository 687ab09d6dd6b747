"""What one process does for a slide: find tissue, score tiles, write the files. Knows nothing of Ray."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.card import Card
from sentinode.config import Frozen
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.distributed.slide_files import write_files
from sentinode.distributed.tile_scorer import Method, ReadAhead, TileScorer, method_for
from sentinode.errors import ConfigError, SourceError
from sentinode.evaluation.found_lesions import find_lesions, find_peaks
from sentinode.evaluation.heat_map import HeatMap
from sentinode.evaluation.slide_pooling import slide_score
from sentinode.evaluation.slide_record import SlideScore, record_key
from sentinode.schema import NodeClass
from sentinode.slides.cells import cells_covered
from sentinode.slides.lesions import node_class_of
from sentinode.slides.listing import SlideFile
from sentinode.slides.reader import open_slide
from sentinode.slides.score_grid import Mask, ScoreGrid, Tile, tiles_of
from sentinode.slides.slide import Slide
from sentinode.slides.tissue import TissueRecord, find_tissue
from sentinode.storage import open_store

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class SlidePlan:
    """What is to be scored of one slide."""

    grid: ScoreGrid
    wanted: Mask
    """bool [rows, columns]: the cells to be judged. Tiles are rectangles, and hold others as well."""
    tiles: tuple[Tile, ...]
    tissue: TissueRecord


class LesionPoint(Frozen):
    """The threshold that outlines lesions, and the operating point that it belongs to."""

    threshold: float
    name: str


def lesion_point(card: Card, settings: ScoringSettings) -> LesionPoint:
    """Raises ConfigError where the card has no such operating point."""
    if settings.lesion_threshold is not None:
        return LesionPoint(threshold=settings.lesion_threshold, name="given by hand")
    wanted = settings.operating_point
    point = card.operating_point(wanted or "balanced") or (None if wanted else card.operating_point())
    if point is None:
        raise ConfigError(
            f"bundle {card.name} has no operating point {wanted!r}",
            "one of " + ", ".join(p.name for p in card.operating_points),
        )
    return LesionPoint(threshold=point.threshold, name=point.name)


class _Model(NamedTuple):
    card: Card
    method: Method
    scorer: TileScorer
    point: LesionPoint


class SlideWorker:
    """One bundle, ready to score slides. Its methods may run in several threads, for a slide each."""

    def __init__(
        self, registry: str, digest: str, settings: ScoringSettings, out: str, compute: Compute
    ) -> None:
        """Nothing is loaded yet: what ``where`` raises would end the process here, with its reason."""
        self._registry, self._digest = registry, digest
        self._settings, self._compute = settings, compute
        self._store = open_store(out)
        self._kept = threading.local()

    def where(self) -> str:
        """Load the bundle; the execution provider of ONNX Runtime that is in use.

        Raises BundleError where the bundle is damaged or computes something else here, ConfigError, StoreError.
        """
        return self._model.scorer.provider

    @cached_property
    def _model(self) -> _Model:
        settings = self._settings
        with tempfile.TemporaryDirectory(prefix="sentinode-bundle-") as folder:
            bundle = open_bundle(open_store(self._registry), self._digest, Path(folder))
            method = method_for(bundle.card, settings.stride_px, settings.method)
            scorer = TileScorer(bundle, settings.stride_px, method, self._compute.cpus_per_actor)
        return _Model(bundle.card, method, scorer, lesion_point(bundle.card, settings))

    def plan(self, file: SlideFile) -> SlidePlan:
        """Open the slide and find its tissue, which is written. Raises SourceError, StoreError."""
        slide = self._open(file)
        grid = ScoreGrid.of(slide, self._model.card.mpp_um_px, self._settings.stride_px)
        tissue = find_tissue(slide, self._settings.tissue)
        # From here on files of an earlier scoring are overwritten: its record stands for them no more.
        self._store.delete(record_key(file.name))
        tissue.save(self._store.sub(f"slides/{file.name}"), file.name)
        if self._settings.whole_slide:
            wanted = np.ones((grid.rows, grid.columns), np.bool_)
        else:
            wanted = cells_covered(tissue.shape, grid.rows, grid.columns, grid.cell_px)
        if not wanted.any():
            raise SourceError(
                f"{slide.url} shows no tissue",
                "a stained slide, or --whole-slide to score it all",
                f"look at it; its mask has the flags {', '.join(tissue.record.flags) or 'none'}",
            )
        return SlidePlan(grid, wanted, tiles_of(wanted, self._compute.tile_cells), tissue.record)

    def score(self, file: SlideFile, grid: ScoreGrid, tiles: Sequence[Tile]) -> list[Logits]:
        """Logits float32 [rows, columns] of each tile. Raises SourceError, StoreError."""
        slide = self._open(file)
        with ReadAhead(self._compute.readers, ahead=2 * self._compute.readers) as ahead:
            return [
                self._model.scorer.logits(pixels)
                for _, pixels in ahead.over(lambda tile: self._model.scorer.read(slide, grid, tile), tiles)
            ]

    def finish(self, file: SlideFile, plan: SlidePlan, logits: Logits, began: float) -> SlideScore:
        """Calibrate, measure, write the files and, last, the record. Raises StoreError, SourceError.

        ``logits`` [rows, columns] are those of the tiles, NaN where there was none; ``began`` is the time at which work
        on the slide was begun, as ``time.time`` says it.
        """
        slide, grid = self._open(file), plan.grid
        scored = plan.wanted & ~np.isnan(logits)
        heat = np.full(logits.shape, np.nan, np.float32)
        heat[scored] = self._model.card.calibration.probabilities(logits[scored])
        rows, columns = np.nonzero(scored)
        cells = HeatMap.of(heat[scored].astype(np.float64), np.stack([columns, rows], axis=1), grid.cell_um)
        lesions, left_out = find_lesions(
            heat, self._model.point.threshold, grid.cell_px, slide.um_px, self._settings.min_lesion_cells
        )
        sizes = [found.lesion.size for found in lesions]
        record = self._about(file, slide, plan).model_copy(
            update={
                "score": self._pooled(cells),
                "node_class": node_class_of([found.lesion for found in lesions]),
                "lesions": len(lesions),
                **{size.value: sizes.count(size) for size in NodeClass if size is not NodeClass.NEGATIVE},
                "largest_um": max((found.lesion.longest_diameter_um for found in lesions), default=0.0),
                "tumour_mm2": sum(found.lesion.area_um2 for found in lesions) / 1e6,
                "cells": len(rows),
                "flags": (*plan.tissue.flags, *(("too_many_lesions",) if left_out else ())),
                "seconds": round(max(0.0, time.time() - began), 3),
            }
        )
        peaks = find_peaks(heat, self._settings.detections_from, grid.cell_px, grid.cell_um)
        write_files(self._store, slide, grid, heat, lesions, peaks, record)
        return record

    def _about(self, file: SlideFile, slide: Slide, plan: SlidePlan) -> SlideScore:
        settings, (width, height) = self._settings, slide.level_dimensions[0]
        return SlideScore(
            slide=file.name,
            url=file.url,
            status="done",
            key=settings.key(file, self._digest),
            bundle=self._digest,
            settings=settings.shared,
            pooling=(settings.fitted or settings).pooling.method.value,
            tissue_mm2=plan.tissue.area_mm2,
            blurred_of_tissue=0.0 if settings.whole_slide else plan.tissue.blurred_of_tissue,
            threshold=self._model.point.threshold,
            operating_point=self._model.point.name,
            method=self._model.method,
            stride_um=plan.grid.cell_um,
            um_px=slide.um_px,
            um_px_given=settings.mpp_um_px is not None,
            read_as=plan.grid.how,
            width_px=width,
            height_px=height,
        )

    def _pooled(self, cells: HeatMap) -> float:
        fitted = self._settings.fitted
        return slide_score(cells, self._settings.pooling) if fitted is None else fitted.score(cells)

    def _open(self, file: SlideFile) -> Slide:
        """The slide, which stays open in this thread until another is asked for."""
        kept: tuple[SlideFile, Slide] | None = getattr(self._kept, "slide", None)
        if kept is not None and kept[0] == file:
            return kept[1]
        if kept is not None:
            self._kept.slide = None
            kept[1].close()
        slide = open_slide(file.url, self._settings.mpp_um_px)
        self._kept.slide = (file, slide)
        return slide
