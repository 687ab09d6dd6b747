"""The lazy permutation: a bijection, shuffled well, and the same for ever."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinode.data.permutation import key_of, permute, permute_many


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_index_is_hit_once(n: int, key: int) -> None:
    assert sorted(permute(np.arange(n), n, key)) == list(range(n))


@settings(deadline=None)
@given(st.integers(1, 10**12), st.integers(0, 2**64 - 1), st.data())
def test_large_domains_stay_inside_and_apart(n: int, key: int, data: st.DataObject) -> None:
    index = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=50))))
    result = permute(index, n, key)
    assert len(set(result.tolist())) == len(index)
    assert ((result >= 0) & (result < n)).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 2**32))
def test_many_permutations_at_once_equal_each_alone(sizes: list[int], first_key: int) -> None:
    index = np.concatenate([np.arange(n) for n in sizes])
    keys = np.repeat(np.arange(len(sizes), dtype=np.uint64) + np.uint64(first_key), sizes)
    together = permute_many(index, np.repeat(sizes, sizes), keys)
    alone = [permute(np.arange(n), n, first_key + i) for i, n in enumerate(sizes)]
    assert together.tolist() == np.concatenate(alone).tolist()


def test_all_orders_of_four_are_about_equally_likely() -> None:
    orders = Counter(tuple(permute(np.arange(4), 4, key).tolist()) for key in range(12_000))
    assert len(orders) == 24
    assert 400 < min(orders.values()) <= max(orders.values()) < 600


def test_neighbours_are_torn_apart() -> None:
    n = 200_000
    order = permute(np.arange(n), n, 7)
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.01
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.01


def test_the_order_never_changes_between_releases() -> None:
    assert permute(np.arange(10), 10, key_of("golden")).tolist() == GOLDEN
    assert key_of("a", 1) != key_of("a1")


GOLDEN = [0, 7, 5, 9, 8, 3, 2, 6, 1, 4]
