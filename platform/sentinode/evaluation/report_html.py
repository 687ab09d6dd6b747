"""The report as one self-contained HTML file: no script, no network, light and dark, fit for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from sentinode.errors import EvaluationError
from sentinode.evaluation import cautions, plots, report_words
from sentinode.evaluation.gallery import GalleryPatch
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationReport, SplitResult
from sentinode.evaluation.strata import ENOUGH_PATCHES

MEASURE_NAMES = {
    "auroc": "AUROC (bootstrap)",
    "auroc_delong": "AUROC (DeLong)",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "sensitivity": "Sensitivity (recall)",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "cohens_kappa": "Cohen's kappa",
    "mcc": "Matthews correlation",
    "ppv_at_prevalence": "PPV at the stated prevalence",
    "npv_at_prevalence": "NPV at the stated prevalence",
}

AS_PERCENT = {
    *("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy"),
    *("ppv_at_prevalence", "npv_at_prevalence"),
}
"""Measures written as percentages; the others as decimals."""


def render_html(
    report: EvaluationReport,
    valid: Predictions,
    test: Predictions | None,
    *,
    title: str = "Evaluation",
    reference: str = "the reference labels",
    training_history: Sequence[Mapping[str, float]] | None = None,
    gallery: Sequence[GalleryPatch] = (),
    provenance: Mapping[str, str] | None = None,
    steps: Sequence[Mapping[str, str]] = (),
) -> str:
    """The HTML text of ``report.html``.

    ``reference`` says what the model is compared with. ``valid`` and ``test`` are the predictions that were
    evaluated (curves are drawn from them). ``training_history`` has one row an epoch with ``epoch`` and
    plain figures such as ``train_loss``, ``valid_loss``, ``valid_auroc``. ``gallery`` shows errors of the
    headline split (``gallery.worst_errors``). ``provenance`` and ``steps`` are tables to show as they are:
    name and value, and rows that share their columns.

    Raises EvaluationError where the predictions are not those of the report.
    """
    splits = [(valid, report.valid)]
    if report.test is not None:
        if test is None:
            raise EvaluationError("the report has a test split and no test predictions were given")
        splits.append((test, report.test))
    for predictions, result in splits:
        _check_same(predictions, result, report)
    results = [result for _, result in splits]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            title=title,
            reference=reference,
            results=results,
            main=report.headline,
            point=report.verdict_point,
            figures=_figures(report, splits, training_history or ()),
            workload=report_words.workload_rows(report.headline, report.config),
            strata=report_words.strata_tables(report.headline),
            words={
                "calibration": report_words.calibration(report.calibration),
                "prevalence": report_words.prevalence(report),
                "test_uses": report_words.test_uses(report),
                "pooling": report_words.pooling(report.slide_level.config.pooling)
                if report.slide_level
                else "",
            },
            missed=[p for p in gallery if p.label == 1],
            alarms=[p for p in gallery if p.label == 0],
            provenance=provenance or {},
            steps=steps,
            names=MEASURE_NAMES,
            enough=ENOUGH_PATCHES,
            glossary=report_words.GLOSSARY,
        )
    )


def _figures(
    report: EvaluationReport,
    splits: Sequence[tuple[Predictions, SplitResult]],
    history: Sequence[Mapping[str, float]],
) -> dict[str, Markup | list[Markup]]:
    """SVG by name. Curves are left out where the headline split holds one class only."""
    point = report.verdict_point
    results = [result for _, result in splits]
    figures: dict[str, Markup | list[Markup]] = {
        "reliability": Markup(plots.reliability(results, report.config.level)),
        "histogram": Markup(plots.histogram(splits[-1][0], point)),
        "training": [Markup(chart) for chart in plots.training_curves(history)],
    }
    if report.headline.positives and report.headline.negatives:
        curves = {result.split: plots.curve_of(predictions) for predictions, result in splits}
        figures["roc"] = Markup(plots.roc(curves, results, point))
        figures["precision_recall"] = Markup(plots.precision_recall(curves, results))
        figures["workload"] = Markup(plots.workload(curves, results, report.config.prevalence))
    return figures


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of ``folders`` and of this one: pages in the style of the report, with its filters."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": cautions.percent,
        "aim": cautions.aim,
        "interval": cautions.interval,
        "first_up": lambda text: text[:1].upper() + text[1:],
        "count": lambda n: f"{n:,}".replace(",", "\u202f"),
        "decimal": lambda v, digits=3: "not estimable" if v is None else f"{v:.{digits}f}",
    }
    environment.globals |= {"as_percent": AS_PERCENT, "split_names": plots.SPLIT_NAMES}
    return environment


def _check_same(predictions: Predictions, result: SplitResult, report: EvaluationReport) -> None:
    labelled = predictions.labelled()
    found = (predictions.model_digest, len(labelled), int((labelled.labels == 1).sum()))
    expected = (report.model_digest, result.patches, result.positives)
    if found != expected:
        raise EvaluationError(
            f"predictions of {result.split}: model, patches and positives are {found}",
            f"those of the report, {expected}",
            "give the predictions that were evaluated",
        )
