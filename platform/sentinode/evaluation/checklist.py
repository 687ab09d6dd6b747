"""Reporting checklists: items in our own short words, filled with what run, manifest and report know."""

from __future__ import annotations

from typing import Literal

from sentinode.config import Frozen
from sentinode.evaluation.cautions import interval, percent
from sentinode.evaluation.model_facts import ModelFacts
from sentinode.evaluation.records import EvaluationReport, SplitResult
from sentinode.evaluation.report_html import MEASURE_NAMES
from sentinode.evaluation.report_words import calibration, test_uses

NOT_REPORTED = "not reported"

Answer = Literal[
    "title", "summary", "use", "aim", "design", "data", "exclusions", "input", "partition", "flow",
    "reference", "index_test", "software", "training", "selection", "thresholds", "blinding", "measures",
    "uncertainty", "indeterminate", "missing", "variability", "output", "results", "cross_table",
    "failures", "prevalence", "disjoint", "limitations", "implications", "code", "no_ensemble",
    "development", "stored", "no_update", "imbalance",
]  # fmt: skip
"""What can be known; an item without one is for the authors of a study to fill in."""


class ChecklistItem(Frozen):
    """One item: its number in the guideline, its matter in our words, and what answers it."""

    number: str
    matter: str
    answer: Answer | None = None


class Checklist(Frozen):
    """A guideline with its source."""

    name: str
    source: str
    note: str = ""
    items: tuple[ChecklistItem, ...]


def items(*rows: tuple[str, str] | tuple[str, str, Answer]) -> tuple[ChecklistItem, ...]:
    """Items from rows of number, matter and, where something is known, its answer."""
    return tuple(
        ChecklistItem(number=row[0], matter=row[1], answer=row[2] if len(row) == 3 else None) for row in rows
    )


def answers(report: EvaluationReport, facts: ModelFacts) -> dict[Answer, str]:
    """All that is known, as sentences; an answer that is not known is left out."""
    found = _of_model(report, facts) | _of_figures(report)
    return {name: words for name, words in found.items() if words}


def _of_model(report: EvaluationReport, facts: ModelFacts) -> dict[Answer, str]:
    """What run and data set tell: of predictions of another system next to nothing."""
    return {
        "title": f"{f'Deep learning ({facts.architecture})' if facts.architecture else 'A model'} that detects "
        "tumour in lymph-node patches; AUROC, sensitivity, specificity and predictive values.",
        "data": facts.dataset and f"{facts.dataset}, manifest {facts.manifest_digest[:16]}.",
        "exclusions": facts.dropped,
        "input": facts.input,
        "partition": _partition(facts),
        "reference": f"Compared with {facts.reference}.",
        "index_test": facts.architecture and f"{facts.architecture}; {facts.input}",
        "software": facts.versions and f"{facts.versions}; code {facts.code}.",
        "training": facts.training,
        "development": facts.training and f"{facts.training} {facts.selection} {_partition(facts)}",
        "selection": facts.selection,
        "blinding": facts.input and "The model sees pixels only; labels are joined to its output afterwards.",
        "failures": facts.input and "The worst misses and false alarms are shown in report.html.",
        "imbalance": facts.training and f"{facts.training} {calibration(report.calibration)}",
        "stored": f"Yes: the probability of each patch, by its key, and all figures lie with {facts.run}; "
        "a repeated use of the test split is counted.",
        "disjoint": facts.dataset and _disjoint(report.headline),
        "code": facts.code
        and f"Code {facts.code}; run {facts.run}; weights {report.model_digest[:16]}"
        + (f", licence {facts.licence}." if facts.licence else "."),
        "no_ensemble": facts.architecture and "A single network, no ensemble.",
    }


def _of_figures(report: EvaluationReport) -> dict[Answer, str]:
    result = report.headline
    by_slide = result.interval_unit == "slide"
    return {
        "summary": report.summary,
        "use": f"{report.notice} Meant for measuring how much reading could be saved by setting patches aside.",
        "aim": "Share of negative patches that need not be read at a stated sensitivity, with its uncertainty.",
        "design": "The images and their labels existed before the evaluation (retrospective).",
        "flow": "; ".join(_flow(r) for r in (report.valid, report.test) if r is not None),
        "thresholds": " ".join(
            f"{p.name}: {p.threshold:.4f}, {p.chosen_by}. {p.guarantee.words if p.guarantee else ''}".strip()
            for p in report.operating_points
        ),
        "measures": ", ".join(
            words
            for name, words in MEASURE_NAMES.items()
            if name in result.measures or name in result.points[_point(report)].measures
        )
        + "; share of negatives that need not be read at stated sensitivities.",
        "uncertainty": f"{percent(report.config.level, 0)} intervals: {report.config.resamples} bootstrap "
        f"resamples over {'slides' if by_slide else 'patches'}; DeLong over the same units for AUROC; exact "
        "(Clopper-Pearson) intervals for proportions where patches are the units.",
        "indeterminate": "None: every patch gets a probability and a verdict.",
        "missing": f"{result.unlabelled} patches without a label enter no figure.",
        "variability": "; ".join(
            f"lowest {w.measure} by {w.kind}: {w.name}, {percent(w.value)} of {w.patches} patches"
            for w in result.worst_strata
        ),
        "output": "A probability of tumour for a patch, and a verdict at an operating point. "
        f"{calibration(report.calibration)}",
        "results": f"{_results(report)} {_calibration(report)}",
        "cross_table": _cross_table(report),
        "prevalence": f"{percent(result.positives / result.patches)} of the patches are tumour, as sampled.",
        "no_update": "None: model, calibration and thresholds stay as they were before the evaluation."
        if report.test is not None
        else "Calibration and thresholds were chosen on the patches that they are measured on.",
        "limitations": " ".join(report.warnings),
        "implications": f"{report.notice} {test_uses(report)}",
    }


def _point(report: EvaluationReport) -> str:
    return report.config.operating_point


def _partition(facts: ModelFacts) -> str:
    return "; ".join(f"{split}: {words}" for split, words in facts.splits.items())


def _flow(result: SplitResult) -> str:
    slides = "slides unknown" if result.slides is None else f"{result.slides} slides"
    return (
        f"{result.split}: {result.patches} patches ({result.positives} tumour, {result.negatives} negative), "
        f"{slides}, {result.unlabelled} unlabelled left out"
    )


def _results(report: EvaluationReport) -> str:
    result = report.headline
    at = result.points[_point(report)].measures
    auroc = result.measures["auroc"]
    parts = [
        f"AUROC {'not estimable' if auroc.value is None else f'{auroc.value:.3f}'} ({interval(auroc, False)})"
    ]
    parts += [
        f"{name} {percent(at[name].value)} ({interval(at[name])})" for name in ("sensitivity", "specificity")
    ]
    return f"{result.split}, {_point(report)} threshold: {', '.join(parts)}."


def _cross_table(report: EvaluationReport) -> str:
    at = report.headline.points[_point(report)]
    return f"{at.tp} found, {at.fn} missed, {at.fp} false alarms, {at.tn} rightly set aside."


def _calibration(report: EvaluationReport) -> str:
    ece, brier = (report.headline.measures[name].value for name in ("ece", "brier"))
    shown = ", ".join(
        f"{name} {value:.3f}"
        for name, value in (("calibration error", ece), ("Brier score", brier))
        if value is not None
    )
    return f"{shown}; reliability plot in report.html. {calibration(report.calibration)}"


def _disjoint(result: SplitResult) -> str:
    slides = (
        "Slides are known as far as patches name theirs."
        if result.slides is not None
        else "Slides are unknown, so overlap of slides is too."
    )
    return f"No patch stands in two splits. {slides}"
