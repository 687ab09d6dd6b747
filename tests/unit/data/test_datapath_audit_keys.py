"""Keys compared as sorted digests: the same answers as by looking at every pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinode.data.audit_keys import DIGEST_BYTES, KeyTable, digests_of

SAMPLES = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([-1, 0, 1])), min_size=1, max_size=20
)
"""Key and label."""


def table(samples: list[tuple[str, int]]) -> KeyTable:
    return KeyTable.of(
        digests_of(key for key, _ in samples), np.array([label for _, label in samples], np.int8)
    )


def named(samples: list[tuple[str, int]], ids: np.ndarray) -> set[str]:
    """The keys at ``ids``, each of which must be its key's first place."""
    keys = [key for key, _ in samples]
    assert all(keys.index(keys[i]) == i for i in ids)
    return {keys[i] for i in ids}


@settings(deadline=None)
@given(SAMPLES)
def test_repetitions_and_conflicts_within_a_split(samples: list[tuple[str, int]]) -> None:
    repeated, conflicting = table(samples).repeated()
    labels = {key: [label for other, label in samples if other == key] for key, _ in samples}
    assert named(samples, repeated) == {key for key, found in labels.items() if len(found) > 1}
    assert named(samples, conflicting) == {key for key, found in labels.items() if {0, 1} <= set(found)}


@settings(deadline=None)
@given(SAMPLES, SAMPLES)
def test_keys_and_conflicts_between_splits(
    first: list[tuple[str, int]], second: list[tuple[str, int]]
) -> None:
    shared, conflicting = table(first).shared(table(second))
    pairs = [(key, a, b) for key, a in first for other, b in second if key == other]
    assert named(first, shared) == {key for key, _, _ in pairs}
    assert named(first, conflicting) == {key for key, a, b in pairs if {a, b} == {0, 1}}


def test_a_patch_takes_26_bytes_however_long_its_key() -> None:
    keys = [f"{i:0100d}" for i in range(500)]
    found = KeyTable.of(digests_of(keys), np.zeros(500, dtype=np.int8))
    arrays = (found.digests_N, found.first_K, found.repeated_K, found.labels_K)
    assert sum(array.nbytes for array in arrays) == 500 * (DIGEST_BYTES + 10)
