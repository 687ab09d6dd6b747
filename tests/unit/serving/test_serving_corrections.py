"""Corrections that the page's endpoint keeps: whatever QuPath drew keeps its meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapely import box

from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, slides_table
from sentinode.serving.slide_shelf import SlideShelf
from sentinode.serving.slides_args import SlidesArgs
from sentinode.slides.annotations import Region
from sentinode.slides.corrections import SUFFIX, read_corrections
from sentinode.slides.geojson import write_geojson
from sentinode.storage import open_store


@pytest.fixture
def shelf(tmp_path: Path) -> SlideShelf:
    record = SlideScore(slide="a", url="a.tif", status="done", key="k", bundle="b", um_px=0.5, score=0.5)
    open_store(str(tmp_path / "scores")).put(SLIDES_NAME, slides_table([record]))
    return SlideShelf(SlidesArgs(scores=str(tmp_path / "scores"), corrections=str(tmp_path / "kept")))


DRAWN = write_geojson(
    [
        Region(box(200 * n, 0, 200 * n + 100, 100), label)
        for n, label in enumerate(("Stroma", "Normal", "macro"))
    ]
)


def test_saving_leaves_classes_what_they_mean(shelf: SlideShelf) -> None:
    before = read_corrections(DRAWN, "drawn", "a")
    shelf.correct("a", DRAWN, "", "me")
    after = read_corrections(shelf.corrections("a")[0], "kept", "a")
    assert [c.region.label for c in after.corrections] == ["Stroma", "Tumor", "Ignore*"]
    for kept in (before, after):
        assert kept.tumour.bounds == (400, 0, 500, 100)
        assert kept.healthy.bounds == (200, 0, 300, 100)


def test_what_older_releases_of_qupath_write_comes_as_a_collection_with_marks(
    shelf: SlideShelf, tmp_path: Path
) -> None:
    bare = json.dumps(json.loads(DRAWN)["features"]).encode()
    open_store(str(tmp_path / "kept")).put(f"a{SUFFIX}", bare)
    given, version = shelf.corrections("a")
    found = [feature["properties"] for feature in json.loads(given)["features"]]
    assert [one["classification"]["name"] for one in found] == ["Stroma", "Tumor", "Ignore*"]
    assert {one["sentinode"]["action"] for one in found} == {"draw"}
    shelf.correct("a", given, version, "me")
