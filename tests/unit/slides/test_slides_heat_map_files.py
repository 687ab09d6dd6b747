"""Heat maps as files: opened again by OpenSlide, tiffslide and Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tiffslide
from PIL import Image
from shapely import box

from sentinode.slides.heat_map_files import overview_png, to_grey, write_heat_map_tiff


def _map(rows: int, columns: int) -> np.ndarray:
    heat = np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    heat[: rows // 3, : columns // 2] = np.nan
    return heat


def _grey(slide: Any, level: int) -> np.ndarray:
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))[..., 0]


@pytest.mark.parametrize("shape", [(700, 900), (30, 41), (1, 1)])
def test_pyramid_opens_in_openslide_and_tiffslide(tmp_path: Path, shape: tuple[int, int]) -> None:
    heat, path = _map(*shape), tmp_path / "heat.tif"
    write_heat_map_tiff(path, heat, cell_um=31.1, description="{}")
    for opened in (openslide.OpenSlide(str(path)), tiffslide.TiffSlide(str(path))):
        with opened as slide:
            assert slide.dimensions == shape[::-1]
            assert slide.level_count == (3 if max(shape) > 512 else 1)
            assert float(slide.properties[f"{type(slide).__module__.split('.')[0]}.mpp-x"]) == pytest.approx(
                31.1, rel=1e-4
            )
            level0 = _grey(slide, 0)
            np.testing.assert_array_equal(level0, to_grey(heat))
            last = _grey(slide, slide.level_count - 1)
            assert last.max() == level0.max()


def test_grey_tells_probabilities_and_what_was_not_scored() -> None:
    heat = np.array([np.nan, 0, 0.25, 0.5, 1], np.float32)
    grey = to_grey(heat)
    assert grey[0] == 0
    assert grey[1] == 1
    np.testing.assert_allclose((grey[1:] - 1) / 254, heat[1:], atol=0.002)


def test_overview_colours_what_was_scored_only() -> None:
    heat = np.full((4, 4), np.nan, np.float32)
    heat[0, 0], heat[3, 3] = 1.0, 0.0
    png = overview_png(
        np.full((400, 400, 3), 200, np.uint8), heat, (400.0, 400.0), [box(0, 0, 800, 800)], 0.125, "slide_1"
    )
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert image.shape[0] > 400
    red, blue, bare = image[50, 50], image[350, 350], image[50, 350]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 10
    assert bare.tolist() == [200, 200, 200]
    assert image[50, 100].tolist() == [0, 0, 0]
