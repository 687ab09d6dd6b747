"""Importance against what is known of made-up trials, and against scikit-learn's analysis of variance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from sentinode.search.importance import importance


def test_the_choice_that_decides_has_all_and_the_others_have_none() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"width": int(w), "noise": str(n)}
        for w, n in zip(rng.integers(0, 2, 60), rng.integers(0, 3, 60), strict=True)
    ]
    found = {row.choice: row.share for row in importance(rows, [0.8 + 0.1 * row["width"] for row in rows])}
    assert found["width"] == pytest.approx(1.0)
    assert found["noise"] < 0.1


def test_equals_the_adjusted_analysis_of_variance() -> None:
    rng = np.random.default_rng(4)
    groups, values = rng.integers(0, 3, 40), rng.normal(size=40)
    values += 0.5 * groups
    (f,), _ = f_classif(values[:, None], groups)
    eta = f * 2 / (f * 2 + 37)
    (row,) = importance([{"a": f"g{g}"} for g in groups], values.tolist())
    assert row.share == pytest.approx(1 - (1 - eta) * 39 / 37)
    assert row.trials == 40


def test_numbers_count_by_thirds() -> None:
    lr = np.geomspace(1e-4, 1e-1, 30)
    values = np.where((lr > 1e-3) & (lr < 1e-2), 1.0, 0.0)
    (row,) = importance([{"lr": float(x)} for x in lr], values.tolist())
    assert row.share > 0.9


def test_a_conditional_choice_counts_among_those_that_made_it() -> None:
    rows = [{"family": "a", "a.w": i % 2} for i in range(8)] + [{"family": "b"} for _ in range(8)]
    values = [0.5 + 0.1 * (i % 2) for i in range(8)] + [0.1 + 0.001 * i for i in range(8)]
    found = {row.choice: row for row in importance(rows, values)}
    assert found["a.w"].trials == 8
    assert found["a.w"].share == pytest.approx(1.0)
    assert found["family"].trials == 16


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.5, 0.5]])
def test_nothing_is_said_where_nothing_can_be_known(values: list[float]) -> None:
    assert importance([{"a": i} for i in range(len(values))], values) == ()
