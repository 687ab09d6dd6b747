from __future__ import annotations

import re

import pytest
from evaluation_parts import make_predictions

from sentinode.evaluation.checklist import NOT_REPORTED, answers
from sentinode.evaluation.model_facts import ModelFacts
from sentinode.evaluation.report import EvaluationConfig, EvaluationReport, evaluate
from sentinode.evaluation.report_markdown import CHECKLISTS, checklists, model_card
from sentinode.schema import RESEARCH_USE_ONLY

FACTS = ModelFacts(
    name="first on <pcam> | small",
    architecture="seed-cnn, 31,230 trained parameters",
    input="RGB patches of 96 x 96 pixels.",
    training="adam.",
    selection="The weights of the best validation epoch.",
    dataset="pcam (read as folder)",
    splits={"train": "800 patches", "valid": "400 patches"},
    dropped="Left out at ingest: 3 duplicates.",
    reference="the reference labels of pcam",
    manifest_digest="d" * 64,
    code="abc123",
    versions="torch 2",
    run="s3://bucket/run",
)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    config = EvaluationConfig(resamples=100)
    return evaluate(make_predictions(400, "valid", 1), make_predictions(300, "test", 2), config, test_uses=1)


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    lines = text.split(f"## {heading}\n", 1)[1].split("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[2:]]


def test_the_card_holds_figures_intervals_points_and_limits(report: EvaluationReport) -> None:
    card = model_card(report, FACTS)
    assert card.count(RESEARCH_USE_ONLY) == 1
    assert report.test is not None
    auroc = report.test.measures["auroc"]
    assert f"{auroc.value:.3f} | {auroc.low:.3f}–{auroc.high:.3f}" in card
    points = rows_of(card, "Operating points")
    assert [row[0] for row in points] == ["screening", "balanced"]
    assert report.operating_points[0].guarantee is not None
    assert report.operating_points[0].guarantee.words in points[0][4]
    assert all(warning in card for warning in report.warnings)
    assert "first measurement" in card
    assert "3 duplicates" in card


def test_text_of_others_is_no_markup(report: EvaluationReport) -> None:
    card = model_card(report, FACTS)
    assert "# Model card: first on &lt;pcam> \\| small\n" in card
    assert "<pcam>" not in checklists(report, FACTS)
    hostile = report.model_copy(update={"warnings": ("lowest: <img src=x>\n# Heading",)})
    card = model_card(hostile, FACTS.model_copy(update={"reference": "<b>\n# Heading"}))
    assert not [markup for markup in ("<img", "<b>", "\n# Heading") if markup in card]


def test_every_table_row_has_as_many_cells_as_its_head(report: EvaluationReport) -> None:
    for text in (model_card(report, FACTS), checklists(report, FACTS)):
        widths: list[int] = []
        for line in text.splitlines():
            if line.startswith("|"):
                widths.append(len(re.split(r"(?<!\\)\|", line)))
                assert widths[-1] == widths[0]
            else:
                widths = []


@pytest.mark.parametrize(
    ("name", "first", "last", "numbers"),
    [("STARD-AI", 1, 40, 40), ("TRIPOD+AI", 1, 27, 27), ("CLAIM, 2024 update", 1, 44, 44)],
)
def test_checklists_carry_every_number_of_the_guideline(
    name: str, first: int, last: int, numbers: int
) -> None:
    checklist = next(c for c in CHECKLISTS if c.name == name)
    found = [int(m.group()) for i in checklist.items if (m := re.match(r"\d+", i.number))]
    assert found == sorted(found)
    assert len(set(found)) == numbers
    assert (found[0], found[-1]) == (first, last)
    rows = [i.number for i in checklist.items]
    assert len(set(rows)) == len(rows) == {"STARD-AI": 48, "TRIPOD+AI": 52}.get(name, numbers)


def test_what_is_known_is_filled_in_and_the_rest_is_not_reported(report: EvaluationReport) -> None:
    text = checklists(report, FACTS)
    claim = {row[0]: row[2] for row in rows_of(text, "CLAIM, 2024 update")}
    assert claim["25"] == FACTS.training
    assert claim["11"] == claim["44"] == NOT_REPORTED
    at = report.headline.points["screening"]
    stard = {row[0]: row[2] for row in rows_of(text, "STARD-AI")}
    assert f"{at.tp} found, {at.fn} missed, {at.fp} false alarms, {at.tn} rightly set aside" in stard["30"]
    assert stard["21"] == NOT_REPORTED  # no slide, no centre


def test_an_answer_that_is_not_known_is_left_out(report: EvaluationReport) -> None:
    unknown = FACTS.model_copy(update={"training": "", "dataset": ""})
    assert not {"training", "disjoint"} & answers(report, unknown).keys()
    assert "stay as they were" in answers(report, FACTS)["no_update"]
    by_slide = evaluate(make_predictions(800, "valid", 1, slides=4), None, EvaluationConfig(resamples=100))
    assert "by slide" in answers(by_slide, FACTS)["variability"]
    assert "chosen on the patches" in answers(by_slide, FACTS)["no_update"]
