from __future__ import annotations

import json
import re

import numpy as np
import pytest
from evaluation_parts import make_predictions
from pydantic import ValidationError
from sklearn import metrics as reference

from sentinode.errors import EvaluationError, LeakError
from sentinode.evaluation import cautions
from sentinode.evaluation.gallery import GalleryPatch, gallery_patches, worst_errors
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import Estimate
from sentinode.evaluation.report import EvaluationConfig, EvaluationReport, evaluate
from sentinode.evaluation.report_html import render_html
from sentinode.schema import RESEARCH_USE_ONLY

FURTHER = ("sensitivity-90=sensitivity:0.9", "sensitivity-98=sensitivity:0.98")
QUICK = EvaluationConfig(resamples=200)
VALID, TEST = make_predictions(400, "valid", 1), make_predictions(300, "test", 2)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    config = EvaluationConfig(
        resamples=300,
        points=("sensitivity-90=sensitivity:0.9", "sensitivity-98=sensitivity:0.98"),
        prevalence=0.02,
    )
    return evaluate(VALID, TEST, config)


def test_every_figure_of_test_agrees_with_scikit_learn(report: EvaluationReport) -> None:
    assert report.test is not None
    probabilities = TEST.calibrated(report.calibration).probabilities
    auroc = report.test.measures["auroc"]
    assert auroc.value == pytest.approx(reference.roc_auc_score(TEST.labels, TEST.probabilities), abs=1e-12)
    assert report.test.measures["brier"].value == pytest.approx(
        reference.brier_score_loss(TEST.labels, probabilities), abs=1e-12
    )
    for point in report.operating_points:
        flagged = probabilities >= point.threshold
        found = report.test.points[point.name]
        assert [[found.tn, found.fp], [found.fn, found.tp]] == reference.confusion_matrix(
            TEST.labels, flagged
        ).tolist()
        accuracy = found.measures["accuracy"]
        assert accuracy.value == pytest.approx(reference.accuracy_score(TEST.labels, flagged), abs=1e-12)


def test_values_lie_in_their_intervals(report: EvaluationReport) -> None:
    for result in (report.valid, report.test):
        assert result is not None
        estimates = dict(result.measures)
        for name, point in result.points.items():
            estimates |= {f"{name}/{key}": e for key, e in point.measures.items()}
        for name, e in estimates.items():
            assert e.value is not None, name
            assert e.low is not None, name
            assert e.high is not None, name
            assert e.low < e.high, name
            if name != "ece":
                assert e.low <= e.value <= e.high, name


def test_thresholds_come_from_validation_alone(report: EvaluationReport) -> None:
    other_test = evaluate(VALID, make_predictions(300, "test", 9), report.config)
    assert other_test.operating_points == report.operating_points
    assert [p.name for p in report.operating_points] == [
        "screening",
        "balanced",
        "sensitivity-90",
        "sensitivity-98",
    ]
    screening = report.operating_points[0]
    assert screening.valid_sensitivity >= 0.99
    assert report.valid.points["screening"].measures["sensitivity"].value == screening.valid_sensitivity


def test_the_report_is_reproducible_and_survives_json(report: EvaluationReport) -> None:
    assert evaluate(VALID, TEST, report.config) == report
    again = EvaluationReport.from_json(report.to_json(), "report.json")
    assert again == report
    assert json.loads(report.to_json())["notice"] == RESEARCH_USE_ONLY


def test_intervals_name_their_unit() -> None:
    by_patch = evaluate(VALID, None, QUICK)
    assert by_patch.valid.interval_unit == "patch"
    assert by_patch.valid.points["screening"].measures["sensitivity"].method == "exact over patches"
    assert by_patch.valid.measures["auroc"].method == "bootstrap over patches"
    by_slide = evaluate(make_predictions(400, "valid", 1, slides=40), None, QUICK)
    assert (by_slide.valid.interval_unit, by_slide.valid.slides) == ("slide", 40)
    assert by_slide.valid.points["balanced"].measures["sensitivity"].method == "bootstrap over slides"
    assert by_slide.valid.measures["auroc"].value == by_patch.valid.measures["auroc"].value


def test_a_faultless_proportion_keeps_an_honest_interval() -> None:
    sure = make_predictions(400, "valid", 1, slides=40, shift=40)
    sensitivity = evaluate(sure, None, QUICK).valid.points["balanced"].measures["sensitivity"]
    assert (sensitivity.value, sensitivity.high) == (1.0, 1.0)
    assert sensitivity.low == pytest.approx(0.025 ** (1 / 200))
    assert sensitivity.method == "exact over patches"


def test_a_test_split_of_one_class_gets_no_silent_number() -> None:
    test = make_predictions(300, "test", 2)
    negative, tumour = (test.select(test.labels == label) for label in (0, 1))
    report = evaluate(VALID, negative, QUICK)
    assert report.test is not None
    assert report.test.measures["auroc"].value is None
    assert report.test.points["screening"].measures["sensitivity"].value is None
    assert report.test.points["screening"].measures["specificity"].value is not None
    assert warned(report, "No tumour patch in test") == [True]
    assert warned(evaluate(VALID, tumour, QUICK), "No negative patch in test", "only 150") == [True, True]
    one = evaluate(VALID, test.select(np.array([0, 1, 2])), QUICK)
    assert warned(one, "above 5.0") == [True]  # 1 of 1 found: 0.05^(1/1)


def warned(report: EvaluationReport, *words: str) -> list[bool]:
    return [any(word in warning for warning in report.warnings) for word in words]


def test_warnings_say_what_limits_the_figures() -> None:
    for words in ("no test split", "Slides are unknown", "only 200", "patches as exchangeable"):
        assert warned(evaluate(VALID, None, QUICK), words) == [True], words
    known = evaluate(
        make_predictions(800, "valid", 1, slides=40), make_predictions(800, "test", 2, slides=40), QUICK
    )
    assert len(known.warnings) == 1
    assert warned(known, "at least 99 are needed") == [True]
    few = make_predictions(800, "test", 2, slides=5)
    assert warned(evaluate(VALID, few, QUICK), "Only 5 slides") == [True]
    slides = few.slides.copy()
    slides[:10] = None
    partly = Predictions(**{**vars(few), "slides": slides})
    assert warned(evaluate(VALID, partly, QUICK), "10 of 800 patches name no slide") == [True]
    assert warned(evaluate(VALID, partly, QUICK), "Only 5 slides") == [True]
    shared = Predictions(**{**vars(few), "slides": np.array(["s"] * 800, object)})
    valid = Predictions(**{**vars(VALID), "slides": np.array(["s"] * 400, object)})
    assert warned(evaluate(valid, shared, QUICK), "1 slides lie in validation and in test") == [True]
    constant = Predictions(**{**vars(VALID), "logits": np.zeros(400)})
    assert warned(evaluate(constant, None, QUICK), "screening threshold cannot reach") == [True]


def test_unlabelled_patches_are_counted_and_left_out() -> None:
    labels = TEST.labels.copy()
    labels[:30] = -1
    report = evaluate(VALID, Predictions(**{**vars(TEST), "labels": labels}), QUICK)
    assert report.test is not None
    assert (report.test.patches, report.test.unlabelled) == (270, 30)
    assert warned(report, "30 patches of test carry no label") == [True]


def test_a_test_split_of_one_class_is_not_estimable_and_says_so() -> None:
    only_tumour = TEST.select(TEST.labels == 1)
    report = evaluate(VALID, only_tumour, QUICK)
    assert report.headline.measures["auroc"] == Estimate(value=None)
    assert report.headline.points["screening"].measures["specificity"] == Estimate(value=None)
    assert report.headline.points["screening"].measures["sensitivity"].value is not None
    assert "one class only" in report.summary
    assert "not estimable" in render_html(report, VALID, only_tumour).lower()


def test_evaluations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(EvaluationError, match="both classes"):
        evaluate(VALID.select(VALID.labels == 1), None, QUICK)
    nothing = Predictions(**{**vars(TEST), "labels": np.full(300, -1)})
    with pytest.raises(EvaluationError, match="carries a label"):
        evaluate(VALID, nothing, QUICK)
    with pytest.raises(EvaluationError, match="carries a label"):
        evaluate(VALID.select(np.array([], np.int64)), None, QUICK)
    with pytest.raises(LeakError, match="400 patches"):
        evaluate(VALID, VALID, QUICK)
    other = Predictions(**{**vars(TEST), "model_digest": "x"})
    with pytest.raises(EvaluationError, match="model_digest"):
        evaluate(VALID, other, QUICK)


@pytest.mark.parametrize(
    "setting",
    [
        {"operating_point": "nice"},
        {"points": ("a=sensitivity:0.9", "a=youden")},
        {"points": ("a=sensitivity:1.2",)},
        {"workload_sensitivities": (0.0,)},
        {"resamples": 1},
        {"level": 1.0},
        {"prevalence": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate(setting)


def test_percentages_never_round_to_certainty() -> None:
    assert cautions.percent(0.99999).startswith("99.9")
    assert cautions.percent(0.00001).startswith("0.1")
    assert cautions.percent(1.0).startswith("100.0")
    assert cautions.percent(None) == "not estimable"


def test_worst_errors_come_worst_first() -> None:
    rows = worst_errors(TEST, 0.5, each=4)
    assert TEST.labels[rows].tolist() == [1] * 4 + [0] * 4
    missed, alarms = TEST.probabilities[rows[:4]], TEST.probabilities[rows[4:]]
    assert missed[0] == TEST.probabilities[TEST.labels == 1].min()
    assert alarms[0] == TEST.probabilities[TEST.labels == 0].max()
    assert (np.diff(missed) >= 0).all()
    assert (np.diff(alarms) <= 0).all()
    assert len(worst_errors(make_predictions(20, shift=40), 0.5)) == 0
    with pytest.raises(EvaluationError, match="one image a row"):
        gallery_patches(TEST, rows, np.zeros((3, 96, 96, 3), np.uint8))
    with pytest.raises(EvaluationError, match="uint8"):
        GalleryPatch("a", 1, 0.5, np.zeros((96, 96), np.uint8)).data_uri()


def page(report: EvaluationReport, **parts: object) -> str:
    rows = worst_errors(TEST, report.verdict_point.threshold, each=3)
    pixels = np.random.default_rng(0).integers(0, 256, (len(rows), 96, 96, 3), np.uint8)
    history = [
        {"epoch": e, "train_loss": 1 / e, "valid_loss": 1.2 / e, "valid_auroc": 0.8} for e in (1, 2, 3)
    ]
    settings: dict[str, object] = {
        "title": "Seed <CNN> & co",
        "training_history": history,
        "gallery": gallery_patches(TEST, rows, pixels),
        "provenance": {"Run": "s3://bucket/runs/<b>one</b>"},
        "steps": [{"Step": "train", "Rate": "2,300 / s"}],
    }
    return render_html(report, VALID, TEST, **{**settings, **parts})  # type: ignore[arg-type]


def test_the_page_is_self_contained_and_holds_the_figures(report: EvaluationReport) -> None:
    html = page(report)
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?\s*(https?:|//)", html)
    assert "http:" not in html
    assert "https:" not in html
    assert "<script" not in html
    assert "<link" not in html
    assert html.count("<svg") == 7
    assert "NaN" not in html
    assert ">nan" not in html.lower()
    assert html.count("data:image/png;base64,") == len(worst_errors(TEST, report.verdict_point.threshold, 3))
    assert html.count(RESEARCH_USE_ONLY) >= 2
    assert report.test is not None
    auroc = report.test.measures["auroc"]
    assert auroc.value is not None
    assert f"{auroc.value:.3f}" in html
    assert f"{auroc.low:.3f}–{auroc.high:.3f}" in html
    assert report.summary in html
    assert report.model_digest in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_page_escapes_what_it_is_given(report: EvaluationReport) -> None:
    html = page(report)
    assert "Seed &lt;CNN&gt; &amp; co" in html
    assert "<b>one</b>" not in html


def test_the_page_works_without_the_optional_parts(report: EvaluationReport) -> None:
    html = render_html(evaluate(VALID, None, QUICK), VALID, None)
    assert "validation patches" in html
    assert "<h2>Training</h2>" not in html
    assert "<h2>The worst errors</h2>" not in html
    one_epoch = page(report, training_history=[{"epoch": 1, "train_loss": 0.5, "valid_loss": float("nan")}])
    assert "<h2>Training</h2>" in one_epoch


def test_the_page_needs_the_predictions_that_were_evaluated(report: EvaluationReport) -> None:
    with pytest.raises(EvaluationError, match="no test predictions"):
        render_html(report, VALID, None)
    with pytest.raises(EvaluationError, match="those of the report"):
        render_html(report, VALID, make_predictions(302, "test", 3))
