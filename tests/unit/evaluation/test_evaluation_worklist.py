"""The worklist: what comes first, what may be set aside and what never, as table and as page."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from sentinode.commands.worklist import WorklistCommand, run
from sentinode.errors import ConfigError, EvaluationError, ObjectNotFoundError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, slides_table
from sentinode.evaluation.worklist import Group, ScreeningRule, Worklist, order_slides
from sentinode.evaluation.worklist_html import render_worklist
from sentinode.schema import NodeClass
from sentinode.storage import open_store

RULE = ScreeningRule(threshold=0.1, promise="At least 0.95 of new tumour patches are flagged.")


def score(slide: str, value: float | None = 0.5, **changes: object) -> SlideScore:
    settings = {
        "url": f"s3://b/{slide}.tif",
        "status": "done",
        "key": "k",
        "bundle": "ab" * 32,
        "pooling": "top-k mean",
        "blurred_of_tissue": 0.0,
    }
    return SlideScore(slide=slide, score=value, **(settings | changes))  # type: ignore[arg-type]


SCORES = (
    score("quiet", 0.01, node_class=NodeClass.NEGATIVE, lesions=0),
    score("blurred", 0.02, flags=("blurred",)),
    score("small", 0.7, node_class=NodeClass.ITC, lesions=1, largest_um=150.0, tumour_mm2=0.01),
    score("large", 0.7, node_class=NodeClass.MACRO, lesions=2, largest_um=2500.0, tumour_mm2=3.1),
    score("edge", 0.05, lesions=0),
    score("broken", None, status="failed", reason="broken.tif is truncated\n  expected: a whole slide"),
    score("flagged", 0.9, flags=("pen",), node_class=NodeClass.MICRO, lesions=1, largest_um=400.0),
)
HIGHEST = {"quiet": 0.09, "blurred": 0.05, "small": 0.95, "large": 0.8, "edge": 0.1, "flagged": 0.99}


def worklist() -> Worklist:
    return order_slides(SCORES, HIGHEST, RULE)


def test_the_most_suspicious_come_first_and_size_decides_between_equals() -> None:
    order = [entry.score.slide for entry in worklist().entries]
    assert order == ["flagged", "large", "small", "edge", "blurred", "broken", "quiet"]
    assert [entry.rank for entry in worklist().entries] == list(range(1, 8))


def test_only_a_slide_that_was_judged_whole_and_stays_below_is_set_aside() -> None:
    assert [e.score.slide for e in worklist().of(Group.ASIDE)] == ["quiet"]
    assert [e.score.slide for e in worklist().of(Group.NOT_JUDGED)] == ["blurred", "broken"]
    assert worklist().of(Group.NOT_JUDGED)[1].why == "not scored: broken.tif is truncated"


def test_a_slide_of_which_more_than_a_hundredth_is_blurred_is_not_set_aside() -> None:
    def judged(blurred: float | None, flags: tuple[str, ...] = (), highest: float = 0.01) -> tuple[str, str]:
        given = score("a", 0.01, blurred_of_tissue=blurred, flags=flags)
        (entry,) = order_slides([given], {"a": highest}, RULE).entries
        return entry.group, entry.why

    assert judged(0.01)[0] == Group.ASIDE
    assert judged(0.15) == (Group.NOT_JUDGED, "not all of it was judged: blurred (15.0 % of the tissue)")
    assert judged(0.3, ("blurred", "pen"))[1].endswith("judged: pen, blurred (30.0 % of the tissue)")
    assert judged(0.15, highest=0.5)[1].endswith("not all of it was judged: blurred (15.0 % of the tissue)")


def test_records_of_earlier_versions_do_not_say_how_much_is_blurred_and_the_list_tells() -> None:
    old = score("old", 0.01, blurred_of_tissue=None)
    found = order_slides([old, *SCORES], {**HIGHEST, "old": 0.01}, RULE)
    assert [entry.score.slide for entry in found.of(Group.ASIDE)] == ["old", "quiet"]
    assert any(caution.startswith("1 slides were scored by an earlier version") for caution in found.cautions)
    assert not any("earlier version" in caution for caution in worklist().cautions)


def test_the_promise_and_what_it_does_not_say_stand_on_the_list() -> None:
    assert RULE.promise in worklist().cautions
    assert any("not on slides" in c or "chosen on patches" in c for c in worklist().cautions)
    mixed = order_slides((*SCORES, score("other", bundle="cd" * 32)), HIGHEST | {"other": 0.5}, RULE)
    assert any("2 different models" in c for c in mixed.cautions)


def test_the_table_has_a_row_for_each_slide_and_no_formula() -> None:
    listed = order_slides((*SCORES, score("=cmd()")), HIGHEST | {"=cmd()": 0.5}, RULE)
    rows = list(csv.DictReader(io.StringIO(listed.to_csv().decode())))
    assert len(rows) == 8
    assert rows[0]["slide"] == "flagged"
    assert rows[0]["flags"] == "pen"
    assert rows[0]["group"] == "read"
    assert rows[1]["flags"] == ""
    assert rows[-1]["score"] == "0.01"
    assert "'=cmd()" in {row["slide"] for row in rows}
    assert next(row for row in rows if row["slide"] == "broken")["score"] == ""


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no scored slide"):
        order_slides((), {}, RULE)
    with pytest.raises(EvaluationError, match="quiet comes twice or has no heat map"):
        order_slides(SCORES, {k: v for k, v in HIGHEST.items() if k != "quiet"}, RULE)
    with pytest.raises(EvaluationError, match="edge comes twice"):
        order_slides((*SCORES, SCORES[4]), HIGHEST, RULE)


def test_the_page_is_whole_by_itself_and_takes_no_markup_from_names() -> None:
    hostile = order_slides(
        (*SCORES, score("<script>x</script>")), HIGHEST | {"<script>x</script>": 0.4}, RULE
    )
    text = render_worklist(hostile, "scores", {"flagged": b"\xff\xd8\xff"})
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("Research use only") >= 2
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "may be set aside" in text.lower()
    assert 'src="data:image/jpeg;base64,' in text


class TestCommand:
    def test_list_and_page_are_written_beside_the_scores(self, tmp_path: Path) -> None:
        store = open_store(str(tmp_path))
        store.put(SLIDES_NAME, slides_table(SCORES))
        for name, highest in HIGHEST.items():
            grid = np.array([[0.0, highest], [np.nan, 0.0]], np.float32)
            store.put(file_key(name, "cells.parquet"), cells_table(grid, 31.0, 64.0))
        assert run(WorklistCommand(scores=str(tmp_path), threshold=0.1)) == 0
        assert (tmp_path / "worklist.html").read_text().count("<tr>") == 7 + 3
        assert len((tmp_path / "worklist.csv").read_text().splitlines()) == 8

    def test_cells_of_a_later_scoring_that_was_stopped_are_not_taken_for_those_of_the_record(
        self, tmp_path: Path
    ) -> None:
        store, quiet = open_store(str(tmp_path)), np.full((2, 2), 0.01, np.float32)
        recorded = score("tumour", 0.9)
        store.put(SLIDES_NAME, slides_table([recorded]))
        later = recorded.model_copy(update={"key": "k2", "bundle": "cd" * 32})
        store.put(file_key("tumour", "cells.parquet"), cells_table(quiet, 31.0, 64.0, later))
        with pytest.raises(EvaluationError, match=r"another scoring \(bundle cdcdcd"):
            run(WorklistCommand(scores=str(tmp_path), threshold=0.1))
        store.put(file_key("tumour", "cells.parquet"), cells_table(quiet, 31.0, 64.0, recorded))
        assert run(WorklistCommand(scores=str(tmp_path), threshold=0.1)) == 0

    def test_a_folder_without_scores_and_a_list_without_a_point_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ObjectNotFoundError, match=r"holds no slides\.parquet"):
            run(WorklistCommand(scores=str(tmp_path)))
        open_store(str(tmp_path)).put(SLIDES_NAME, slides_table(SCORES))
        with pytest.raises(ConfigError, match="no registry"):
            run(WorklistCommand(scores=str(tmp_path)))
