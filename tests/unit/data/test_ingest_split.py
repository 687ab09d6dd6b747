"""Duplicates, conflicts and carving: properties over many small data sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinode.data.ingest.carve import carve_by_content, carve_by_group
from sentinode.data.ingest.split import find_conflicts, keep_unique
from sentinode.errors import ConfigError
from sentinode.schema import Split

FRACTIONS = {Split.TEST: 0.1, Split.VALID: 0.15}


def keys_of(contents: list[int]) -> np.ndarray:
    """uint8 [N, 20]; equal numbers, equal keys; the difference may stand in any word."""
    keys = np.zeros((len(contents), 20), np.uint8)
    for i, content in enumerate(contents):
        keys[i, content * 7 % 20] = content + 1
    return keys


def random_keys(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 20), dtype=np.uint8)


patches = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 0, 1, 2]), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(patches)
def test_unique_against_a_plain_loop(rows: list[tuple[int, int, int, bool]]) -> None:
    contents = [row[0] for row in rows]
    labels = np.array([row[1] for row in rows], np.int8)
    splits = np.array([3 if row[1] == -1 else row[2] for row in rows], np.int8)
    usable = np.array([row[3] for row in rows])
    keys = keys_of(contents)

    best: dict[int, int] = {}
    for i in np.flatnonzero(usable).tolist():
        if contents[i] not in best or splits[i] > splits[best[contents[i]]]:
            best[contents[i]] = i
    dropped = [i for i in np.flatnonzero(usable).tolist() if best[contents[i]] != i]
    cross = sum(splits[i] != splits[best[contents[i]]] for i in dropped)
    found = keep_unique(keys, splits, usable)
    assert set(found.kept.tolist()) == set(best.values())
    assert (found.duplicates, found.cross_split_duplicates) == (len(dropped) - cross, cross)
    assert [keys[i].tobytes() for i in found.kept] == sorted(keys[i].tobytes() for i in found.kept)

    said = {
        c: {int(labels[i]) for i in np.flatnonzero(usable) if contents[i] == c and labels[i] >= 0}
        for c in contents
    }
    expected = {i for i in np.flatnonzero(usable).tolist() if labels[i] >= 0 and len(said[contents[i]]) > 1}
    assert set(find_conflicts(keys, labels, usable).tolist()) == expected


def test_the_last_evaluated_split_keeps_a_patch() -> None:
    keys = keys_of([5, 5, 5, 5, 5])
    found = keep_unique(keys, np.array([0, 0, 1, 2, 2], np.int8), np.ones(5, bool))
    assert found.kept.tolist() == [3]
    assert (found.duplicates, found.cross_split_duplicates) == (1, 3)


def test_content_carving_is_near_its_share_and_stable() -> None:
    keys = random_keys(20_000, 0)
    labels = (keys[:, 0] > 100).astype(np.int8)
    masks = carve_by_content(keys, labels, FRACTIONS, seed=3)
    for split, fraction in FRACTIONS.items():
        assert masks[split].mean() == pytest.approx(fraction, abs=0.01)
        assert labels[masks[split]].mean() == pytest.approx(labels.mean(), abs=0.03)
    assert not (masks[Split.TEST] & masks[Split.VALID]).any()
    fewer = carve_by_content(keys[::3], labels[::3], FRACTIONS, seed=3)
    np.testing.assert_array_equal(fewer[Split.TEST], masks[Split.TEST][::3])
    other = carve_by_content(keys, labels, FRACTIONS, seed=4)
    assert (other[Split.TEST] != masks[Split.TEST]).any()


@settings(max_examples=150, deadline=None)
@given(st.integers(6, 60), st.integers(0, 1000), st.integers(3, 30))
def test_content_carving_leaves_no_split_without_a_class(count: int, seed: int, positives: int) -> None:
    keys = random_keys(count, seed)
    labels = (np.arange(count) < min(positives, count - 3)).astype(np.int8)
    masks = carve_by_content(keys, labels, FRACTIONS, seed)
    train = ~(masks[Split.TEST] | masks[Split.VALID])
    assert not (masks[Split.TEST] & masks[Split.VALID]).any()
    for mask in (*masks.values(), train):
        assert set(labels[mask].tolist()) == {0, 1}


def test_too_few_patches_of_a_class() -> None:
    with pytest.raises(ConfigError, match=r"class 1 .* only 2 patches"):
        carve_by_content(random_keys(9, 0), np.array([1, 1, 0, 0, 0, 0, 0, 0, 0], np.int8), FRACTIONS, 0)


@settings(max_examples=150, deadline=None)
@given(st.integers(9, 60), st.integers(0, 1000))
def test_slide_carving_divides_no_slide_and_keeps_both_classes(slides: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 80, slides)
    groups = np.repeat(np.arange(slides), sizes).astype(np.int32)
    tumour_slide = np.arange(slides) % 2 == 0
    labels = (tumour_slide[groups] & (rng.random(len(groups)) < 0.7)).astype(np.int8)
    first_of_slide = np.append(0, np.cumsum(sizes)[:-1])
    labels[first_of_slide[tumour_slide]] = 1
    groups[rng.random(len(groups)) < 0.02] = -1
    if (
        len({g for g in groups[labels == 1] if g >= 0}) < 4
        or len({g for g in groups[labels == 0] if g >= 0}) < 4
    ):
        return
    masks = carve_by_group(groups, [f"s{i}" for i in range(slides)], labels, FRACTIONS, seed)
    train = ~(masks[Split.TEST] | masks[Split.VALID])
    sides = [set(groups[m & (groups >= 0)].tolist()) for m in (*masks.values(), train)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert all(train[groups == -1])
    for mask in (*masks.values(), train):
        assert set(labels[mask].tolist()) == {0, 1}


def test_slide_carving_is_near_its_share_of_both_classes() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(200), rng.integers(20, 200, 200)).astype(np.int32)
    labels = ((groups % 2 == 0) & (rng.random(len(groups)) < 0.8)).astype(np.int8)
    masks = carve_by_group(groups, [f"s{i}" for i in range(200)], labels, FRACTIONS, 0)
    for split, fraction in FRACTIONS.items():
        for label in (0, 1):
            assert masks[split][labels == label].mean() == pytest.approx(fraction, abs=0.02)
    again = carve_by_group(groups, [f"s{i}" for i in range(200)], labels, FRACTIONS, 0)
    np.testing.assert_array_equal(masks[Split.TEST], again[Split.TEST])


def test_too_few_tumour_slides() -> None:
    groups = np.repeat(np.arange(6), 10).astype(np.int32)
    labels = np.isin(groups, [0, 1]).astype(np.int8)
    with pytest.raises(ConfigError, match=r"class 1 .* only 2 slides or patients"):
        carve_by_group(groups, list("abcdef"), labels, FRACTIONS, 0)
