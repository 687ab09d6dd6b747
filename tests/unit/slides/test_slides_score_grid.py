"""The grid of a heat map: which level is read, where cells lie, and tiles that hold each cell once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, box
from slide_files import gradient, write_pyramid

from sentinode.errors import SourceError
from sentinode.slides.cells import cells_covered
from sentinode.slides.model_pixels import read_model_pixels
from sentinode.slides.reader import open_slide
from sentinode.slides.score_grid import ScoreGrid, tiles_of


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.integers(0, 10_000), st.floats(0.02, 1.0)
)
def test_tiles_hold_each_wanted_cell_once(
    rows: int, columns: int, side: int, seed: int, share: float
) -> None:
    wanted = np.random.default_rng(seed).random((rows, columns)) < share
    times = np.zeros(wanted.shape, int)
    for tile in tiles_of(wanted, side):
        assert 1 <= tile.columns <= side
        assert 1 <= tile.rows <= side
        part = np.s_[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns]
        assert times[part].shape == (tile.rows, tile.columns)
        times[part] += 1
    assert (times[wanted] == 1).all()
    assert times.max(initial=0) <= 1


@pytest.mark.parametrize(
    ("mpp", "level", "scale"),
    [
        (0.243, 2, 1.0),
        (0.25, 2, 1.0),
        (0.226, 2, 0.972 / 0.904),
        (0.5, 1, 1.0),
        (0.52, 0, 0.972 / 0.52),
        (0.486, 1, 1.0),
        (0.972, 0, 1.0),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(
    tmp_path: Path, mpp: float, level: int, scale: float
) -> None:
    with open_slide(str(write_pyramid(tmp_path / "s.tif", gradient(), (mpp, mpp)))) as slide:
        grid = ScoreGrid.of(slide, 0.972, 32)
        assert grid.level == level
        assert grid.scale == pytest.approx(scale, rel=1e-3)
        width, height = slide.level_dimensions[0]
        assert (grid.columns - 1) * grid.cell_px < width <= grid.columns * grid.cell_px
        assert (grid.rows - 1) * grid.cell_px < height <= grid.rows * grid.cell_px
        assert grid.cell_um == pytest.approx(grid.cell_px * mpp)
        assert f"level {level}" in grid.how


def test_a_slide_coarser_than_the_model_is_refused(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.tif", gradient(), (2.0, 2.0))
    with open_slide(str(path)) as slide, pytest.raises(SourceError, match="2 um/px at its finest level"):
        ScoreGrid.of(slide, 0.972, 32)


@pytest.mark.parametrize("mpp", [0.52, 0.226, 0.243])
@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
def test_regions_of_model_pixels_have_no_seams(tmp_path: Path, mpp: float, backend: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = write_pyramid(tmp_path / "s.tif", noise, (mpp, mpp), compression="deflate")
    with open_slide(str(path), backend=backend) as slide:  # type: ignore[arg-type]
        grid = ScoreGrid.of(slide, 0.972, 32)
        whole = read_model_pixels(slide, grid, -7, -5, 90, 70).astype(int)
        for left, top, width, height in ((0, 0, 30, 20), (13, 11, 41, 33), (-7, 20, 20, 45), (60, 1, 23, 17)):
            part = read_model_pixels(slide, grid, left, top, width, height)
            held = whole[top + 5 : top + 5 + height, left + 7 : left + 7 + width]
            assert np.abs(part - held).max() <= (0 if grid.scale == 1 else 1)
        assert (whole[:4] == 255).all()


def test_model_pixels_lie_where_the_slide_has_them(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.tif", gradient(), (0.5, 0.5), levels=1)
    with open_slide(str(path)) as slide:
        grid = ScoreGrid.of(slide, 1.0, 32)
        assert grid.scale == 2
        pixels = read_model_pixels(slide, grid, 10, 20, 50, 40)
    assert pixels.shape == (40, 50, 3)
    # The centre of model pixel (x, y) is 2x + 1, 2y + 1 at level 0, whose pixel n has its centre at n + 0.5.
    np.testing.assert_allclose(pixels[5, :, 0], 2 * np.arange(10, 60) + 0.5, atol=0.51)
    np.testing.assert_allclose(pixels[:, 5, 1], 2 * np.arange(20, 60) + 0.5, atol=0.51)


def test_a_large_slide_without_small_levels_is_read_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pyramid(tmp_path / "s.tif", gradient(), (0.3, 0.3), levels=1)
    with open_slide(str(path)) as slide:
        grid = ScoreGrid.of(slide, 0.972, 32)
        whole = read_model_pixels(slide, grid, 3, 3, 60, 60)
        monkeypatch.setattr("sentinode.slides.model_pixels.MAX_REGION_PX", 40_000)
        banded = read_model_pixels(slide, grid, 3, 3, 60, 60)
    assert np.abs(whole.astype(int) - banded).max() <= 1


def test_cells_are_covered_with_holes_and_islands(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = box(0, 0, 800, 800).difference(box(200, 200, 600, 600))
    shape = MultiPolygon([ring, box(300, 300, 500, 500)])
    mask = cells_covered(shape, 10, 12, 100.0)
    wanted = np.zeros((10, 12), bool)
    wanted[:8, :8] = True
    wanted[2:6, 2:6] = False
    wanted[3:5, 3:5] = True
    np.testing.assert_array_equal(mask, wanted)
    assert not cells_covered(MultiPolygon(), 10, 12, 100.0).any()
    monkeypatch.setattr("sentinode.slides.cells._MAX_FINE_PX", 100)
    coarse = cells_covered(shape, 10, 12, 100.0)
    assert abs(int(coarse.sum()) - int(wanted.sum())) < 10
    assert not coarse[9].any()
