"""Figures of scored slides: each against a count by hand, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely import MultiPolygon, box

from sentinode.commands.evaluate import EvaluateCommand
from sentinode.commands.evaluate import run as evaluate
from sentinode.commands.evaluate_slides import describe_slides
from sentinode.errors import ConfigError, EvaluationError, ObjectNotFoundError, SourceError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.detections import Detections
from sentinode.evaluation.scored_slides import ScoredSlidesConfig, ScoredSlidesReport, evaluate_scored
from sentinode.evaluation.scored_slides_html import render_scored_slides
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, slides_table
from sentinode.evaluation.slide_reference import Stage
from sentinode.evaluation.slide_scores_csv import slide_scores_from_csv
from sentinode.evaluation.worklist import ScreeningRule
from sentinode.schema import NodeClass
from sentinode.slides.lesions import Lesion, lesions_of
from sentinode.storage import open_store

RULE = ScreeningRule(threshold=0.3, promise="At least 0.95 of new tumour patches are flagged.")
FEW = ScoredSlidesConfig.model_validate({"slides": {"resamples": 200}, "froc": {"resamples": 200}})
M, ITC, N = NodeClass.MACRO, NodeClass.ITC, NodeClass.NEGATIVE


def score(slide: str, value: float, found: NodeClass = N, **changes: object) -> SlideScore:
    settings = {
        "url": slide,
        "status": "done",
        "key": "k",
        "bundle": "ab" * 32,
        "node_class": found,
        "um_px": 1.0,
    }
    return SlideScore(slide=slide, score=value, **(settings | changes))  # type: ignore[arg-type]


def lesion(x: float, side: float) -> tuple[Lesion, ...]:
    return lesions_of(MultiPolygon([box(x, 0, x + side, side)]), 1.0)


def report(config: ScoredSlidesConfig = FEW, rule: ScreeningRule | None = RULE) -> ScoredSlidesReport:
    scores = [
        score("a", 0.9, M),
        score("b", 0.2, N),
        score("c", 0.4, M),
        score("d", 0.1, N),
        score("e", 0.05, ITC),
        score("f", 0.0, status="failed", reason="broken"),
    ]
    points = {
        "a": Detections.of([0.9, 0.6], [[100, 100], [9000, 9000]]),
        "b": Detections.of([0.2], [[5000, 0]]),
        "c": Detections.of([0.4], [[0, 0]]),
        "d": Detections.of([], []),
        "e": Detections.of([0.05], [[50, 50]]),
    }
    highest = {"a": 0.95, "b": 0.2, "c": 0.5, "d": 0.1, "e": 0.1}
    classes = {"a": M, "b": M, "c": N, "d": N, "e": ITC, "f": M}
    lesions = {"a": lesion(0, 2500), "b": lesion(0, 2200), "c": (), "d": (), "e": lesion(0, 130)}
    return evaluate_scored(scores, highest, points, classes, lesions, {}, rule, config, ["A note."])


def test_slides_are_ranked_by_their_score() -> None:
    found = report()
    # a beats c, d and e; b beats d and e but not c: 5 of 6 pairs. Isolated tumour cells count as negative.
    assert found.slides.auroc.value == pytest.approx(5 / 6)
    assert (found.slides.positives, found.slides.negatives) == (2, 3)
    assert found.failed == ("f",)
    left_out = report(FEW.model_copy(update={"itc": "left out"}))
    assert left_out.slides.negatives == 2


def test_the_screening_point_is_counted_on_slides_with_exact_intervals() -> None:
    found = report().screening
    assert found is not None
    assert (found.kept.count, found.kept.of, found.missed) == (1, 2, ("b",))
    assert (found.set_aside.count, found.set_aside.of) == (2, 3)
    assert found.kept.share.low == pytest.approx(0.0126, abs=1e-3)
    assert any("tumour slides aside: b" in caution for caution in report().cautions)
    assert report(rule=None).screening is None


def test_lesions_are_found_or_not() -> None:
    found = report()
    assert found.froc is not None
    assert (found.froc.lesions, found.froc.ignored_lesions, found.froc.false_positives) == (2, 1, 3)
    assert {row.size: (row.found.count, row.found.of) for row in found.sizes} == {M: (1, 2), ITC: (1, 1)}
    assert found.froc.score.value == pytest.approx(0.5)


def test_the_log_says_that_lesions_count_as_found_at_any_confidence() -> None:
    assert "macro: 1 of 2 lesions found, at any confidence" in describe_slides(report())


def test_classes_are_tabled() -> None:
    table = np.array(report().classes)
    names = list(NodeClass)
    assert table.sum() == 5
    assert table[names.index(M), names.index(M)] == 1
    assert table[names.index(M), names.index(N)] == 1
    assert table[names.index(ITC), names.index(ITC)] == 1


def test_stages_of_whole_patients_only() -> None:
    nodes = {f"patient_00{p}_node_{n}": M if n < 2 and p == 1 else N for p in (1, 2, 3) for n in range(5)}
    scores = [
        score(name, 0.9 if c is M else 0.1, c) for name, c in nodes.items() if name != "patient_003_node_4"
    ]
    stages = {"patient_001": Stage.PN1, "patient_002": Stage.PN1MI, "patient_003": Stage.PN0}
    found = evaluate_scored(scores, dict.fromkeys(nodes, 0.5), {}, nodes, {}, stages, None, FEW)
    assert found.stages is not None
    assert found.stages.patients == 2
    assert found.stages.accuracy.value == 0.5
    assert found.froc is None


def test_slides_without_reference_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no scored slide with a reference"):
        evaluate_scored([score("a", 0.5)], {}, {}, {"b": M}, {}, {}, None)


def test_the_page_shows_every_part_and_stands_alone() -> None:
    labels = {"a": True, "b": True, "c": False, "d": False, "e": False}
    scores = {"a": 0.9, "b": 0.2, "c": 0.4, "d": 0.1, "e": 0.05}
    text = render_scored_slides(report(), scores, labels, "<b>scores</b>", {"Scores": "s3://b/scores"})
    assert "<b>scores" not in text
    assert "<script" not in text
    for part in (
        "Slide AUROC",
        "FROC",
        "Reading saved",
        "Patient stages",
        "A note.",
        "Research use only",
        "<svg",
    ):
        assert part in text
    assert "<p>2 slides with tumour, " in text
    one = report().model_copy(update={"slides": report().slides.model_copy(update={"positives": 1})})
    text = render_scored_slides(one, scores, labels, "x", {})
    assert "<p>1 slide with tumour, " in text
    bare = report(rule=None).model_copy(update={"froc": None, "sizes": ()})
    text = render_scored_slides(bare, scores, labels, "x", {})
    assert "No FROC" in text
    assert text.count("no threshold given") == 2


def test_few_lesions_are_told() -> None:
    assert any(caution.startswith("Lesions to be found: only 2.") for caution in report().cautions)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "no column slide"),
        (b"slide,score\na,1\n", "no column um_px"),
        (b"slide,score,um_px\n", "no row"),
        (b"slide,score,um_px\na,1,0.25\na,2,0.25\n", "a stands more than once"),
        (b"slide,score,um_px\na,nan,0.25\n", "line 2: score is 'nan'"),
        (b"slide,score,um_px\na\n", "line 2: um_px is ''"),
        (b"slide,score,um_px\na,1,0\n", "um_px 0"),
        (b"slide,score,um_px\n,1,0.25\n", "line 2: no slide"),
        (b"slide,score,um_px,class\na,1,0.25,huge\n", "class 'huge'"),
        (b"\xff\xfe\xa6", "not a CSV file"),
    ],
)
def test_bad_tables_of_slides_are_refused(text: bytes, word: str) -> None:
    with pytest.raises(EvaluationError, match=word):
        slide_scores_from_csv(text, "slides.csv")


SQUARE = "".join(
    f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>'
    for i, (x, y) in enumerate([(0, 0), (0, 9000), (9000, 9000), (9000, 0)])
)
ASAP = (
    '<ASAP_Annotations><Annotations><Annotation Name="1" Type="Polygon" PartOfGroup="metastases"><Coordinates>'
    f"{SQUARE}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
)
"""A lesion of 9,000 x 9,000 pixels: 2.25 mm at 0.25 um/px."""


class TestCommand:
    def scores(self, folder: Path) -> None:
        store = open_store(str(folder))
        rows = [score("test_501", 0.9, M), score("test_502", 0.1, N)]
        store.put(SLIDES_NAME, slides_table(rows))
        for row in rows:
            grid = np.array([[0.0, row.score]], np.float32)
            store.put(file_key(row.slide, "cells.parquet"), cells_table(grid, 31.0, 64.0))
            store.put(f"detections/{row.slide}.csv", Detections.of([], []).to_csv())

    def test_report_is_kept_beside_the_scores_or_elsewhere(self, tmp_path: Path) -> None:
        self.scores(tmp_path / "scores")
        (tmp_path / "reference.csv").write_text("Test_501,Tumor,IDC,Macro\nTest_502,Normal,None,None\n")
        command = EvaluateCommand(slides=str(tmp_path / "scores"), reference=str(tmp_path))
        assert evaluate(command) == 0
        assert evaluate(command.model_copy(update={"out": str(tmp_path / "out")})) == 0
        for folder in ("scores", "out"):
            found = ScoredSlidesReport.from_json((tmp_path / folder / "slides_report.json").read_bytes(), "x")
            assert found.slides.auroc.value == 1.0
            assert found.screening is None
            assert any("without annotation" in caution for caution in found.cautions)

    def test_scores_of_another_system_come_as_tables(self, tmp_path: Path) -> None:
        theirs = open_store(str(tmp_path / "theirs"))
        nodes = [f"patient_000_node_{i}" for i in range(5)]
        rows = [f"{name},{9.5 - i},0.25,{'macro' if i == 0 else 'negative'}" for i, name in enumerate(nodes)]
        theirs.put("slides.csv", "\n".join(["slide,score,um_px,class", *rows, ""]).encode())
        labels = [f"{name}.tif,{'macro' if i == 0 else 'negative'}" for i, name in enumerate(nodes)]
        (tmp_path / "stage_labels.csv").write_text(
            "\n".join(["patient,stage", "patient_000.zip,pN1", *labels, ""])
        )
        (tmp_path / f"{nodes[0]}.xml").write_text(ASAP)
        command = EvaluateCommand(slides=str(tmp_path / "theirs"), reference=str(tmp_path))
        assert evaluate(command) == 0
        found = ScoredSlidesReport.from_json(theirs.get("slides_report.json"), "x")
        assert (found.slides.auroc.value, found.froc) == (1.0, None)
        assert found.stages is not None
        assert found.stages.table[3][3] == 1
        for name in nodes:
            hit = [[1000.0, 1000.0], [90_000.0, 90_000.0]] if name == nodes[0] else []
            theirs.put(f"detections/{name}.csv", Detections.of([0.9, 0.4][: len(hit)], hit).to_csv())
        assert evaluate(command) == 0
        found = ScoredSlidesReport.from_json(theirs.get("slides_report.json"), "x")
        assert found.froc is not None
        assert (found.froc.lesions, found.froc.score.value) == (1, 1.0)
        theirs.delete(f"detections/{nodes[4]}.csv")
        with pytest.raises(ObjectNotFoundError, match="does not exist"):
            evaluate(command)
        with pytest.raises(ConfigError, match="beside a registry"):
            evaluate(command.model_copy(update={"registry": str(tmp_path)}))

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        self.scores(tmp_path / "scores")
        with pytest.raises(ValueError, match="give its folder"):
            EvaluateCommand(slides=str(tmp_path))
        with pytest.raises(ValueError, match="give one of"):
            EvaluateCommand(slides=str(tmp_path), run=str(tmp_path))
        (tmp_path / "none").mkdir()
        with pytest.raises(SourceError, match="says nothing"):
            evaluate(EvaluateCommand(slides=str(tmp_path / "scores"), reference=str(tmp_path / "none")))
