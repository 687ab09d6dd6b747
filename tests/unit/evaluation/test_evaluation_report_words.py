from __future__ import annotations

import numpy as np
import pytest
from evaluation_parts import make_predictions

from sentinode.evaluation import cautions, report_words
from sentinode.evaluation.calibrator import Calibration
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.report import EvaluationConfig, EvaluationReport, evaluate
from sentinode.evaluation.report_html import render_html

QUICK = EvaluationConfig(resamples=100, prevalence=0.02)


def of_slides(split: str, seed: int, slides: int, patches: int = 600) -> Predictions:
    """Slides alternately negative and mixed, of three centres."""
    made = make_predictions(patches, split, seed)
    slide = np.arange(patches) // (patches // slides)
    labels = np.where(slide % 2 == 0, 0, made.labels).astype(np.int8)
    return Predictions(
        **{
            **vars(made),
            "labels": labels,
            "slides": np.array([f"{split}_{s:02d}" for s in slide], object),
            "centres": np.array([f"centre_{s % 3}" for s in slide], object),
        }
    )


VALID, TEST = of_slides("valid", 1, 30), of_slides("test", 2, 30)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return evaluate(VALID, TEST, QUICK, test_uses=2)


@pytest.fixture(scope="module")
def page(report: EvaluationReport) -> str:
    return render_html(report, VALID.calibrated(report.calibration), TEST.calibrated(report.calibration))


def test_long_tables_are_cut_weakest_first_with_a_stated_number(report: EvaluationReport, page: str) -> None:
    slides, centres = report_words.strata_tables(report.headline)
    assert (slides.kind, slides.total, len(slides.rows)) == ("slide", 30, report_words.LONGEST_TABLE)
    found = [s.sensitivity.value for s in slides.rows if s.sensitivity.value is not None]
    lowest = sorted(s.sensitivity.value for s in report.headline.strata if s.kind == "slide" and s.positives)
    assert found == lowest[: len(found)]
    assert len(centres.rows) == centres.total == 3
    assert "12 of 30 shown, lowest sensitivity first" in page
    assert "3 of 3 shown" not in page


def test_the_worst_stratum_is_named(report: EvaluationReport, page: str) -> None:
    worst = next(w for w in report.headline.worst_strata if (w.kind, w.measure) == ("centre", "specificity"))
    assert f"Lowest specificity: {worst.name}" in page


def test_slides_stand_in_the_report_as_an_estimate(report: EvaluationReport, page: str) -> None:
    slides = report.slide_level
    assert slides is not None
    assert (slides.slides, slides.positives, slides.negatives, slides.sampled) == (30, 15, 15, True)
    assert "Whole slides" in page
    assert "An estimate" in page
    assert f"{slides.auroc.value:.3f}" in page
    without = make_predictions(600, "valid", 1)
    unknown = evaluate(without, None, QUICK)
    assert unknown.slide_level is None
    assert "Whole slides" not in render_html(unknown, without, None)


def test_each_operating_point_says_what_is_promised(report: EvaluationReport, page: str) -> None:
    screening, balanced = report.operating_points
    assert screening.guarantee is not None
    assert screening.guarantee.words in page
    assert balanced.guarantee is None
    assert "Nothing is promised of its sensitivity" in page


def test_uses_of_the_test_split_are_told(report: EvaluationReport, page: str) -> None:
    assert "measured 2 times" in page
    assert "first measurement" in report_words.test_uses(report.model_copy(update={"test_uses": 1}))
    assert "not recorded" in report_words.test_uses(report.model_copy(update={"test_uses": 0}))
    assert "no test split" in report_words.test_uses(report.model_copy(update={"test": None}))


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (Calibration(), "not adjusted"),
        (Calibration(kind="temperature", a=0.5), "T = 2.000"),
        (Calibration(kind="platt", a=0.5, b=0.25), "shift 0.250"),
        (Calibration(kind="isotonic", knots=((-1.0, 0.1), (1.0, 0.9))), "2 knots"),
    ],
)
def test_calibration_is_told_in_words(calibration: Calibration, words: str) -> None:
    assert words in report_words.calibration(calibration)


def test_a_probability_is_moved_to_the_stated_prevalence(report: EvaluationReport) -> None:
    sampled = float(VALID.labels.mean())
    odds = (0.02 / 0.98) / (sampled / (1 - sampled))
    assert f"{100 * odds / (1 + odds):.2f}" in str(report_words.prevalence(report))
    assert report_words.prevalence(report.model_copy(update={"calibration_at_prevalence": None})) is None


def test_saved_reading_stands_beside_the_negatives(report: EvaluationReport, page: str) -> None:
    rows = report_words.workload_rows(report.headline, report.config)
    assert [row.sensitivity for row in rows] == [0.95, 0.99, 1.0]
    last = rows[-1]
    assert last.negatives.value is not None
    share = report.headline.negatives / report.headline.patches
    assert last.reading_saved == pytest.approx(last.negatives.value * share)
    assert last.at_prevalence == pytest.approx(last.negatives.value * 0.98)
    odd = EvaluationConfig(resamples=100, workload_sensitivities=(0.123,))
    assert report_words.workload_rows(evaluate(VALID, None, odd).headline, odd)[0].reading_saved is None
    assert "tumour found" in page.lower()


def test_both_intervals_of_auroc_and_the_glossary_are_shown(page: str) -> None:
    assert "AUROC (bootstrap)" in page
    assert "AUROC (DeLong)" in page
    for term, _ in report_words.GLOSSARY:
        assert term.replace("'", "&#39;") in page


def test_shares_are_not_rounded_to_what_they_are_not() -> None:
    assert [cautions.aim(share) for share in (0.98, 0.975, 0.995)] == [
        f"{text}{cautions.UNIT}" for text in ("98", "97.5", "99.5")
    ]
    result = evaluate(VALID, None, QUICK).valid
    point = result.points["screening"]

    def said(specificity: float) -> str:
        spared = point.measures["specificity"].model_copy(update={"value": specificity})
        at = point.model_copy(update={"measures": {**point.measures, "specificity": spared}})
        shown = result.model_copy(update={"points": {"screening": at}})
        return cautions.summary(shown, evaluate(VALID, None, QUICK).operating_points[0], 0.95).split(" need")[
            0
        ]

    assert [said(s).rsplit(" ", 1)[-1] for s in (0.4, 0.9961, 0.001, 1.0)] == ["40", "99.6", "0.1", "100"]
