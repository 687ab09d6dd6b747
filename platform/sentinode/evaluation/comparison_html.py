"""A comparison of two models as one self-contained HTML file, in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sentinode.evaluation import plots
from sentinode.evaluation.cautions import percent
from sentinode.evaluation.comparison import ComparisonReport, Difference, Disagreement
from sentinode.evaluation.gallery import GalleryPatch
from sentinode.evaluation.panel import workload_name
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.report_html import AS_PERCENT, MEASURE_NAMES, environment
from sentinode.evaluation.svg import Axis, Chart

SHOWN = 40
"""Patches in the table of differing verdicts; all of them stand in comparison.json."""


@dataclass(frozen=True)
class DifferenceRow:
    """One measure as text."""

    name: str
    a: str
    b: str
    difference: str
    interval: str
    p_value: str
    method: str
    clear: bool
    """Whether the interval leaves zero out."""


def render_comparison(
    report: ComparisonReport,
    a: Predictions,
    b: Predictions,
    names: tuple[str, str],
    provenance: Mapping[str, str],
    gallery: Sequence[tuple[Disagreement, GalleryPatch]] = (),
) -> str:
    """The HTML text of ``comparison.html``; ``a`` and ``b`` are the predictions that were compared, for the curves.

    ``gallery`` shows patches of which the verdicts differ, where their pixels are at hand.
    """
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            report=report,
            names=names,
            headline=headline(report),
            rows=difference_rows(report),
            roc=Markup(_roc(a, b)),
            differing=report.disagreements[:SHOWN],
            gallery=gallery,
            provenance=provenance,
        )
    )


def headline(report: ComparisonReport) -> str:
    """The difference in AUROC as sentences that need no statistics."""
    found = report.differences["auroc_delong"]
    if found.a is None or found.b is None or found.difference is None:
        return "The difference in AUROC is not estimable from these patches."
    text = (
        f"Shown one tumour and one negative patch, A ranks them rightly {percent(found.a)} of the time and B "
        f"{percent(found.b)}. "
    )
    if found.low is None or found.high is None or found.p_value is None:
        return text + "How sure that difference is cannot be estimated."
    told = _minus(
        f"(AUROC {found.difference:+.3f}, {found.low:+.3f} to {found.high:+.3f}, {p_text(found.p_value)})."
    )
    if found.low <= 0 <= found.high:
        return f"{text}These patches do not show which of the two is better {told}"
    return f"{text}{'A' if found.difference > 0 else 'B'} is the better one, beyond chance {told}"


def difference_rows(report: ComparisonReport) -> list[DifferenceRow]:
    """Every measure, AUROC first."""
    workload = {
        workload_name(s): f"Negatives that need not be read, {100 * s:g} % of the tumour found"
        for s in report.config.workload_sensitivities
    }
    told = workload | MEASURE_NAMES
    order = ["auroc", "auroc_delong", *(n for n in report.differences if not n.startswith("auroc"))]
    return [_row(told.get(name, name), name, report.differences[name]) for name in order]


def p_text(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _minus(text: str) -> str:
    """With a minus sign in place of a hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def _row(told: str, name: str, found: Difference) -> DifferenceRow:
    share = name in AS_PERCENT or name.startswith("specificity_at")

    def text(value: float | None, signed: bool = False) -> str:
        if value is None:
            return "not estimable"
        sign = "+" if signed else ""
        return _minus(f"{100 * value:{sign}.1f}" if share else f"{value:{sign}.3f}")

    known = found.low is not None and found.high is not None and found.p_value is not None
    return DifferenceRow(
        name=f"{told}, %" if share else told,
        a=text(found.a),
        b=text(found.b),
        difference=text(found.difference, signed=True),
        interval=f"{text(found.low, True)} to {text(found.high, True)}" if known else "not estimable",
        p_value=p_text(found.p_value).removeprefix("p = ").removeprefix("p ")
        if found.p_value is not None
        else "",
        method=found.method,
        clear=found.low is not None and found.high is not None and not found.low <= 0 <= found.high,
    )


def _roc(a: Predictions, b: Predictions) -> str:
    chart = Chart(
        "ROC curves", Axis.share("1 − specificity (false positive rate)"), Axis.share("Sensitivity")
    )
    chart.line([0, 1], [0, 1], "chance")
    chart.line(*plots.curve_of(a).roc(), "line-main", "A")
    chart.line(*plots.curve_of(b).roc(), "line-third", "B")
    return chart.render()
