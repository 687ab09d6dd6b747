"""The shelf of scored slides: what it refuses to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slide_files import tissue, write_pyramid

from sentinode.errors import EvaluationError, RequestError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, slides_table
from sentinode.evaluation.worklist import ScreeningRule, order_slides
from sentinode.serving.deep_zoom import DeepZoom
from sentinode.serving.slide_shelf import SlideShelf
from sentinode.serving.slides_args import SlidesArgs
from sentinode.slides.reader import open_slide
from sentinode.storage import Store, open_store

SCORED = SlideScore(slide="a", url="a.tif", status="done", key="k", bundle="b" * 64, um_px=0.5, score=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = open_store(str(tmp_path))
    found.put(SLIDES_NAME, slides_table([SCORED]))
    return found


def test_files_of_a_scoring_that_is_not_over_are_not_shown_for_the_earlier_one(store: Store) -> None:
    shelf, cells = SlideShelf(SlidesArgs(scores=store.url)), np.full((4, 4), 0.5, np.float32)
    store.put(file_key("a", "lesions.geojson"), b"{}")
    store.put(file_key("a", "cells.parquet"), cells_table(cells, 16.0, 32.0, SCORED))
    assert shelf.lesions("a") == b"{}"
    assert shelf.heat_map("a").startswith(b"\x89PNG")
    later = SCORED.model_copy(update={"key": "k2"})
    store.put(file_key("a", "cells.parquet"), cells_table(cells, 16.0, 32.0, later))
    for show in (shelf.lesions, shelf.heat_map):
        with pytest.raises(EvaluationError, match="another scoring"):
            show("a")


def test_a_worklist_that_a_spreadsheet_has_saved_takes_no_slide_away(store: Store) -> None:
    shelf = SlideShelf(SlidesArgs(scores=store.url))
    written = order_slides([SCORED], {"a": 0.5}, ScreeningRule(threshold=0.1, promise="none")).to_csv()
    changed = {
        "semicolons": written.replace(b",", b";"),
        "UTF-16": written.decode().encode("utf-16"),
        "no number": written.replace(b"\n1,", b"\nfirst,"),
        "cut": written[:-60],
        "empty": b"",
    }
    for how, data in changed.items():
        store.put("worklist.csv", data)
        listing = shelf.listing()
        assert (listing.worklist, [s.score.slide for s in listing.slides]) == ("outdated", ["a"]), how
    store.put("worklist.csv", b"\xef\xbb\xbf" + written.replace(b"\n", b"\r\n"))
    assert shelf.listing().worklist == "current", "a byte order mark changes nothing"


@pytest.mark.parametrize("level", [-1, 11, 5000, 10**400])
def test_levels_that_a_slide_has_not_have_no_tile(tmp_path: Path, level: int) -> None:
    path = write_pyramid(tmp_path / "a.tif", tissue(700, 600))
    with open_slide(str(path)) as slide, pytest.raises(RequestError) as caught:
        DeepZoom(slide).tile(level, 0, 0)
    assert caught.value.status == 404
