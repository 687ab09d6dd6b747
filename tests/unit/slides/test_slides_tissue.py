"""Tissue is found where it is, without ink and blur; what cannot be trusted is flagged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from scipy import ndimage
from slide_files import Rgb, write_pyramid

from sentinode.slides.annotations import Classes
from sentinode.slides.focus import sharpness
from sentinode.slides.geojson import read_geojson
from sentinode.slides.outlines import outlines
from sentinode.slides.reader import open_slide
from sentinode.slides.tissue import Tissue, TissueRecord, TissueSettings, find_tissue
from sentinode.slides.tissue_mask import otsu
from sentinode.storage import open_store

UM_PX = 2.0
"""Pixel size of the slides below: 4 x 2 mm."""
WIDTH, HEIGHT = 2000, 1000
RNG = np.random.default_rng(0)


def glass(height: int = HEIGHT, width: int = WIDTH) -> Rgb:
    return RNG.integers(238, 244, (height, width, 3)).astype(np.uint8)


def stained(height: int, width: int) -> Rgb:
    """Purple nuclei of some 8 um on pink."""
    nuclei = ndimage.gaussian_filter(RNG.normal(size=(height, width)), 1.0) > 0.15
    return np.where(nuclei[:, :, None], (96, 56, 140), (214, 150, 190)).astype(np.uint8)


def tissue_of(tmp_path: Path, rgb: Rgb, settings: TissueSettings | None = None) -> Tissue:
    path = write_pyramid(tmp_path / "a.tif", rgb, mpp=(UM_PX, UM_PX), levels=1, tile=(256, 256))
    with open_slide(str(path)) as slide:
        return find_tissue(slide, settings)


def overlap(found: shapely.Geometry, truth: shapely.Geometry) -> float:
    """Intersection over union."""
    return float(found.intersection(truth).area / found.union(truth).area)


def test_takes_the_tissue_with_its_large_hole_and_not_the_dust(tmp_path: Path) -> None:
    rgb = glass()
    rgb[200:800, 300:1100] = stained(600, 800)
    rgb[400:550, 600:750] = glass(150, 150)
    rgb[300:310, 400:410] = glass(10, 10)
    rgb[100:115, 1500:1515] = stained(15, 15)
    tissue = tissue_of(tmp_path, rgb)
    truth = shapely.box(300, 200, 1100, 800) - shapely.box(600, 400, 750, 550)
    assert overlap(tissue.shape, truth) > 0.95
    assert len(tissue.shape.geoms) == 1
    assert len(tissue.shape.geoms[0].interiors) == 1
    record = tissue.record
    assert record.flags == ()
    assert record.area_mm2 == pytest.approx(truth.area * UM_PX**2 / 1e6, rel=0.05)
    assert record.share == pytest.approx(truth.area / (WIDTH * HEIGHT), rel=0.05)


@pytest.mark.parametrize(
    "colour", [(25, 25, 30), (20, 60, 150), (20, 120, 70), (200, 20, 40), (90, 150, 220)], ids=str
)
def test_leaves_pen_out(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    rgb = glass()
    rgb[200:800, 300:1100] = stained(600, 800)
    rgb[:, 1000:1200] = colour
    rgb[100:300, 1500:1900] = colour
    tissue = tissue_of(tmp_path, rgb)
    marks = shapely.union_all([shapely.box(1000, 0, 1200, 1000), shapely.box(1500, 100, 1900, 300)])
    assert overlap(tissue.pen, marks) > 0.7
    assert marks.difference(tissue.pen).area < 0.01 * marks.area
    assert tissue.shape.intersection(marks).area == pytest.approx(0, abs=1e-6 * marks.area)
    assert overlap(tissue.shape, shapely.box(300, 200, 1000, 800)) > 0.9
    assert tissue.record.flags == ("pen",)
    assert tissue.record.pen_share > 0.1


def test_leaves_blur_out(tmp_path: Path) -> None:
    rgb = glass()
    rgb[200:800, 200:1800] = stained(600, 1600)
    soft = ndimage.gaussian_filter(rgb.astype(np.float32), (2.0, 2.0, 0))
    rgb[:, 1024:] = soft[:, 1024:].round().astype(np.uint8)
    tissue = tissue_of(tmp_path, rgb)
    assert overlap(tissue.shape, shapely.box(200, 200, 1024, 800)) > 0.9
    assert overlap(tissue.blurred, shapely.box(1024, 200, 1800, 800)) > 0.9
    assert tissue.record.blurred_of_tissue == pytest.approx(776 / 1600, abs=0.05)
    assert tissue.record.flags == ("blurred",)
    everything = tissue_of(tmp_path, rgb, TissueSettings(min_sharpness=0))
    assert overlap(everything.shape, shapely.box(200, 200, 1800, 800)) > 0.95


def test_a_slide_of_tissue_alone_is_flagged(tmp_path: Path) -> None:
    assert "nearly_everything" in tissue_of(tmp_path, stained(HEIGHT, WIDTH)).record.flags


def test_a_tinted_slide_that_is_all_taken_is_flagged(tmp_path: Path) -> None:
    tint = (glass().astype(int) + np.array((0, -40, -10))).clip(0, 255).astype(np.uint8)
    assert {"nearly_everything", "no_contrast"} <= set(tissue_of(tmp_path, tint).record.flags)


def test_an_empty_slide_is_flagged(tmp_path: Path) -> None:
    tissue = tissue_of(tmp_path, glass())
    assert set(tissue.record.flags) == {"nearly_nothing", "no_contrast"}
    assert tissue.shape.is_empty
    assert read_geojson(tissue.to_geojson(), "a.geojson") == ()


def test_a_slide_of_one_colour_and_one_all_black(tmp_path: Path) -> None:
    for value, flag in ((255, "nearly_nothing"), (0, "pen")):
        flags = tissue_of(tmp_path, np.full((HEIGHT, WIDTH, 3), value, np.uint8)).record.flags
        assert flag in flags
        assert "nearly_nothing" in flags


def test_is_saved_as_geojson_with_its_record(tmp_path: Path) -> None:
    rgb = glass()
    rgb[200:800, 300:1100] = stained(600, 800)
    rgb[100:300, 1500:1900] = (20, 120, 70)
    tissue = tissue_of(tmp_path, rgb)
    store = open_store(str(tmp_path / "out"))
    tissue.save(store, "a")
    found = read_geojson(store.get("a.tissue.geojson"), "a.tissue.geojson")
    assert [(region.label, region.name) for region in found] == [("Tissue", "tissue"), ("Ignore*", "pen")]
    assert found[0].shape.equals(tissue.shape)
    assert found[1].label is not None
    assert found[1].label.lower() in Classes().excluded
    assert TissueRecord.from_json(store.get("a.tissue.json"), "a.tissue.json") == tissue.record


class TestParts:
    def test_otsu_parts_two_classes(self) -> None:
        values = np.repeat(np.array([10, 12, 200, 202], np.uint8), 50)
        threshold, contrast = otsu(values)
        assert 12 < threshold <= 200
        assert contrast == pytest.approx(190)
        assert otsu(np.full(9, 7, np.uint8)) == (7.0, 0.0)

    def test_outlines_are_the_pixels(self) -> None:
        mask = RNG.random((40, 60)) > 0.5
        shape = outlines(mask, (3.0, 2.0))
        assert shape.is_valid
        assert shape.area == pytest.approx(mask.sum() * 6)
        y, x = np.indices(mask.shape)
        inside = shapely.intersects_xy(shape, (x + 0.5) * 3.0, (y + 0.5) * 2.0)
        assert np.array_equal(inside, mask)
        assert outlines(np.zeros((4, 4), np.bool_), (1.0, 1.0)).is_empty

    def test_outlines_keep_an_island_in_a_hole(self) -> None:
        mask = np.ones((30, 30), np.bool_)
        mask[5:25, 5:25] = False
        mask[10:20, 10:20] = True
        shape = outlines(mask, (1.0, 1.0), tolerance_px=0.75)
        assert sorted(part.area for part in shape.geoms) == [100, 500]

    def test_sharpness_falls_with_blur_whatever_the_stain(self) -> None:
        grey = stained(128, 128).mean(axis=2).astype(np.float32)
        found = [sharpness(ndimage.gaussian_filter(grey, s) if s else grey) for s in (0.0, 1.0, 1.5, 2.0)]
        assert found == sorted(found, reverse=True)
        assert sharpness(200 + grey / 4) == pytest.approx(found[0], rel=0.01)
        assert np.isnan(sharpness(np.full((128, 128), 240, np.float32)))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    [
        ("CMU-1-Small-Region.svs", None, 0.33, 0.42),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.25, 0.58, 0.70),
    ],
)
def test_real_slides(real_data: Path, name: str, mpp: float | None, low: float, high: float) -> None:
    """The outlines were looked at: all of the tissue but threads and chips, and glass in narrow gaps."""
    with open_slide(str(real_data / "slides" / name), mpp) as slide:
        record = find_tissue(slide).record
    assert record.flags == ()
    assert low < record.share < high
