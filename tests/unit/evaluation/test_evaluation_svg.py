"""The charts of the report: nothing leaves the picture, labels and legends do not hide each other or the lines."""

from __future__ import annotations

import re

import pytest

from sentinode.evaluation.plots import _side, training_curves
from sentinode.evaluation.svg import BOTTOM_PX, LETTER_PX, TOP_PX, Axis, Chart, Side


def labels(svg: str) -> dict[str, tuple[float, str]]:
    found = re.findall(r'<text class="(?:label|legend)" x="([\d.]+)"[^>]*?(?:anchor="(\w+)")?>([^<]+)<', svg)
    return {text: (float(x), anchor) for x, anchor, text in found}


@pytest.mark.parametrize("side", ["right", "below", "above-right", "below-left"])
def test_a_label_stays_within_the_picture(side: Side) -> None:
    chart = Chart("c", Axis.share("x"), Axis.share("y"))
    chart.marker(0.95, 0.5, "point", "screening threshold", side)
    x, anchor = labels(chart.render())["screening threshold"]
    share = {"start": 1, "middle": 0.5, "end": 0}[anchor]
    assert x + share * len("screening threshold") * LETTER_PX <= chart.width_px


def test_labels_at_the_end_of_the_workload_curve_do_not_meet() -> None:
    low = {0.95: 0.14, 0.99: 0.07, 1.0: 0.07}
    assert [_side(at, low) for at in low] == ["above-right", "above-left", "above-right"]
    high = {0.95: 0.6, 0.99: 0.4, 1.0: 0.3}
    assert [_side(at, high) for at in high] == ["above-right", "above-right", "below-left"]


def test_the_legend_of_training_curves_stands_apart_from_the_lines() -> None:
    rates = {1: (0.5311, 0.3667), 2: (0.6258, 0.3667), 3: (0.6808, 0.4733)}
    history = [{"epoch": e, "valid_auroc": a, "valid_accuracy": b} for e, (a, b) in rates.items()]
    (chart,) = training_curves(history)
    assert labels(chart)["validation accuracy"][0] < 200


def corner(chart: Chart) -> tuple[float, float]:
    found = re.search(
        r'<text class="legend" x="([\d.]+)" y="([\d.]+)">', chart.render(legend_at=(0.42, 0.78))
    )
    assert found is not None
    return float(found[1]), float(found[2])


def test_a_legend_leaves_its_place_to_what_is_drawn_there() -> None:
    plain, crossed, bars = (Chart("c", Axis.share("x"), Axis.share("y")) for _ in range(3))
    for chart in (plain, crossed, bars):
        chart.line([0.0, 0.02], [1.0, 1.0], "line-main", "a line with a name")
    crossed.line([0.0, 1.0], [0.2, 0.2], "line-other")  # its ends are far away
    bars.bars([0.5, 0.6], [0.9], "bar-tumour")
    assert corner(plain) != corner(crossed)
    assert corner(plain) != corner(bars)
    x_px, y_px = corner(crossed)
    assert abs(y_px - crossed.y.position([0.2], crossed.height_px - BOTTOM_PX, TOP_PX)[0]) > 6
    assert x_px + len("a line with a name") * LETTER_PX <= crossed.width_px
