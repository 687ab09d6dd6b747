"""Which choices matter: the share of the quality's variance that goes with each of them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sentinode.search.records import Importance
from sentinode.search.space import Choice

BINS = 3
"""Numbers are compared by thirds: few trials fill no more."""


def importance(choices: Sequence[Mapping[str, Choice]], values: Sequence[float]) -> tuple[Importance, ...]:
    """Importance of each choice for ``values``, one a trial; the most telling first.

    Adjusted eta squared of a one-way analysis of variance over the choice's options (numbers by thirds), over the
    trials that made the choice: 0 is what chance would give. It is a main effect: what two choices do only
    together is not seen. A choice with one option, or as many options as trials, is left out.
    """
    names = dict.fromkeys(name for made in choices for name in made)
    found = []
    for name in names:
        rows = [(made[name], value) for made, value in zip(choices, values, strict=True) if name in made]
        share = _adjusted_eta_squared(_groups([made for made, _ in rows]), np.array([v for _, v in rows]))
        if share is not None:
            found.append(Importance(choice=name, share=share, trials=len(rows)))
    return tuple(sorted(found, key=lambda row: (-row.share, row.choice)))


def _groups(made: Sequence[Choice]) -> np.ndarray:
    """The number of each choice's group."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in made)
    if numeric and len(set(made)) > BINS:
        numbers = np.array(made, np.float64)
        edges = np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1])
        return np.searchsorted(edges, numbers, side="left")
    options = list(dict.fromkeys(made))
    return np.array([options.index(value) for value in made])


def _adjusted_eta_squared(groups_N: np.ndarray, values_N: np.ndarray) -> float | None:
    number, count = len(values_N), len(np.unique(groups_N))
    total = float(np.square(values_N - values_N.mean()).sum()) if number else 0.0
    if count < 2 or number <= count or total <= 0:
        return None
    within = sum(
        float(np.square(part - part.mean()).sum())
        for part in (values_N[groups_N == group] for group in np.unique(groups_N))
    )
    return max(0.0, 1 - (within / (number - count)) / (total / (number - 1)))
