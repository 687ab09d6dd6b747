"""Cases of the benchmark of slides: bundles of real networks, and tiles of a slide scored one way or another."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sentinode.bundle.bundle import ONNX_NAME, open_bundle
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.distributed.slide_worker import SlideWorker
from sentinode.distributed.tile_scorer import Method, ReadAhead, TileScorer
from sentinode.schema import PATCH_PX
from sentinode.slides.cells import cells_covered
from sentinode.slides.listing import list_slides
from sentinode.slides.model_pixels import read_model_pixels
from sentinode.slides.reader import open_slide
from sentinode.slides.score_grid import ScoreGrid, Tile, tiles_of
from sentinode.slides.slide import Slide
from sentinode.slides.tissue import find_tissue
from sentinode.storage import open_store

STRIDE_PX = 32
TILE_CELLS = 16
MODEL_UM_PX = 0.972

Way = Literal["dense", "patches", "single reads", "reading alone"]


def seal_recipe(registry: str, folder: Path, recipe: str) -> str:
    """Seal the network of ``recipe`` with random weights, which take as long as trained ones; returns the digest."""
    from dense_parts import detector, seal_detector

    from sentinode.recipes import recipe as named

    made = detector(named(recipe).model)
    return seal_detector(open_store(registry), folder / recipe, made, mpp_um_px=MODEL_UM_PX)


@dataclass(frozen=True)
class TileCase:
    """Tissue tiles of a slide, over and over: read and scored in one process; counts cells."""

    registry: str
    digest: str
    slide: str
    way: Way
    folder: str

    def __call__(self) -> Iterator[int]:
        scorer, slide, grid, tiles = self.open()
        yield 0
        if self.way == "single reads":
            yield from self._single_reads(slide, grid, tiles)
        with ReadAhead(1, ahead=2) as ahead:
            while True:
                for tile, pixels in ahead.over(lambda tile: scorer.read(slide, grid, tile), tiles):
                    if self.way == "reading alone":
                        yield tile.columns * tile.rows
                    else:
                        yield scorer.logits(pixels).size

    def open(self) -> tuple[TileScorer, Slide, ScoreGrid, tuple[Tile, ...]]:
        store = open_store(self.registry)
        bundle = open_bundle(store, self.digest, Path(self.folder))
        as_tiles = self.way in ("dense", "reading alone")
        method: Method = "dense" if as_tiles else "patches"
        slide = open_slide(self.slide)
        grid = ScoreGrid.of(slide, MODEL_UM_PX, STRIDE_PX)
        wanted = cells_covered(find_tissue(slide).shape, grid.rows, grid.columns, grid.cell_px)
        # Patches cost the same in tiles of any size: small ones make short turns.
        side = TILE_CELLS if as_tiles else TILE_CELLS // 2
        return TileScorer(bundle, STRIDE_PX, method), slide, grid, tiles_of(wanted, side)

    def _single_reads(self, slide: Slide, grid: ScoreGrid, tiles: tuple[Tile, ...]) -> Iterator[int]:
        """Each patch read from the slide by itself, as most tools do; in batches of 64."""
        model = OnnxModel(Path(self.folder, self.digest, ONNX_NAME))
        first = STRIDE_PX // 2 - PATCH_PX // 2
        cells = itertools.cycle(
            (tile.column + column, tile.row + row)
            for tile in tiles
            for row in range(tile.rows)
            for column in range(tile.columns)
        )
        while True:
            batch = list(itertools.islice(cells, 64))
            patches = [
                read_model_pixels(
                    slide, grid, c * STRIDE_PX + first, r * STRIDE_PX + first, PATCH_PX, PATCH_PX
                )
                for c, r in batch
            ]
            yield len(model.logits(np.stack(patches)))


@dataclass(frozen=True)
class SlideCase:
    """One whole slide from opening to its last file, without Ray; counts slides. Seconds of each phase go to
    ``phases.json`` in ``out``."""

    registry: str
    digest: str
    slide: str
    out: str

    def __call__(self) -> Iterator[int]:
        (file,) = list_slides(self.slide)
        compute = Compute(tile_cells=TILE_CELLS)
        worker = SlideWorker(self.registry, self.digest, ScoringSettings(), self.out, compute)
        yield 0
        while True:
            began = time.perf_counter()
            plan = worker.plan(file)
            planned = time.perf_counter()
            logits = np.full((plan.grid.rows, plan.grid.columns), np.nan, np.float32)
            for at in range(0, len(plan.tiles), 16):
                chunk = plan.tiles[at : at + 16]
                for tile, part in zip(chunk, worker.score(file, plan.grid, chunk), strict=True):
                    logits[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns] = part
            scored = time.perf_counter()
            worker.finish(file, plan, logits, began=time.time())
            phases = {
                "tissue": planned - began,
                "scoring": scored - planned,
                "files": time.perf_counter() - scored,
                "cells": int(np.isfinite(logits).sum()),
            }
            Path(self.out, "phases.json").write_text(json.dumps(phases))
            yield 1


def largest_difference(dense: TileCase, patches: TileCase, cells: int = 100) -> float:
    """Largest difference of the probabilities of the two ways on the first tiles."""
    scorer, *_ = dense.open()
    other, slide, grid, tiles = patches.open()
    worst, seen = 0.0, 0
    for tile in tiles:
        one = scorer.logits(scorer.read(slide, grid, tile)).astype(np.float64)
        two = other.logits(other.read(slide, grid, tile)).astype(np.float64)
        worst = max(worst, float(np.abs(1 / (1 + np.exp(-one)) - 1 / (1 + np.exp(-two))).max()))
        seen += one.size
        if seen >= cells:
            break
    return worst
