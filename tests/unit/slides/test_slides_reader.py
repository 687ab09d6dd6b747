"""Slides are read right by both libraries, and what is no credible slide is refused with words that help."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_files import gradient, write_pyramid

from sentinode.errors import ConfigError, ObjectNotFoundError, SourceError
from sentinode.slides.reader import Backend, open_slide

BACKENDS: tuple[Backend, ...] = ("openslide", "tiffslide")
both = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slides") / "a.tif", gradient())


@both
class TestPixels:
    def test_levels_and_pixel_size(self, slide_path: Path, backend: Backend) -> None:
        with open_slide(str(slide_path), backend=backend) as slide:
            assert slide.backend == backend
            assert slide.level_dimensions == ((400, 300), (200, 150), (100, 75))
            assert slide.downsamples == pytest.approx((1, 2, 4))
            assert slide.mpp_um_px == pytest.approx((0.5, 0.5))

    def test_a_region_of_each_level_is_that_of_the_image(self, slide_path: Path, backend: Backend) -> None:
        rgb = gradient()
        with open_slide(str(slide_path), backend=backend) as slide:
            for level, stride in enumerate((1, 2, 4)):
                x, y = 10 * stride, 6 * stride
                found = slide.read_region(x, y, level, (70, 60))
                assert found.dtype == np.uint8
                assert np.array_equal(found, rgb[::stride, ::stride][6:66, 10:80])

    def test_a_place_between_two_pixels_of_a_level_is_not_blurred(
        self, tmp_path: Path, backend: Backend
    ) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
        path = write_pyramid(tmp_path / "a.tif", rgb)
        with open_slide(str(path), backend=backend) as slide:
            for x, y in ((40, 24), (41, 26), (43, 27)):
                assert np.array_equal(slide.read_region(x, y, 2, (50, 40)), rgb[::4, ::4][6:46, 10:60])
            for x in (-8, -7, -5):
                found = slide.read_region(x, -3, 2, (50, 40))
                assert np.array_equal(found[1:, 2:], rgb[::4, ::4][:39, :48])
                assert (found[0] == 255).all()
                assert (found[:, :2] == 255).all()

    def test_is_white_beyond_the_border(self, slide_path: Path, backend: Backend) -> None:
        rgb = gradient()
        with open_slide(str(slide_path), backend=backend) as slide:
            found = slide.read_region(-20, -30, 0, (500, 400))
            assert np.array_equal(found[30:330, 20:420], rgb)
            found[30:330, 20:420] = 255
            assert (found == 255).all()
            assert (slide.read_region(5000, 5000, 1, (8, 4)) == 255).all()

    def test_tiles_that_were_left_out_are_white(self, tmp_path: Path, backend: Backend) -> None:
        tile = np.full((64, 64, 3), 7, np.uint8)
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            tiff.write(
                iter([tile, None, tile, None]),
                shape=(128, 128, 3),
                dtype=np.uint8,
                tile=(64, 64),
                photometric="rgb",
                compression="deflate",
                resolution=(20000, 20000),
                resolutionunit="CENTIMETER",
            )
        with open_slide(str(tmp_path / "a.tif"), backend=backend) as slide:
            found = slide.read_region(0, 0, 0, (128, 128))
        assert (found[:, :64] == 7).all()
        assert (found[:, 64:] == 255).all()

    def test_threads_get_what_they_ask_for(self, slide_path: Path, backend: Backend) -> None:
        rgb = gradient()
        with open_slide(str(slide_path), backend=backend) as slide, ThreadPoolExecutor(8) as pool:
            places = [(x, y) for x in range(0, 300, 37) for y in range(0, 200, 41)]
            for (x, y), found in zip(
                places, pool.map(lambda p: slide.read_region(*p, 0, (90, 80)), places), strict=True
            ):
                assert np.array_equal(found, rgb[y : y + 80, x : x + 90])

    def test_thumbnail_and_overview_average(self, tmp_path: Path, backend: Backend) -> None:
        rgb = np.repeat(np.repeat(np.arange(48, dtype=np.uint8).reshape(6, 8, 1) * 5, 50, 0), 50, 1)
        path = write_pyramid(tmp_path / "a.tif", np.repeat(rgb, 3, axis=2), mpp=(0.8, 0.8))
        with open_slide(str(path), backend=backend) as slide:
            assert np.array_equal(slide.thumbnail(8)[:, :, 0].ravel(), np.arange(48) * 5)
            assert np.array_equal(slide.overview(40.0)[:, :, 0].ravel(), np.arange(48) * 5)
            assert slide.thumbnail(10_000).shape == (300, 400, 3)

    def test_refuses_regions_that_cannot_be(self, slide_path: Path, backend: Backend) -> None:
        with open_slide(str(slide_path), backend=backend) as slide:
            for level, size in ((3, (8, 8)), (-1, (8, 8)), (0, (0, 8)), (0, (100_000, 100_000))):
                with pytest.raises(ConfigError):
                    slide.read_region(0, 0, level, size)

    def test_pixel_size_missing_absurd_or_not_square(self, tmp_path: Path, backend: Backend) -> None:
        for mpp, words in (
            (None, "how large its pixels are"),
            ((352.8, 352.8), "says"),
            ((0.25, 0.5), "pixels of 0.25 x 0.5"),
        ):
            path = write_pyramid(tmp_path / "a.tif", gradient(), mpp=mpp)
            with pytest.raises(SourceError, match=words) as caught:
                open_slide(str(path), backend=backend)
            assert caught.value.remedy
            with open_slide(str(path), mpp_um_px=0.25, backend=backend) as slide:
                assert slide.mpp_um_px == (0.25, 0.25)

    def test_truncated(self, tmp_path: Path, backend: Backend) -> None:
        whole = write_pyramid(tmp_path / "a.tif", gradient()).read_bytes()
        for size in (4, 20, 300, len(whole) // 2, len(whole) - 10):
            (tmp_path / "b.tif").write_bytes(whole[:size])
            with pytest.raises(SourceError) as caught:
                open_slide(str(tmp_path / "b.tif"), backend=backend)
            assert "b.tif" in caught.value.found
            assert caught.value.remedy

    @pytest.mark.parametrize("big", [False, True])
    def test_cut_before_its_list_of_images(self, tmp_path: Path, backend: Backend, big: bool) -> None:
        for order in ("<", ">"):
            path = tmp_path / "a.tif"
            with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as tiff:
                tiff.write(gradient(), photometric="rgb", tile=(64, 64))
            data = bytearray(path.read_bytes())
            # As scanners write it: the list of images behind the pixels.
            place = slice(8, 16) if big else slice(4, 8)
            data[place] = (len(data) + 9).to_bytes(
                place.stop - place.start, "little" if order == "<" else "big"
            )
            path.write_bytes(data)
            with pytest.raises(SourceError, match=r"list of images begins at [\d,]+") as caught:
                open_slide(str(path), backend=backend)
            assert "truncated" in str(caught.value.remedy)

    def test_damaged_tile(self, tmp_path: Path, backend: Backend) -> None:
        path = write_pyramid(tmp_path / "a.tif", gradient(), compression="jpeg")
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            start, length = page.dataoffsets[0], page.databytecounts[0]
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(length))
        with open_slide(str(path), backend=backend) as slide, pytest.raises(SourceError, match=r"\(0, 0\)"):
            slide.read_region(0, 0, 0, (64, 64))

    def test_digest_is_of_the_slide(self, slide_path: Path, tmp_path: Path, backend: Backend) -> None:
        other = write_pyramid(tmp_path / "b.tif", gradient(410))
        with (
            open_slide(str(slide_path), backend=backend) as a,
            open_slide(str(slide_path), backend=backend) as again,
            open_slide(str(other), backend=backend) as b,
        ):
            assert a.digest == again.digest != b.digest


class TestRefusals:
    def test_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ObjectNotFoundError):
            open_slide(str(tmp_path / "a.svs"))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "zero bytes"),
            (b"\xff\xd8\xff\xe0" + bytes(99), "is a JPEG image"),
            (b"\x89PNG\r\n" + bytes(99), "is a PNG image"),
            (b"<html>", "is an XML or HTML text"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (bytes(4096), "does not know"),
            (b"II*\0" + b"\xff" * 40, "list of images"),
            (b"II*\0\x08\0\0\0" + b"\xff" * 40, "TIFF|tiffslide"),
        ],
    )
    def test_what_is_no_slide(self, tmp_path: Path, content: bytes, words: str) -> None:
        (tmp_path / "a.svs").write_bytes(content)
        with pytest.raises(SourceError, match=words) as caught:
            open_slide(str(tmp_path / "a.svs"))
        assert caught.value.expected
        assert caught.value.remedy

    @pytest.mark.parametrize(
        ("content", "remedy"),
        [
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"PK\x03\x04" + bytes(99), "unpack"),
        ],
    )
    def test_what_is_to_be_done_with_it(self, tmp_path: Path, content: bytes, remedy: str) -> None:
        (tmp_path / "a.svs").write_bytes(content)
        with pytest.raises(SourceError) as caught:
            open_slide(str(tmp_path / "a.svs"))
        assert remedy in str(caught.value.remedy)

    def test_a_mirax_slide_without_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0" + bytes(99))
        with pytest.raises(SourceError, match="without its folder"):
            open_slide(str(tmp_path / "a.mrxs"))

    def test_the_content_counts_not_the_extension(self, tmp_path: Path) -> None:
        path = write_pyramid(tmp_path / "a.jpg", gradient())
        with open_slide(str(path)) as slide:
            assert slide.level_dimensions[0] == (400, 300)

    def test_larger_than_any_glass(self, slide_path: Path, tmp_path: Path) -> None:
        path = write_pyramid(tmp_path / "a.tif", np.zeros((64, 30_000, 3), np.uint8), levels=1)
        with pytest.raises(SourceError, match="mm"):
            open_slide(str(path), mpp_um_px=10.0)
        with pytest.raises(ConfigError):
            open_slide(str(slide_path), mpp_um_px=0.0)

    def test_in_one_piece(self, tmp_path: Path) -> None:
        blank = np.zeros((8200, 8200), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", blank, rowsperstrip=8200, compression="deflate")
        with pytest.raises(SourceError, match="in pieces of"):
            open_slide(str(tmp_path / "a.tif"), mpp_um_px=0.5)

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((128, 128, 3), np.uint16), photometric="rgb")
        with pytest.raises(SourceError, match="uint16"):
            open_slide(str(tmp_path / "a.tif"), mpp_um_px=0.5)


def test_strips_and_grey_are_left_to_tiffslide(tmp_path: Path) -> None:
    grey = gradient()[:, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", grey, rowsperstrip=32)
    with open_slide(str(tmp_path / "a.tif"), mpp_um_px=0.5) as slide:
        assert slide.backend == "tiffslide"
        assert np.array_equal(
            slide.read_region(30, 40, 0, (50, 60)), np.repeat(grey[40:100, 30:80, None], 3, 2)
        )


def test_levels_in_subifds_are_seen(tmp_path: Path) -> None:
    """OpenSlide sees but the first level of an OME-TIFF."""
    rgb = gradient()
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        options = {"tile": (64, 64), "photometric": "rgb", "resolution": (2e4, 2e4), "resolutionunit": 3}
        tiff.write(rgb, subifds=1, **options)
        tiff.write(np.ascontiguousarray(rgb[::2, ::2]), subfiletype=1, **options)
    with open_slide(str(tmp_path / "a.ome.tif")) as slide:
        assert slide.backend == "tiffslide"
        assert slide.level_dimensions == ((400, 300), (200, 150))
        assert np.array_equal(slide.read_region(20, 10, 1, (40, 30)), rgb[::2, ::2][5:35, 10:50])


@both
def test_a_tile_size_beyond_the_memory(tmp_path: Path, backend: Backend) -> None:
    """OpenSlide would end the process."""
    path = write_pyramid(tmp_path / "a.tif", gradient())
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["TileWidth"].overwrite(1 << 20, dtype=4)
        tiff.pages.first.tags["TileLength"].overwrite(1 << 20, dtype=4)
    with pytest.raises(SourceError, match=r"a\.tif"):
        open_slide(str(path), backend=backend)


@pytest.mark.real_data
@both
class TestRealSlides:
    def test_regions_are_those_of_the_other_library(self, real_data: Path, backend: Backend) -> None:
        for name, mpp in (("CMU-1-Small-Region.svs", None), ("TCGA-CR-7395-01A-01-TS1.svs", 0.25)):
            path = str(real_data / "slides" / name)
            other = BACKENDS[1 - BACKENDS.index(backend)]
            with open_slide(path, mpp, backend) as slide, open_slide(path, mpp, other) as second:
                assert slide.level_dimensions == second.level_dimensions
                for level in range(len(slide.downsamples)):
                    place = (1200, 900) if level == 0 else (0, 0)
                    a, b = (s.read_region(*place, level, (300, 200)).astype(int) for s in (slide, second))
                    assert np.abs(a - b).mean() < 1.5

    def test_pixel_size(self, real_data: Path, backend: Backend) -> None:
        folder = real_data / "slides"
        with open_slide(str(folder / "CMU-1-Small-Region.svs"), backend=backend) as slide:
            assert slide.mpp_um_px == (0.499, 0.499)
        with pytest.raises(SourceError, match="does not say how large"):
            open_slide(str(folder / "TCGA-CR-7395-01A-01-TS1.svs"), backend=backend)
        with pytest.raises(SourceError, match="does not know"):
            open_slide(str(folder / "broken.svs"), backend=backend)
