"""Pyramids written from bands of rows, as OpenSlide and tiffslide read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from slide_files import Rgb, gradient

from sentinode.errors import ConfigError
from sentinode.slides.pyramid import level_sizes, write_pyramid
from sentinode.slides.reader import Backend, open_slide


def bands(rgb: Rgb, rows: int) -> Iterator[Rgb]:
    return (rgb[top : top + rows] for top in range(0, len(rgb), rows))


def smooth(width: int, height: int) -> Rgb:
    y, x = np.indices((height, width))
    return np.stack([x * 250 // width, y * 250 // height, np.full_like(x, 128)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
@pytest.mark.parametrize("rows", [64, 256, 300, 1000])
def test_pixels_levels_and_their_size_come_back(tmp_path: Path, backend: Backend, rows: int) -> None:
    rgb = smooth(900, 701)
    write_pyramid(tmp_path / "a.tif", bands(rgb, rows), (900, 701), 0.5)
    with open_slide(str(tmp_path / "a.tif"), backend=backend) as slide:
        assert slide.level_dimensions == ((900, 701), (450, 350), (225, 175))
        assert slide.mpp_um_px == pytest.approx((0.5, 0.5), rel=1e-6)
        for level, (width, height) in enumerate(slide.level_dimensions):
            wanted = rgb[:: 1 << level, :: 1 << level][:height, :width].astype(int)
            found = slide.read_region(0, 0, level, (width, height))
            assert np.abs(found - wanted).max() <= 6, level


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rgb = gradient(600, 500)
    for name, rows in (("a.tif", 128), ("b.tif", 256)):
        write_pyramid(tmp_path / name, bands(rgb, rows), (600, 500), 0.5)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("size", [(600, 600), (500, 500), (600, 400)])
def test_rows_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError):
        write_pyramid(tmp_path / "a.tif", bands(gradient(600, 500), 128), size, 0.5)
    assert not list(tmp_path.iterdir())


def test_levels_end_where_one_fits_a_tile() -> None:
    assert level_sizes((100_000, 200_000))[-1] == (97, 195)
    assert level_sizes((100, 100)) == [(100, 100)]
    assert level_sizes((3000, 2))[-1] == (1500, 1)
