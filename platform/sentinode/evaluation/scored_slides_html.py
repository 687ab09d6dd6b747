"""The report of scored slides as one self-contained HTML file, in the style of the report of patches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from sentinode.evaluation.froc import FrocResult
from sentinode.evaluation.metrics import RankedScores
from sentinode.evaluation.report_html import environment
from sentinode.evaluation.scored_slides import ScoredSlidesReport
from sentinode.evaluation.svg import Axis, Chart

FROC_TO = 8.0
"""False positives per slide to which the curve is drawn."""


def render_scored_slides(
    report: ScoredSlidesReport,
    scores: Mapping[str, float],
    labels: Mapping[str, bool],
    title: str,
    provenance: Mapping[str, str],
) -> str:
    """The HTML text; ``scores`` and ``labels`` are those of the labelled slides, for the ROC curve."""
    figures = {}
    if report.slides.positives and report.slides.negatives:
        figures["roc"] = Markup(_roc(scores, labels))
    if report.froc is not None:
        figures["froc"] = Markup(_froc(report.froc))
    return (
        environment()
        .get_template("scored_slides.html.j2")
        .render(report=report, title=title, figures=figures, provenance=provenance)
    )


def _roc(scores: Mapping[str, float], labels: Mapping[str, bool]) -> str:
    chart = Chart(
        "ROC curve of slides",
        Axis.share("1 − specificity (negative slides flagged)"),
        Axis.share("Sensitivity"),
    )
    chart.line([0, 1], [0, 1], "chance")
    names = sorted(labels)
    curve = RankedScores.of(
        np.array([labels[n] for n in names], np.int64), np.array([scores[n] for n in names])
    ).curve()
    chart.line(*curve.roc(), "line-main", "slide score")
    return chart.render()


def _froc(result: FrocResult) -> str:
    x = Axis("False positives per slide", 0.0, FROC_TO, (0, 1, 2, 4, 6, 8))
    chart = Chart("FROC curve", x, Axis.share("Lesions found"))
    # The record keeps the points where sensitivity rises: between them the curve runs level, there it rises upright.
    fp, tp = (np.array([0.0, *column]) for column in zip(*result.curve, strict=True))
    x_S, y_S = np.append(np.repeat(fp, 2)[1:], max(FROC_TO, fp[-1])), np.repeat(tp, 2)
    inside = x_S <= FROC_TO
    chart.line(np.append(x_S[inside], FROC_TO), np.append(y_S[inside], y_S[inside][-1]), "line-main")
    for point in result.points:
        found = point.sensitivity
        if found.value is not None:
            if found.low is not None and found.high is not None:
                chart.whisker(point.fp_per_slide, found.low, found.high, "whisker")
            chart.marker(point.fp_per_slide, found.value, "point", radius_px=4)
    return chart.render()
