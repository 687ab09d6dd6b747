"""The figures of a search's report as inline SVG, in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sentinode.evaluation.svg import Axis, Chart, Side
from sentinode.search.config import COST_NAMES, QUALITY_NAMES, CostName, Quality
from sentinode.search.records import SweepRecord, SweepResult, TrialRecord, TrialState

COLOURS = ("line-main", "line-third", "line-fourth", "line-other")
"""Of the families, in the order in which they were first drawn."""


def families(record: SweepRecord) -> dict[str, str]:
    """The colour of each family of networks."""
    names = dict.fromkeys(trial.family for trial in record.trials)
    return {name: COLOURS[min(at, len(COLOURS) - 1)] for at, name in enumerate(names)}


def pareto(record: SweepRecord, result: SweepResult) -> str | None:
    """Quality against cost, the front as steps, the winner named; None where nothing is measured."""
    cost = drawn_cost(record)
    points = {
        trial.number: (x, y)
        for trial in record.trials
        if (x := trial.cost_of(cost)) is not None and (y := trial.quality(record.config.quality)) is not None
    }
    points = {
        number: at for number, at in points.items() if record.trial(number).state is not TrialState.FAILED
    }
    if not points:
        return None
    budget = record.config.latency_budget_ms if cost == "latency" else None
    xs = [x for x, _ in points.values()] + ([budget] if budget else [])
    chart = Chart(
        "Quality against cost",
        Axis.powers(COST_NAMES[cost], xs),
        quality_axis(record.config.quality, [y for _, y in points.values()]),
        width_px=760,
        height_px=440,
    )
    if budget:
        chart.vertical(budget, "threshold", "budget")
    steps = sorted(points[number] for number in result.front)
    if record.config.costs and len(steps) > 1:
        corners = [corner for (x, y), (after, _) in pairwise(steps) for corner in ((x, y), (after, y))]
        corners.append(steps[-1])
        chart.line([x for x, _ in corners], [y for _, y in corners], "line-other", "Pareto front")
    for number, (x, y) in points.items():
        trial = record.trial(number)
        chart.marker(x, y, _dot(trial, families(record)), radius_px=6 if number in result.front else 4.5)
    if result.winner is not None:
        x, y = points[result.winner]
        side: Side = "below-left" if x > _middle(xs) else "below-right"
        chart.marker(x, y, "ring", f"winner: trial {result.winner}", side, 9)
    return chart.render()


def learning_curves(
    record: SweepRecord, trials: Sequence[TrialRecord], winner: int | None = None
) -> str | None:
    """Quality over epochs, a line a trial; those that were stopped end early."""
    name = record.config.quality
    curves = [
        (trial, [(e.epoch, y) for e in trial.epochs if (y := _of(e, name)) is not None]) for trial in trials
    ]
    curves = [(trial, points) for trial, points in curves if points]
    if not curves:
        return None
    highest = max(trial.recipe.train.epochs for trial, _ in curves)
    chart = Chart(
        "Learning curves",
        Axis.steps("Epoch", 1, highest),
        quality_axis(name, [y for _, points in curves for _, y in points]),
        width_px=760,
        height_px=440,
    )
    for trial, points in sorted(curves, key=lambda curve: curve[0].number == winner):
        css = families(record).get(trial.family, COLOURS[-1])
        strength = "" if trial.number == winner or trial.state is TrialState.FINISHED else " thin"
        chart.line([x for x, _ in points], [y for _, y in points], f"{css} solid{strength}")
        x, y = points[-1]
        chart.marker(x, y, _dot(trial, families(record)), radius_px=3.5)
        if trial.number == winner:
            chart.marker(x, y, "ring", f"trial {winner}", "below-left", 7)
    return chart.render()


def quality_axis(name: Quality, values: Sequence[float]) -> Axis:
    label = QUALITY_NAMES[name]
    return Axis.around(label[:1].upper() + label[1:], values)


def drawn_cost(record: SweepRecord) -> CostName:
    """The cost on the axis: the first objective that is one, else latency."""
    return record.config.costs[0] if record.config.costs else "latency"


def _dot(trial: TrialRecord, colours: dict[str, str]) -> str:
    """Filled where a trial was trained to its end."""
    whole = trial.state is TrialState.FINISHED
    return f"point {colours.get(trial.family, COLOURS[-1])}" + ("" if whole else " hollow")


def _of(epoch: object, name: Quality) -> float | None:
    value: float | None = getattr(epoch, "valid_auroc" if name == "auroc" else "valid_specificity")
    return value


def _middle(values: Sequence[float]) -> float:
    """The middle of a logarithmic axis."""
    return float((min(values) * max(values)) ** 0.5)
