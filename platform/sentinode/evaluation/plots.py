"""The figures of the report as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sentinode.evaluation.cautions import percent
from sentinode.evaluation.intervals import clopper_pearson
from sentinode.evaluation.metrics import RankedScores, ScoreCurve
from sentinode.evaluation.operating_point import OperatingPoint
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import SplitResult
from sentinode.evaluation.svg import Axis, Chart, Side

HISTOGRAM_BINS = 40
MARKED_EPOCHS = 40
"""Up to so many epochs each one gets a dot; a single epoch would be invisible without."""

WORKLOAD_FROM = 0.8
"""Lowest sensitivity of the workload curve: below it nobody would set patches aside."""

LABEL_HEIGHT = 0.12
"""Height of a label below its dot, in units of the workload curve's axis."""
NEAR = 0.03
"""Sensitivities so close to 1 that labels above both dots would meet."""

SPLIT_NAMES = {"valid": "validation", "test": "test"}


def curve_of(predictions: Predictions) -> ScoreCurve:
    """The counts at each distinct probability of the labelled patches."""
    labelled = predictions.labelled()
    return RankedScores.of(labelled.labels, labelled.probabilities).curve()


def roc(curves: Mapping[str, ScoreCurve], results: Sequence[SplitResult], point: OperatingPoint) -> str:
    """ROC curves, the main split last and solid, with the operating point on it."""
    chart = Chart("ROC curve", Axis.share("1 − specificity (false positive rate)"), Axis.share("Sensitivity"))
    chart.line([0, 1], [0, 1], "chance")
    for result in results:
        fpr, tpr = curves[result.split].roc()
        chart.line(fpr, tpr, _line(result, results), _legend(result, "auroc", "AUROC"))
    at = results[-1].points[point.name].measures
    sensitivity, specificity = at["sensitivity"].value, at["specificity"].value
    if sensitivity is not None and specificity is not None:
        side: Side = "below" if specificity < 0.5 else "below-right"
        chart.marker(1 - specificity, sensitivity, "point", f"{point.name} threshold", side)
    return chart.render()


def precision_recall(curves: Mapping[str, ScoreCurve], results: Sequence[SplitResult]) -> str:
    """Precision against recall; the dotted line is what guessing gives."""
    chart = Chart("Precision-recall curve", Axis.share("Sensitivity (recall)"), Axis.share("PPV (precision)"))
    share = results[-1].positives / results[-1].patches
    chart.line([0, 1], [share, share], "chance")
    for result in results:
        precision, recall = curves[result.split].precision_recall()
        precision, recall = np.append(precision[:1], precision), np.append([0.0], recall)
        chart.line(recall, precision, _line(result, results), _legend(result, "average_precision", "AP"))
    return chart.render(legend_at=(0.06, 0.78))


def workload(
    curves: Mapping[str, ScoreCurve], results: Sequence[SplitResult], prevalence: float | None
) -> str:
    """Share of negative patches, and of all reading, that is saved against the sensitivity that is kept."""
    chart = Chart(
        "Workload curve",
        Axis.share("Sensitivity kept", low=WORKLOAD_FROM, step=0.05),
        Axis.share("Need not be read"),
        width_px=600,
    )
    kept = np.linspace(WORKLOAD_FROM, 1, 801)
    for result in results:
        fpr, tpr = curves[result.split].roc()
        at = np.searchsorted(tpr, kept - 1e-12)
        spared = 1 - fpr[at]
        name = SPLIT_NAMES.get(result.split, result.split)
        if result is results[-1]:
            chart.area(kept, spared, "fill-main")
            share = result.positives / result.patches if prevalence is None else prevalence
            saved = spared * (1 - share) + (1 - tpr[at]) * share
            said = "" if prevalence is None else f" at {percent(prevalence)} tumour"
            chart.line(kept, saved, "line-third", f"all reading{said}")
        chart.line(kept, spared, _line(result, results), f"negatives, {name}")
    named = {name.rpartition("_at_sensitivity_")[::2]: e.value for name, e in results[-1].measures.items()}
    shares = {
        float(at): share for (of, at), share in named.items() if of == "specificity" and share is not None
    }
    for sensitivity, share in shares.items():
        if sensitivity >= WORKLOAD_FROM:
            chart.marker(sensitivity, share, "point", percent(share, 0), _side(sensitivity, shares))
    return chart.render(legend_at=(0.04, 0.78))


def _side(sensitivity: float, shares: Mapping[float, float]) -> Side:
    """Of a label at the workload curve, where ``shares`` has dots."""
    # At the lower right corner the label below would lie on the axis; above it would meet that of its neighbour.
    is_low = shares.get(1.0, 1.0) <= LABEL_HEIGHT
    if sensitivity == 1:
        return "above-right" if is_low else "below-left"
    return "above-left" if is_low and sensitivity > 1 - NEAR else "above-right"


def reliability(results: Sequence[SplitResult], level: float) -> str:
    """Share of tumour patches against probability, with exact intervals; dot area grows with patches."""
    chart = Chart("Reliability", Axis.share("Predicted probability"), Axis.share("Share that is tumour"))
    chart.line([0, 1], [0, 1], "chance")
    result = results[-1]
    most = max(b.patches for b in result.reliability)
    chart.line(
        [b.mean_probability for b in result.reliability],
        [b.positive_share for b in result.reliability],
        "line-main thin",
    )
    for b in result.reliability:
        low, high = clopper_pearson(round(b.positive_share * b.patches), b.patches, level)
        chart.whisker(b.mean_probability, low, high, "whisker")
        chart.marker(
            b.mean_probability, b.positive_share, "point", radius_px=2.5 + 5.5 * math.sqrt(b.patches / most)
        )
    return chart.render()


def histogram(predictions: Predictions, point: OperatingPoint) -> str:
    """Probabilities of negative and tumour patches, with the threshold."""
    labelled = predictions.labelled()
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    counts = [np.histogram(labelled.probabilities[labelled.labels == c], edges)[0] for c in (0, 1)]
    top = int(max(c.max() for c in counts))
    chart = Chart(
        "Distribution of probabilities",
        Axis.share("Predicted probability of tumour"),
        Axis.around("Patches", [0.0, 1.12 * max(top, 1)], zero=True),
    )
    chart.bars(edges, counts[0], "bar-negative", "negative")
    chart.bars(edges, counts[1], "bar-tumour", "tumour")
    chart.vertical(point.threshold, "threshold", f"{point.name} threshold")
    return chart.render(legend_at=(0.42, 0.16))


def training_curves(history: Sequence[Mapping[str, float]]) -> list[str]:
    """One chart for losses and one for rates over the epochs, from the metrics that ``history`` holds.

    Rows carry ``epoch`` and figures; those whose names end in loss, nll, auroc, auc or accuracy are drawn.
    """
    groups = {
        "Loss": [k for k in _keys(history) if k.endswith(("loss", "nll"))],
        "AUROC, accuracy": [k for k in _keys(history) if k.endswith(("auroc", "auc", "accuracy"))],
    }
    charts = []
    for label, keys in groups.items():
        series = {k: [(r.get("epoch", i + 1), r[k]) for i, r in enumerate(history) if k in r] for k in keys}
        series = {k: [(x, y) for x, y in v if math.isfinite(y)] for k, v in series.items()}
        series = {k: v for k, v in series.items() if v}
        points = [p for v in series.values() for p in v]
        if not points:
            continue
        epochs = [x for x, _ in points]
        x_axis = Axis.steps("Epoch", int(min(epochs)), math.ceil(max(epochs)))
        chart = Chart(f"{label} over training", x_axis, Axis.around(label, [y for _, y in points]))
        colours = iter(("line-main", "line-third", "line-fourth"))
        for key, values in series.items():
            css = "line-other" if key.startswith("train") else next(colours, "line-fourth")
            chart.line([x for x, _ in values], [y for _, y in values], css, _words(key))
            for x, y in values if len(values) <= MARKED_EPOCHS else ():
                chart.marker(x, y, f"point {css}", radius_px=3.2)
        charts.append(chart.render(legend_at=(0.55, 0.05)))
    return charts


def _keys(history: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for row in history for key in row))


def _words(key: str) -> str:
    return key.replace("_", " ").replace("valid", "validation").replace("auroc", "AUROC")


def _line(result: SplitResult, results: Sequence[SplitResult]) -> str:
    return "line-main" if result is results[-1] else "line-other"


def _legend(result: SplitResult, measure: str, short: str) -> str:
    value = result.measures[measure].value
    name = SPLIT_NAMES.get(result.split, result.split)
    return f"{name}, {short} {value:.3f}" if value is not None else name
