"""The files of a scored slide. The record is written last: without it, the slide is not done.

Cells come first, since they say of which scoring they are: while any file is of another scoring than a record, so are
they, and what reads them tells.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.detections import Detections
from sentinode.evaluation.found_lesions import FoundLesion
from sentinode.evaluation.slide_record import SlideScore, file_key, record_key
from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.slides.geojson import write_geojson
from sentinode.slides.heat_map_files import overview_png, write_heat_map_tiff
from sentinode.slides.score_grid import ScoreGrid
from sentinode.slides.slide import Slide
from sentinode.storage import Store

Grid = NDArray[np.float32]

OVERVIEW_PX: Final = 1024


def write_files(
    store: Store,
    slide: Slide,
    grid: ScoreGrid,
    probabilities: Grid,
    lesions: Sequence[FoundLesion],
    detections: Detections,
    record: SlideScore,
) -> None:
    """Cells, heat map, overview, lesions and detections of one slide, then its record. Raises StoreError."""
    name = record.slide
    about = {
        "slide": name,
        "bundle": record.bundle,
        "value": "0: not scored; v: probability (v - 1) / 254",
        "level0_px_per_cell": grid.cell_px,
        "notice": RESEARCH_USE_ONLY,
    }
    store.put(file_key(name, "cells.parquet"), cells_table(probabilities, grid.cell_um, grid.cell_px, record))
    with tempfile.TemporaryDirectory(prefix="sentinode-heat-map-") as folder:
        path = Path(folder, "heat_map.tif")
        write_heat_map_tiff(path, probabilities, grid.cell_um, json.dumps(about))
        store.upload(path, file_key(name, "heat_map.tif"))
    thumbnail = slide.thumbnail(OVERVIEW_PX)
    scale = thumbnail.shape[1] / slide.level_dimensions[0][0]
    side = grid.cell_px * scale
    caption = f"{name}: score {record.score:.4f}, lesions: {record.lesions}, {record.node_class}"
    outlined = [found.lesion.tumour for found in lesions]
    store.put(
        file_key(name, "overview.png"),
        overview_png(
            thumbnail, probabilities, (grid.columns * side, grid.rows * side), outlined, scale, caption
        ),
    )
    store.put(file_key(name, "lesions.geojson"), write_geojson([found.region() for found in lesions]))
    store.put(f"detections/{name}.csv", detections.to_csv())
    store.put(record_key(name), record.to_json())
