"""The shelf of scored slides: what it refuses to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sentinode.errors import EvaluationError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, slides_table
from sentinode.serving.slide_shelf import SlideShelf
from sentinode.serving.slides_args import SlidesArgs
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
