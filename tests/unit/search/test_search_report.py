"""The report of a search: one file, nothing fetched, every trial and every reason in it."""

from __future__ import annotations

import pytest
from search_parts import sweep_record, trial

from sentinode.evaluation.svg import Axis
from sentinode.search.config import SearchConfig
from sentinode.search.records import SweepRecord, TrialState
from sentinode.search.report import render_sweep, saved_epochs
from sentinode.search.sweep import result_of, spread_of


@pytest.fixture
def record() -> SweepRecord:
    trials = (
        trial(0, 0.7, 0.8, 0.85, 0.86, latency_ms=0.1, choices={"lr": 0.001, "depth": 1}),
        trial(1, 0.8, 0.9, 0.91, 0.92, latency_ms=1.5, choices={"lr": 0.002, "depth": 2}),
        trial(2, 0.6, latency_ms=3.0, state=TrialState.STOPPED, choices={"lr": 0.02, "depth": 2}),
        trial(3, state=TrialState.FAILED, reason="the loss is <nan>", choices={"lr": 1.0, "depth": 1}),
    )
    record = sweep_record(*trials, config=SearchConfig(latency_budget_ms=2.0), seconds=3600.0)
    again = {"again": (trial(0, 0.9), trial(1, 0.92)), "spread": spread_of([0.9, 0.92])}
    return record.model_copy(update={"result": result_of(record), **again})


def test_it_tells_the_winner_the_spread_and_each_reason(record: SweepRecord) -> None:
    text = render_sweep(record)
    for said in (
        "Trial 1 has the highest",
        "at no more than 2 ms",
        "0.9100",
        "the loss is &lt;nan&gt;",
        "Research use only",
    ):
        assert said in text
    assert text.count("<svg") >= 3
    assert "9 of 12 epochs were trained" in text


def test_it_needs_nothing_from_elsewhere(record: SweepRecord) -> None:
    text = render_sweep(record)
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_search_without_figures_has_a_report_too() -> None:
    text = render_sweep(sweep_record(trial(0, latency_ms=None, state=TrialState.RUNNING)))
    assert "No trial has trained for a whole epoch." in text
    assert "Nothing measured yet." in text


def test_failed_trials_save_no_epochs(record: SweepRecord) -> None:
    assert saved_epochs(record) == (9, 12)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [((0.09, 5.2), 0.05, 10.0), ((1.0, 1.0), 1.0, 2.0), ((300.0, 90_000.0), 200.0, 100_000.0)],
)
def test_a_logarithmic_axis_holds_its_values_between_round_ticks(
    values: tuple[float, float], low: float, high: float
) -> None:
    axis = Axis.powers("ms", values)
    assert (axis.low, axis.high) == (low, high)
    assert axis.position([low, (low * high) ** 0.5, high], 0, 100) == pytest.approx([0, 50, 100])
