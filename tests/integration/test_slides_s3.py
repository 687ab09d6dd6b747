"""Slides in an object store are read by ranges: the same pixels as from a local file, and few of the bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_files import tissue
from slide_folders import write_dicom, write_mirax
from slide_tiffs import write_bif, write_ndpi, write_philips, write_scn

from sentinode.cohort.synthetic.config import SynthesizeConfig
from sentinode.cohort.synthetic.write import synthesize
from sentinode.errors import ObjectNotFoundError, SourceError, StoreError
from sentinode.slides.listing import list_slides
from sentinode.slides.ranged_file import BLOCK_BYTES, Blocks, RangedFile
from sentinode.slides.reader import open_slide
from sentinode.slides.tiffslide_backend import TiffSlidePixels
from sentinode.storage import Store, open_store
from sentinode.storage.embedded import EmbeddedStore

SIDE = 4096


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid of noise, which JPEG hardly makes smaller: some 25 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level in range(5):
            tiff.write(
                np.ascontiguousarray(noise[:: 1 << level, :: 1 << level]),
                subfiletype=int(level > 0),
                photometric="rgb",
                compression="jpeg",
                tile=(256, 256),
                resolution=(40_000, 40_000),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


@pytest.fixture
def store(embedded_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, slide_path: Path) -> Store:
    for name, value in embedded_store.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"{embedded_store.url}/slides")
    store.upload(slide_path, "a.tif")
    return store


def test_a_thumbnail_and_twenty_tiles_take_few_of_the_bytes(store: Store, slide_path: Path) -> None:
    size = slide_path.stat().st_size
    blocks = Blocks(store, "a.tif", size)
    pixels = TiffSlidePixels(RangedFile(blocks), "a.tif", blocks)  # type: ignore[arg-type]
    pixels.read(0, 0, 4, *pixels.level_dimensions[4])
    places = np.random.default_rng(1).integers(0, SIDE // 256, (20, 2)) * 256
    tiles = [pixels.read(int(x), int(y), 0, 256, 256) for x, y in places]
    print(f"{blocks.fetched_bytes:,} of {size:,} bytes in {blocks.requests} requests")
    # A tile lies in as many blocks as it is long, and one more where it does not start with one.
    with tifffile.TiffFile(slide_path) as tiff:
        longest = max(tiff.pages.first.databytecounts)
    assert blocks.fetched_bytes < 20 * (longest + 2 * BLOCK_BYTES) + size // 20
    assert blocks.fetched_bytes < size // 3
    with open_slide(str(slide_path), backend="tiffslide") as local:
        for (x, y), tile in zip(places, tiles, strict=True):
            assert np.array_equal(tile, local.read_region(int(x), int(y), 0, (256, 256)))


def test_the_same_pixels_as_from_a_local_file(store: Store, slide_path: Path) -> None:
    with (
        open_slide(store.locate("a.tif")) as stored,
        open_slide(str(slide_path), backend="tiffslide") as local,
        ThreadPoolExecutor(4) as pool,
    ):
        assert stored.backend == "tiffslide"
        assert stored.digest == local.digest
        assert np.array_equal(stored.thumbnail(200), local.thumbnail(200))
        places = [(x, y) for x in (-100, 900, 4000) for y in (-50, 1700)]
        for (x, y), found in zip(
            places, pool.map(lambda p: stored.read_region(*p, 1, (300, 200)), places), strict=True
        ):
            assert np.array_equal(found, local.read_region(x, y, 1, (300, 200)))


def test_the_memory_for_blocks_is_kept(store: Store, slide_path: Path) -> None:
    blocks = Blocks(store, "a.tif", slide_path.stat().st_size, kept_bytes=4 * BLOCK_BYTES)
    whole = slide_path.read_bytes()
    for start in range(0, len(whole), 1 << 20):
        assert blocks.read(start, 1 << 20) == whole[start : start + (1 << 20)]
    before = blocks.fetched_bytes
    assert blocks.read(len(whole) - BLOCK_BYTES // 2, 99) == whole[len(whole) - BLOCK_BYTES // 2 :][:99]
    assert blocks.fetched_bytes == before
    blocks.read(0, 10)
    assert blocks.fetched_bytes == before + BLOCK_BYTES
    assert len(blocks._kept) <= 4


def test_what_cannot_be_read_says_so(store: Store, slide_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError):
        open_slide(store.locate("b.tif"))
    store.put("b.tif", slide_path.read_bytes()[:-1000])
    with pytest.raises(SourceError, match="truncated"):
        open_slide(store.locate("b.tif"))
    store.put("empty.svs", b"")
    with pytest.raises(SourceError, match="zero bytes"):
        open_slide(store.locate("empty.svs"))


def test_formats_of_scanners_are_read_or_refused(store: Store, tmp_path: Path) -> None:
    """What is one TIFF is read by ranges; what lies in several files, or wants to be stitched, says what to do."""
    rgb = tissue(768, 512)
    write_dicom(tmp_path / "d", rgb)
    write_mirax(tmp_path / "a.mrxs", rgb)
    write_bif(tmp_path / "a.bif", rgb)
    write_ndpi(tmp_path / "a.ndpi", rgb)
    write_scn(tmp_path / "a.scn", rgb)
    write_philips(tmp_path / "a.tiff", rgb)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            store.upload(path, f"formats/{path.relative_to(tmp_path)}")
    folder = store.sub("formats")
    slides = list_slides(folder.url)
    assert [slide.url for slide in slides if slide.name == "d"] == [folder.locate("d")]
    assert len(slides) == 6
    for key in ("a.mrxs", "d", "d/1-0.dcm", "a.bif"):
        with pytest.raises(SourceError, match="local") as caught:
            open_slide(folder.locate(key), mpp_um_px=0.5)
        assert "vips tiffsave" in str(caught.value)
    for key in ("a.ndpi", "a.scn", "a.tiff"):
        with open_slide(folder.locate(key)) as stored, open_slide(str(tmp_path / key)) as local:
            assert stored.mpp_um_px == pytest.approx(local.mpp_um_px)
            for level in range(3):
                found, wanted = (
                    slide.read_region(400, 300, level, (120, 90)).astype(int) for slide in (stored, local)
                )
                assert np.abs(found - wanted).mean() < 1


def test_a_store_that_goes_away_is_a_store_error(store: Store, slide_path: Path) -> None:
    store.upload(slide_path, "c.tif")
    with open_slide(store.locate("c.tif")) as slide:
        store.delete("c.tif")
        with pytest.raises(StoreError):
            slide.read_region(2000, 2000, 0, (256, 256))


def test_synthetic_slides_go_to_a_store(store: Store) -> None:
    made = store.sub("made")
    config = SynthesizeConfig(
        out=made.url, layout="camelyon17", patients=1, width_px=1000, height_px=1000, um_px=0.972
    )
    classes = synthesize(config, lambda *_: None)
    keys = {info.key for info in made.list()}
    assert {f"images/{name}.tif" for name in classes} | {"stage_labels.csv"} <= keys
    with open_slide(made.locate("images/patient_000_node_0.tif")) as slide:
        assert slide.level_dimensions[0] == (1000, 1000)
