"""Slides as scanners write them: each format is read right, and what is missing of its files is told."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from slide_files import tissue
from slide_folders import write_dicom, write_mirax
from slide_tiffs import write_bif, write_ndpi, write_philips, write_scn

from sentinode.errors import SourceError
from sentinode.slides.reader import Backend, open_slide
from sentinode.slides.tissue import find_tissue

RGB = tissue(768, 512)


def _jpeg_dicom(path: Path) -> Path:
    return write_dicom(path, RGB, jpeg=True)


def _dicom(path: Path) -> Path:
    return write_dicom(path, RGB)


Write = Callable[[Path], Path]
SCN_ORIGIN = (384, 256)
"""Where the scanned area begins on the slide."""
CASES: list[tuple[str, Write, str, float]] = [
    ("dicom", _dicom, "dicom", 0),
    ("jpeg-dicom", _jpeg_dicom, "dicom", 6),
    ("a.mrxs", lambda path: write_mirax(path, RGB), "mirax", 0),
    ("a.ndpi", lambda path: write_ndpi(path, RGB), "hamamatsu", 5),
    ("a.scn", lambda path: write_scn(path, RGB), "leica", 0),
    ("a.tiff", lambda path: write_philips(path, RGB), "philips", 0),
]
"""Name, writer, OpenSlide's name of the vendor, and how much JPEG changes on average."""


def _agree(path: Path, backend: Backend | None, vendor: str | None, loss: float) -> None:
    x, y = SCN_ORIGIN if path.suffix == ".scn" else (0, 0)
    with open_slide(str(path), backend=backend) as slide:
        assert slide.properties.get("openslide.vendor") == vendor
        assert slide.mpp_um_px == pytest.approx((0.5, 0.5))
        assert slide.downsamples[:3] == pytest.approx((1, 2, 4))
        for level, step in enumerate((1, 2, 4)):
            found = slide.read_region(x + 192, y + 128, level, (96, 64)).astype(int)
            wanted = RGB[::step, ::step][128 // step : 128 // step + 64, 192 // step : 192 // step + 96]
            assert np.abs(found - wanted).mean() <= loss


@pytest.mark.parametrize(("name", "write", "vendor", "loss"), CASES)
def test_each_level_is_read_where_it_lies(
    tmp_path: Path, name: str, write: Write, vendor: str, loss: float
) -> None:
    path = write(tmp_path / name)
    _agree(path, None, vendor, loss)
    if path.is_file() and path.suffix != ".mrxs":
        _agree(path, "tiffslide", None, loss)
    with open_slide(str(path)) as slide:
        area = find_tissue(slide).record.area_mm2
    assert area == pytest.approx(np.pi * 0.4 * 0.35 * RGB.shape[0] * RGB.shape[1] * 0.25e-6, rel=0.15)


def test_the_tiles_of_a_bif_are_stitched_or_it_is_refused(tmp_path: Path) -> None:
    path = write_bif(tmp_path / "a.bif", RGB)
    with open_slide(str(path)) as slide:
        assert slide.mpp_um_px == (0.5, 0.5)
        assert np.array_equal(slide.read_region(100, 60, 0, (500, 300)), RGB[60:360, 100:600])
    with pytest.raises(SourceError, match="overlap"):
        open_slide(str(path), 0.5, backend="tiffslide")


def test_an_ndpi_beyond_four_gib_is_read_whatever_its_name(tmp_path: Path) -> None:
    """Its offsets have 64 bits, unlike those of other TIFFs; restart markers cut its levels into pieces."""
    path = write_ndpi(tmp_path / "a.svs", RGB, start=5 << 30)
    _agree(path, None, "hamamatsu", 5)
    _agree(path, "tiffslide", None, 5)
    with open_slide(str(path), backend="tiffslide") as slide:
        assert slide.properties["tiffslide.level[0].tile-height"] == "8"


@pytest.mark.parametrize(("name", "write"), [("d", write_dicom), ("a.mrxs", write_mirax)])
def test_pixels_without_size(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    path = write(tmp_path / name, RGB, mpp=None)
    with pytest.raises(SourceError, match=r"how large its pixels are|says 0"):
        open_slide(str(path))
    with open_slide(str(path), mpp_um_px=0.25) as slide:
        assert slide.um_px == 0.25


class TestMirax:
    def test_a_data_file_that_is_missing_is_told_at_once(self, tmp_path: Path) -> None:
        path = write_mirax(tmp_path / "a.mrxs", RGB)
        (tmp_path / "a" / "Data0000.dat").unlink()
        with pytest.raises(SourceError, match=r"lacks 1 of the 2 files .*Data0000\.dat"):
            open_slide(str(path))

    @pytest.mark.parametrize("name", ["Slidedat.ini", "Index.dat"])
    def test_without_its_tables(self, tmp_path: Path, name: str) -> None:
        path = write_mirax(tmp_path / "a.mrxs", RGB)
        (tmp_path / "a" / name).unlink()
        with pytest.raises(SourceError, match="copy the"):
            open_slide(str(path))

    def test_a_data_file_that_is_cut(self, tmp_path: Path) -> None:
        path = write_mirax(tmp_path / "a.mrxs", RGB)
        data = tmp_path / "a" / "Data0000.dat"
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        with pytest.raises(SourceError, match=r"Data0000\.dat has .* bytes, and an image that ends at"):
            open_slide(str(path))


class TestDicom:
    def test_any_file_opens_the_slide(self, tmp_path: Path) -> None:
        folder = _jpeg_dicom(tmp_path / "d")
        with open_slide(str(folder)) as slide, open_slide(str(folder / "1-2.dcm")) as same:
            assert slide.level_dimensions == same.level_dimensions
            assert slide.url == str(folder)

    @pytest.mark.parametrize("size", [0, 200, 5000])
    def test_a_file_that_is_cut_takes_no_level_away_in_silence(self, tmp_path: Path, size: int) -> None:
        folder = _jpeg_dicom(tmp_path / "d")
        whole = (folder / "1-0.dcm").read_bytes()
        (folder / "1-0.dcm").write_bytes(whole[:size])
        for path in (folder, folder / "1-1.dcm"):
            with pytest.raises(SourceError, match=r"1-0\.dcm .*(no DICOM file|ends before)"):
                open_slide(str(path))

    def test_the_largest_level_missing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = _dicom(tmp_path / "d")
        (folder / "1-0.dcm").unlink()
        with caplog.at_level(logging.WARNING), open_slide(str(folder)) as slide:
            assert slide.um_px == 1.0
        assert "a larger one, which is missing" in caplog.text

    def test_two_slides_in_one_folder_want_a_file(self, tmp_path: Path) -> None:
        folder = _dicom(tmp_path / "d")
        write_dicom(folder, RGB[:256], series=2)
        with pytest.raises(SourceError, match=r"2 DICOM slides") as caught:
            open_slide(str(folder))
        assert "1-0.dcm, 2-0.dcm" in str(caught.value)
        with open_slide(str(folder / "2-0.dcm")) as slide:
            assert slide.level_dimensions[0] == (768, 256)

    def test_a_folder_without_slide(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("a")
        with pytest.raises(SourceError, match="folder without DICOM slide"):
            open_slide(str(tmp_path))

    def test_an_image_that_is_no_slide(self, tmp_path: Path) -> None:
        folder = _dicom(tmp_path / "d")
        path = shutil.copy(folder / "1-0.dcm", tmp_path / "ct.dcm")
        data = (
            Path(path)
            .read_bytes()
            .replace(b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.5.1.4.1.1.77.1.4")
        )
        Path(path).write_bytes(data)
        with pytest.raises(SourceError, match="no whole slide"):
            open_slide(str(path))
