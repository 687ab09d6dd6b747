"""The change of a sensitivity between two models: exact where nothing differs, wider where slides go together."""

from __future__ import annotations

import numpy as np
import pytest

from sentinode.errors import EvaluationError
from sentinode.evaluation.paired_change import paired_change


def flags(n: int, gained: int, lost: int) -> tuple[np.ndarray, np.ndarray]:
    """Old and new verdicts on ``n`` patches, half of the unmoved ones flagged by both."""
    old, new = np.zeros(n, bool), np.zeros(n, bool)
    new[:gained] = True
    old[gained : gained + lost] = True
    both = slice(gained + lost, gained + lost + (n - gained - lost) // 2)
    old[both] = new[both] = True
    return old, new


def test_models_that_never_differ_are_equal_as_far_as_so_few_patches_tell() -> None:
    few, many = (paired_change(*flags(n, 0, 0), 0.95) for n in (20, 2000))
    assert (few.change, few.gained, few.lost) == (0, 0, 0)
    assert few.low == pytest.approx(-0.168, abs=0.001)
    assert few.high == -few.low
    assert many.low == pytest.approx(-0.00184, abs=1e-5)


def test_a_fall_is_shown_where_enough_patches_are_lost() -> None:
    assert paired_change(*flags(100, 0, 8), 0.95).high < 0
    assert paired_change(*flags(100, 0, 2), 0.95).high > 0
    assert paired_change(*flags(100, 8, 8), 0.95).change == 0
    assert paired_change(*flags(100, 0, 8), 0.9995).high > 0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    n, gain, loss = 150, 0.04, 0.07
    covered = 0
    for _ in range(400):
        drawn = rng.choice(3, n, p=(gain, loss, 1 - gain - loss))
        found = paired_change(*flags(n, int((drawn == 0).sum()), int((drawn == 1).sum())), 0.95)
        covered += found.low <= gain - loss <= found.high
    assert covered / 400 >= 0.94


def test_losses_of_one_slide_widen_the_interval() -> None:
    old, new = flags(400, 0, 40)
    together, apart = np.arange(400) // 50, np.arange(400) % 8
    alone = paired_change(old, new, 0.95)
    assert paired_change(old, new, 0.95, apart).low == pytest.approx(alone.low, abs=0.01)
    clustered = paired_change(old, new, 0.95, together)
    assert clustered.low < alone.low - 0.1
    assert clustered.high > 0 > alone.high
    assert (clustered.slides, alone.slides) == (8, None)


def test_two_slides_tell_little() -> None:
    old, new = flags(400, 0, 40)
    lost = np.flatnonzero(old & ~new)
    units = np.zeros(400, np.int64)
    units[200:] = 1
    units[lost[:15]], units[lost[15:]] = 0, 1
    two = paired_change(old, new, 0.95, units)
    more = paired_change(old, new, 0.95, 4 * (np.arange(400) % 4) + units)
    assert two.high > 0 > more.high


def test_without_a_patch_nothing_changes_and_that_is_said() -> None:
    with pytest.raises(EvaluationError, match="no patch"):
        paired_change(np.zeros(0, bool), np.zeros(0, bool), 0.95)
