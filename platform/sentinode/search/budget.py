"""When a search has had enough."""

from __future__ import annotations

from collections.abc import Sequence

from sentinode.search.config import Budget
from sentinode.search.records import TrialRecord


def spent_cost(budget: Budget, trials: Sequence[TrialRecord], workers: int) -> float:
    """What the workers' time has cost so far."""
    return budget.price * workers * sum(trial.seconds for trial in trials) / 3600


def spent(budget: Budget, seconds: float, cost: float) -> str | None:
    """Why trials under way are to be broken off; None where time and money are left."""
    if budget.hours is not None and seconds >= 3600 * budget.hours:
        return f"the time budget of {budget.hours:g} h is spent"
    if budget.cost is not None and cost >= budget.cost:
        return f"the cost budget of {budget.cost:g} is spent"
    return None
