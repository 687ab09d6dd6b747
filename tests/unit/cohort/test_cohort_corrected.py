"""Patches from corrections: labels by action, the least certain first, nothing from what was not outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import box
from slide_files import gradient, write_pyramid

from sentinode.cohort.corrected import choose_corrected, corrected_patches
from sentinode.cohort.heat import heat_of
from sentinode.cohort.sample import Grid
from sentinode.cohort.source import SlideSource
from sentinode.cohort.synthetic.config import SlideContents
from sentinode.cohort.synthetic.write import write_slide
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.places import parse_reference
from sentinode.data.sources.base import BadImage
from sentinode.errors import ConfigError, SourceError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.slide_record import SlideScore, file_key, record_key
from sentinode.slides.annotations import Region
from sentinode.slides.corrections import SUFFIX, CorrectedSlide, Correction, Corrections, Mark
from sentinode.slides.geojson import write_geojson
from sentinode.storage import open_store


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_slide(SlideContents(width_px=900, height_px=800, um_px=0.972, seed=1), folder / "a.tif")
    return folder


def save(folder: Path, url: str = "") -> Corrections:
    found = Corrections(
        CorrectedSlide(slide="a", slide_url=url),
        (
            Correction.of(
                Region(box(200, 200, 400, 300), measurements={"Score": 0.8}), Mark(action="accept")
            ),
            Correction.of(
                Region(box(500, 400, 650, 600), measurements={"Score": 0.99}), Mark(action="reject")
            ),
            Correction.of(
                Region(box(250, 500, 330, 560), measurements={"Score": 0.6}), Mark(action="reject")
            ),
        ),
    )
    folder.mkdir(exist_ok=True)
    (folder / f"a{SUFFIX}").write_bytes(found.to_geojson())
    return found


def test_labels_follow_the_outlines_and_nothing_else_is_taken(slides: Path, tmp_path: Path) -> None:
    found = save(tmp_path / "c")
    config = IngestConfig(source=str(slides), corrections=str(tmp_path / "c"), out=str(tmp_path / "out"))
    source, listing = corrected_patches(config)
    items = listing.items(range(len(listing)))
    assert {item.slide for item in items} == {"a"}
    assert min(sum(item.label == label for item in items) for label in (0, 1)) > 15
    assert (listing.splits == 0).all()
    for item, pixels in source.read(items):
        assert not isinstance(pixels, BadImage)
        _, (x, y), side = parse_reference(item.ref)
        middle = shapely.Point(x + side / 2, y + side / 2)
        if item.label:
            assert middle.distance(found.tumour) < 17 * 2**0.5
        else:
            assert middle.distance(found.healthy) < 1.5


def test_a_tumour_drawn_inside_a_rejected_lesion_is_tumour_and_told(slides: Path, tmp_path: Path) -> None:
    found = Corrections(
        CorrectedSlide(slide="a"),
        (
            Correction.of(Region(box(200, 200, 700, 700), "macro"), Mark(action="reject", lesion=1)),
            Correction.of(Region(box(400, 400, 600, 600)), Mark(), tumour=True),
        ),
    )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / f"a{SUFFIX}").write_bytes(found.to_geojson())
    config = IngestConfig(source=str(slides), corrections=str(tmp_path / "c"), out=str(tmp_path / "out"))
    _, listing = corrected_patches(config)
    centre = box(400, 400, 600, 600)
    labels: dict[bool, set[int | None]] = {True: set(), False: set()}
    for item in listing.items(range(len(listing))):
        _, (x, y), side = parse_reference(item.ref)
        cell = box(x + side / 3, y + side / 3, x + side * 2 / 3, y + side * 2 / 3).buffer(-1)
        labels[shapely.intersects(cell, centre)].add(item.label)
    assert labels == {True: {1}, False: {0}}
    [words] = listing.warnings
    assert words.startswith("outlines of a overlap and say different things (pairs: 1)")


def test_corrections_of_official_test_slides_are_told(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for name in ("test_001", "a"):
        about = CorrectedSlide(slide=name, slide_url=str(slides / "a.tif"))
        mark = Correction.of(Region(box(200, 200, 400, 300)), Mark())
        (tmp_path / "c" / f"{name}{SUFFIX}").write_bytes(Corrections(about, (mark,)).to_geojson())
    _, listing = corrected_patches(IngestConfig(corrections=str(tmp_path / "c"), out=str(tmp_path / "out")))
    (warning,) = listing.warnings
    assert warning.startswith(
        "1 corrected slides are test slides of Camelyon16 (test_001): a model that trains"
    )


def test_a_name_that_two_slides_share_is_the_whole_key_as_in_the_scores(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / "slides" / folder).mkdir(parents=True)
        write_pyramid(tmp_path / "slides" / folder / "x.tif", gradient(900, 800), mpp=(0.972, 0.972))
    config = IngestConfig(
        source=str(tmp_path / "slides"), corrections=str(tmp_path / "c"), out=str(tmp_path / "out")
    )
    (tmp_path / "c").mkdir()
    outlined = write_geojson([Region(box(200, 200, 400, 300), "Tumor")])
    (tmp_path / "c" / f"one__x.tif{SUFFIX}").write_bytes(outlined)
    _, listing = corrected_patches(config)
    assert {parse_reference(item.ref)[0] for item in listing.items(range(len(listing)))} == {"one/x.tif"}
    (tmp_path / "c" / f"x{SUFFIX}").write_bytes(outlined)
    with pytest.raises(SourceError, match=r"lacks 1 corrected slides \(x\)"):
        corrected_patches(config)


def test_the_least_certain_come_first() -> None:
    grid = Grid((900, 800), 0.972, np.random.default_rng(0))
    found = Corrections(
        CorrectedSlide(slide="a"),
        (
            Correction.of(
                Region(box(500, 400, 650, 600), measurements={"Score": 0.99}), Mark(action="reject")
            ),
            Correction.of(
                Region(box(250, 500, 350, 600), measurements={"Score": 0.6}), Mark(action="reject")
            ),
        ),
    )
    few = choose_corrected(grid, found, SamplingConfig(patches_per_slide=8), lambda *_: None)
    assert {label for _, label in few} == {0}
    assert all(corner[0] < 400 for corner, _ in few), "of the lesion that the model was less sure of"
    by_map = choose_corrected(
        grid,
        found,
        SamplingConfig(patches_per_slide=4),
        lambda _, points: np.where(points[:, 0] > 500, 0.5, 0.0),
    )
    assert all(corner[0] > 400 for corner, _ in by_map)


def test_heat_maps_are_read_where_there_are_any(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    grid = np.array([[0.1, np.nan, 0.3], [0.4, 0.5, 0.6]], np.float32)
    record = SlideScore(slide="a", url="x", status="done", key="k", bundle="b", um_px=0.5, score=0.6)
    store.put(record_key("a"), record.to_json())
    store.put(file_key("a", "cells.parquet"), cells_table(grid, 32.0, 64.0))
    at = heat_of(store)
    assert at("b", np.zeros((1, 2))) is None
    found = at("a", np.array([[0.0, 0.0], [70, 10], [130, 10], [190, 127], [1e6, 1e6]]))
    assert found == pytest.approx([0.1, 0.0, 0.3, 0.6, 0.6])


def test_slides_lie_where_the_corrections_say_or_below_source(slides: Path, tmp_path: Path) -> None:
    save(tmp_path / "c", url=str(slides / "a.tif"))
    config = IngestConfig(corrections=str(tmp_path / "c"), out=str(tmp_path / "out"))
    source, listing = corrected_patches(config)
    assert source == SlideSource(str(slides))
    assert listing.refs[0].startswith("a.tif#")
    assert config.dataset_name() == "c"
    with pytest.raises(SourceError, match="lacks 1 corrected slides"):
        corrected_patches(config.model_copy(update={"source": str(tmp_path)}))
    save(tmp_path / "c")
    with pytest.raises(SourceError, match="do not say where the slide lies"):
        corrected_patches(config)


def test_a_slide_that_does_not_say_its_size_is_read_with_the_one_that_was_given(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", gradient(600, 600), mpp=None)
    about = CorrectedSlide(slide="a", slide_url=str(tmp_path / "a.tif"), um_px=0.972)
    mark = Correction.of(Region(box(200, 200, 400, 300)), Mark())
    (tmp_path / f"a{SUFFIX}").write_bytes(Corrections(about, (mark,)).to_geojson())
    source, listing = corrected_patches(IngestConfig(corrections=str(tmp_path), out=str(tmp_path / "out")))
    items = listing.items(range(len(listing)))
    assert len(items) > 10
    assert not [bad for _, bad in source.read(items) if isinstance(bad, BadImage)]


def test_files_of_models_are_passed_over_and_doubles_refused(slides: Path, tmp_path: Path) -> None:
    config = IngestConfig(source=str(slides), corrections=str(tmp_path / "c"), out=str(tmp_path / "out"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.lesions.geojson").write_bytes(write_geojson([Region(box(0, 0, 9, 9), "macro")]))
    with pytest.raises(SourceError, match="holds no corrections"):
        corrected_patches(config)
    save(tmp_path / "c")
    (tmp_path / "c" / "a.geojson").write_bytes(write_geojson([Region(box(0, 0, 9, 9), "Tumor")]))
    with pytest.raises(SourceError, match="corrects a twice"):
        corrected_patches(config)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no source"):
        IngestConfig(out=str(tmp_path))
    with pytest.raises(ConfigError, match="scores of slides without slides"):
        IngestConfig(source="synthetic", scores=str(tmp_path), out=str(tmp_path))
