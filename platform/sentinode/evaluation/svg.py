"""A small chart: axes, lines, areas, bars and markers as inline SVG, coloured by the style sheet of the page.

Inline SVG with CSS classes, so that one drawing serves light and dark pages and prints sharply at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 68, 24, 14, 50
LETTER_PX = 7.8
"""Of a label, on average."""
CORNERS = ((0.04, 0.92), (0.75, 0.92), (0.75, 0.04), (0.04, 0.04))
"""Where a legend may stand besides its own place: its corner as shares of width and height."""
CLEAR_PX, STEP_PX = 6.0, 4.0
"""How far a legend keeps from what is drawn, which is looked at in steps."""

Side = Literal["right", "above-right", "below-right", "below-left", "above-left", "below"]
"""Where a marker's label stands."""

_SIDES = {
    "right": (11, 5, "start"),
    "above-right": (5, -11, "start"),
    "below-right": (9, 20, "start"),
    "below-left": (-6, 21, "end"),
    "above-left": (-9, -9, "end"),
    "below": (0, 24, "middle"),
}
"""Offset in x and y and anchor of a label."""


@dataclass(frozen=True)
class Axis:
    """An axis in data units. ``percent`` writes ticks as percentages; ``log`` spaces values by their logarithm."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    percent: bool = False
    log: bool = False

    @classmethod
    def powers(cls, label: str, values: Sequence[float]) -> Axis:
        """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten that holds all positive ``values``."""
        exponents = range(int(np.floor(np.log10(min(values)))), int(np.floor(np.log10(max(values)))) + 2)
        steps = [float(f"{m * 10.0**e:.10g}") for e in exponents for m in (1, 2, 5)]
        low = max(step for step in steps if step <= min(values))
        high = min(step for step in steps if step >= max(values) and step > low)
        ticks = tuple(step for step in steps if low <= step <= high)
        if len(ticks) > 8:
            ticks = tuple(step for step in ticks if f"{step:e}".startswith("1.0")) or ticks
        return cls(label, low, high, ticks, log=True)

    @classmethod
    def share(cls, label: str, low: float = 0.0, step: float = 0.2) -> Axis:
        """An axis from ``low`` to 100 %."""
        count = round((1 - low) / step)
        return cls(label, low, 1.0, tuple(round(low + i * step, 6) for i in range(count + 1)), percent=True)

    @classmethod
    def around(cls, label: str, values: Sequence[float], zero: bool = False) -> Axis:
        """An axis with about five round ticks that holds all ``values``."""
        low, high = (0.0 if zero else min(values)), max(values)
        span = (high - low) or abs(high) or 1.0
        magnitude = 10.0 ** np.floor(np.log10(span / 5))
        step = magnitude * next(m for m in (1, 2, 2.5, 5, 10) if span / (m * magnitude) <= 5.0001)
        first = np.floor(low / step + 1e-9)
        last = max(np.ceil(high / step - 1e-9), first + 1)
        ticks = tuple(float(f"{i * step:.10g}") for i in np.arange(first, last + 1))
        return cls(label, ticks[0], ticks[-1], ticks)

    @classmethod
    def steps(cls, label: str, first: int, last: int) -> Axis:
        """An axis of whole numbers from ``first`` to ``last``, such as epochs."""
        last = max(last, first + 1)
        step = max(1, -(-(last - first) // 8))
        return cls(label, first, last, tuple(range(first, last + 1, step)))

    def text(self, tick: float) -> str:
        return f"{100 * tick:.3g} %" if self.percent else f"{tick:,.4g}"

    def position(self, values: ArrayLike, start_px: float, end_px: float) -> np.ndarray:
        scale = np.log if self.log else np.asarray
        low, high = float(scale(self.low)), float(scale(self.high))
        share = (scale(np.asarray(values, np.float64)) - low) / (high - low)
        return start_px + np.clip(share, 0, 1) * (end_px - start_px)


class Chart:
    """Collects shapes in data coordinates and renders one ``<svg>``."""

    def __init__(self, title: str, x: Axis, y: Axis, width_px: int = 480, height_px: int = 380) -> None:
        self.title, self.x, self.y = title, x, y
        self.width_px, self.height_px = width_px, height_px
        self._shapes: list[str] = []
        self._legend: list[tuple[str, str]] = []
        self._drawn: list[np.ndarray] = []
        """Points [N, 2] in pixels on what was drawn, areas and whiskers apart: where no legend should stand."""

    def line(self, x: ArrayLike, y: ArrayLike, css: str, legend: str | None = None) -> None:
        """A polyline; points closer than a tenth of a pixel are merged."""
        xs, ys = self._place(x, y)
        self._shapes.append(f'<polyline class="{css}" points="{_points(xs, ys)}"/>')
        self._drawn += [_between(*ends) for ends in zip(xs, ys, xs[1:], ys[1:], strict=False)]
        self._drawn.append(np.column_stack((xs, ys)))
        if legend:
            self._legend.append((css, legend))

    def area(self, x: ArrayLike, y: ArrayLike, css: str) -> None:
        """The area between a line and the lower axis."""
        xs, ys = self._place(x, y)
        floor = self._place([self.x.low], [self.y.low])[1][0]
        xs, ys = np.concatenate((xs[:1], xs, xs[-1:])), np.concatenate(([floor], ys, [floor]))
        self._shapes.append(f'<polygon class="{css}" points="{_points(xs, ys)}"/>')

    def bars(self, edges: ArrayLike, heights: ArrayLike, css: str, legend: str | None = None) -> None:
        """A histogram: B + 1 ``edges`` and B ``heights``."""
        edges_px = self.x.position(edges, LEFT_PX, self.width_px - RIGHT_PX)
        _, tops = self._place(np.full(len(np.asarray(heights)), self.x.low), heights)
        floor = self.height_px - BOTTOM_PX
        for left, right, top in zip(edges_px[:-1], edges_px[1:], tops, strict=True):
            if floor - top > 0.05:
                size = f'width="{right - left - 1:.1f}" height="{floor - top:.1f}"'
                self._shapes.append(f'<rect class="{css}" x="{left + 0.5:.1f}" y="{top:.1f}" {size}/>')
                self._drawn += [_between(x, top, x, floor) for x in (left, right)]
        if legend:
            self._legend.append((css, legend))

    def marker(
        self,
        x: float,
        y: float,
        css: str,
        text: str = "",
        side: Side = "right",
        radius_px: float = 5,
    ) -> None:
        """A dot with a label beside it, which is moved in where it would leave the picture."""
        (px,), (py,) = self._place([x], [y])
        self._drawn.append(np.array([[px, py]]))
        self._shapes.append(f'<circle class="{css}" cx="{px:.1f}" cy="{py:.1f}" r="{radius_px:.1f}"/>')
        if text:
            dx, dy, anchor = _SIDES[side]
            width = LETTER_PX * len(text) + 6
            after = {"start": width, "middle": width / 2, "end": 0}[anchor]
            self.text(min(px + dx, self.width_px - after), py + dy, text, "label", anchor)

    def whisker(self, x: float, low: float, high: float, css: str) -> None:
        """A vertical interval."""
        xs, ys = self._place([x, x], [low, high])
        self._shapes.append(f'<polyline class="{css}" points="{_points(xs, ys)}"/>')

    def text(self, x_px: float, y_px: float, text: str, css: str, anchor: str) -> None:
        """``anchor``: start, middle or end."""
        wide = LETTER_PX * len(text)
        left = x_px - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        self._drawn.append(_between(left, y_px - 4, left + wide, y_px - 4))
        self._shapes.append(
            f'<text class="{css}" x="{x_px:.1f}" y="{y_px:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def vertical(self, x: float, css: str, text: str) -> None:
        """A line over the whole height with a label on its roomier side."""
        (px,), _ = self._place([x], [self.y.low])
        bottom = self.height_px - BOTTOM_PX
        self._shapes.append(f'<line class="{css}" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP_PX}" y2="{bottom}"/>')
        self._drawn.append(_between(px, TOP_PX, px, bottom))
        right = px < (LEFT_PX + self.width_px - RIGHT_PX) / 2
        self.text(px + (7 if right else -7), TOP_PX + 12, text, "label", "start" if right else "end")

    def render(self, legend_at: tuple[float, float] = (0.42, 0.78)) -> str:
        """The ``<svg>`` element; ``legend_at``: the legend's corner as shares of width and height, where nothing is
        drawn there; else it stands where it hides least.
        """
        head = (
            f'<svg class="plot" role="img" viewBox="0 0 {self.width_px} {self.height_px}">'
            f"<title>{escape(self.title)}</title>"
        )
        return head + "".join((*self._axes(), *self._shapes, *self._legend_lines(legend_at))) + "</svg>"

    def _free_place(self, legend_at: tuple[float, float]) -> tuple[float, float]:
        """Left end and first row of the legend, in pixels."""
        width, height = self.width_px - LEFT_PX - RIGHT_PX, self.height_px - TOP_PX - BOTTOM_PX
        wide = 30 + LETTER_PX * max((len(text) for _, text in self._legend), default=0)
        tall = 20 * len(self._legend)
        drawn = np.concatenate(self._drawn or [np.full((1, 2), -np.inf)])

        def place(corner: tuple[float, float]) -> tuple[float, float]:
            left = min(LEFT_PX + corner[0] * width, self.width_px - RIGHT_PX - wide)
            return left, min(TOP_PX + corner[1] * height, self.height_px - BOTTOM_PX - tall + 8)

        def distance(at: tuple[float, float]) -> float:
            left, top = at[0], at[1] - 10
            across = np.maximum(np.maximum(left - drawn[:, 0], drawn[:, 0] - left - wide), 0)
            down = np.maximum(np.maximum(top - drawn[:, 1], drawn[:, 1] - top - tall), 0)
            return float(np.hypot(across, down).min())

        places = [place(corner) for corner in (legend_at, *CORNERS)]
        return next((at for at in places if distance(at) >= CLEAR_PX), max(places, key=distance))

    def _place(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        bottom_px = self.height_px - BOTTOM_PX
        return (
            self.x.position(x, LEFT_PX, self.width_px - RIGHT_PX),
            self.y.position(y, bottom_px, TOP_PX),
        )

    def _axes(self) -> list[str]:
        bottom, right = self.height_px - BOTTOM_PX, self.width_px - RIGHT_PX
        out = []
        for tick, py in zip(self.y.ticks, self.y.position(self.y.ticks, bottom, TOP_PX), strict=True):
            out.append(f'<line class="grid" x1="{LEFT_PX}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>')
            out.append(_tick(LEFT_PX - 8, py + 4, "end", self.y.text(tick)))
        for tick, px in zip(self.x.ticks, self.x.position(self.x.ticks, LEFT_PX, right), strict=True):
            out.append(
                f'<line class="axis" x1="{px:.1f}" x2="{px:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
                + _tick(px, bottom + 19, "middle", self.x.text(tick))
            )
        middle_x, middle_y = (LEFT_PX + right) / 2, (TOP_PX + bottom) / 2
        out += [
            f'<line class="axis" x1="{LEFT_PX}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
            f'<text class="name" x="{middle_x:.1f}" y="{self.height_px - 8}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>",
            f'<text class="name" x="13" y="{middle_y:.1f}" text-anchor="middle" '
            f'transform="rotate(-90 13 {middle_y:.1f})">{escape(self.y.label)}</text>',
        ]
        return out

    def _legend_lines(self, legend_at: tuple[float, float]) -> list[str]:
        x, y = self._free_place(legend_at)
        out = []
        for row, (css, text) in enumerate(self._legend):
            py = y + 20 * row
            out.append(
                f'<line class="{css} key" x1="{x:.1f}" x2="{x + 22:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>'
                f'<text class="legend" x="{x + 30:.1f}" y="{py + 4.5:.1f}">{escape(text)}</text>'
            )
        return out


def _tick(x_px: float, y_px: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x_px:.1f}" y="{y_px:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _between(x_px: float, y_px: float, to_x_px: float, to_y_px: float) -> np.ndarray:
    """Points [N, 2] from one to the other, no farther apart than STEP_PX."""
    steps = 2 + int(np.hypot(to_x_px - x_px, to_y_px - y_px) / STEP_PX)
    return np.column_stack((np.linspace(x_px, to_x_px, steps), np.linspace(y_px, to_y_px, steps)))


def _points(x_px: np.ndarray, y_px: np.ndarray) -> str:
    """``x,y x,y ...`` without repeats and without the inner points of straight runs."""
    at = np.round(np.column_stack((x_px, y_px)), 1)
    at = at[np.append(True, (np.diff(at, axis=0) != 0).any(axis=1))]
    if len(at) > 2:
        before, after = at[1:-1] - at[:-2], at[2:] - at[1:-1]
        turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-6
        at = at[np.concatenate(([True], turns, [True]))]
    return " ".join(f"{x:g},{y:g}" for x, y in at)
