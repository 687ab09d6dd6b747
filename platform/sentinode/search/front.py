"""The Pareto front, and the one winner on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentinode.search.config import QUALITY_NAMES, SearchConfig
from sentinode.search.records import TrialRecord, TrialState


def pareto_front(points: Mapping[int, Sequence[float]]) -> list[int]:
    """Keys of the points that no other one beats: at least as good in everything and better in something.

    The first coordinate is to be high, the others low. Best first coordinate first; of equal points all stay.
    """

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        at_least = a[0] >= b[0] and all(x <= y for x, y in zip(a[1:], b[1:], strict=True))
        return at_least and tuple(a) != tuple(b)

    kept = [key for key, point in points.items() if not any(beats(other, point) for other in points.values())]
    return sorted(kept, key=lambda key: (-points[key][0], points[key][1:], key))


def choose_winner(trials: Sequence[TrialRecord], config: SearchConfig) -> tuple[int | None, str]:
    """The number of the winner and why it is: the best quality among trials within the latency budget.

    A trial that was trained to its end goes before one that was stopped early or broken off, whose figure
    says less. Of equal quality the faster one wins.
    """
    measured = [
        t for t in trials if t.quality(config.quality) is not None and t.state is not TrialState.FAILED
    ]
    if not measured:
        return None, "No trial has trained for a whole epoch."
    budget = config.latency_budget_ms
    within = [t for t in measured if budget is None or (t.cost is not None and t.cost.latency_ms <= budget)]
    if not within:
        fastest = min(t.cost.latency_ms for t in measured if t.cost is not None)
        return (
            None,
            f"No trial keeps the budget of {budget:g} ms a patch: the fastest takes {fastest:.3g} ms.",
        )
    whole = [t for t in within if t.state is TrialState.FINISHED]

    def rank(trial: TrialRecord) -> tuple[float, float]:
        quality = trial.quality(config.quality)
        assert quality is not None
        return quality, -(trial.cost.latency_ms if trial.cost is not None else 0.0)

    best = max(whole or within, key=rank)
    said = f"Trial {best.number} has the highest {QUALITY_NAMES[config.quality]}, {rank(best)[0]:.4f}, of "
    said += (
        f"{len(whole)} trials trained to their end"
        if whole
        else f"{len(within)} trials, none trained to its end"
    )
    said += "." if budget is None else f", at no more than {budget:g} ms a patch."
    return best.number, said
