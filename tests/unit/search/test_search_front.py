"""The Pareto front against its definition, and the winner's rules."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from search_parts import sweep_record, trial

from sentinode.search.config import SearchConfig
from sentinode.search.front import choose_winner, pareto_front
from sentinode.search.records import TrialState
from sentinode.search.sweep import result_of

values = st.integers(0, 4).map(float)


def test_front_of_a_plain_case() -> None:
    points = {0: (0.9, 5.0), 1: (0.8, 1.0), 2: (0.85, 5.0), 3: (0.7, 2.0), 4: (0.9, 5.0)}
    assert pareto_front(points) == [0, 4, 1]


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 20), st.tuples(values, values, values), max_size=12))
def test_front_by_its_definition(points: dict[int, tuple[float, float, float]]) -> None:
    front = pareto_front(points)

    def better(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        turned = [(a[0], b[0]), *((-x, -y) for x, y in zip(a[1:], b[1:], strict=True))]
        return all(x >= y for x, y in turned) and any(x > y for x, y in turned)

    assert set(front) == {k for k, p in points.items() if not any(better(q, p) for q in points.values())}
    assert [points[k][0] for k in front] == sorted((points[k][0] for k in front), reverse=True)


def test_winner_keeps_the_latency_budget() -> None:
    trials = [trial(0, 0.95, latency_ms=9.0), trial(1, 0.9, latency_ms=2.0), trial(2, 0.8, latency_ms=1.0)]
    assert choose_winner(trials, SearchConfig())[0] == 0
    number, why = choose_winner(trials, SearchConfig(latency_budget_ms=2.0))
    assert number == 1
    assert "0.9000" in why
    assert "2 ms" in why


def test_no_winner_is_explained() -> None:
    number, why = choose_winner([trial(0, 0.9, latency_ms=3.0)], SearchConfig(latency_budget_ms=1.0))
    assert number is None
    assert "fastest takes 3 ms" in why
    assert choose_winner([trial(0, state=TrialState.FAILED)], SearchConfig())[0] is None


def test_a_whole_training_goes_before_one_that_was_stopped() -> None:
    trials = [trial(0, 0.95, state=TrialState.STOPPED), trial(1, 0.9)]
    assert choose_winner(trials, SearchConfig())[0] == 1
    assert choose_winner(trials[:1], SearchConfig())[0] == 0


def test_of_equal_quality_the_faster_one_wins() -> None:
    assert (
        choose_winner([trial(0, 0.9, latency_ms=2.0), trial(1, 0.9, latency_ms=1.0)], SearchConfig())[0] == 1
    )


def test_result_leaves_out_failed_trials_and_those_without_figures() -> None:
    record = sweep_record(
        trial(0, 0.9, latency_ms=2.0),
        trial(1, 0.99, state=TrialState.FAILED),
        trial(2, latency_ms=None, state=TrialState.WAITING),
        trial(3, 0.8, 0.85, 0.7, latency_ms=1.0, state=TrialState.STOPPED),
    )
    result = result_of(record)
    assert result.front == (0, 3)
    assert result.winner == 0
    assert record.trial(3).quality("auroc") == 0.85
