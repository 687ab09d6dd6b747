"""The epoch plan over many topologies."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sentinode.data.plan import (
    PADDING,
    EpochPlan,
    ShuffleConfig,
    plan_evaluation,
    plan_training,
    shuffle_quality,
)
from sentinode.errors import ConfigError

SHARDS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@st.composite
def training_plans(draw: st.DrawFn) -> tuple[list[int], EpochPlan, list[int]]:
    """Shard sizes, a plan, and some numbers of ranks that divide its batch."""
    shards = draw(SHARDS)
    lanes = draw(st.sampled_from([1, 2, 4]))
    batch = draw(st.sampled_from([4, 8, 12]))
    kind = draw(st.sampled_from(["full", "block", "none"]))
    shards = [*shards, batch]
    shuffle = ShuffleConfig(kind=kind, lanes=lanes, block_samples=draw(st.integers(4, 60)))
    plan = plan_training(
        shards, digest="d", seed=draw(st.integers(0, 5)), epoch=1, batch_size=batch, shuffle=shuffle
    )
    return shards, plan, [n for n in range(1, batch + 1) if batch % n == 0]


def joined(plan: EpochPlan, world_size: int, start_step: int = 0) -> np.ndarray:
    """Global batches [S, B] put together from all ranks."""
    return np.concatenate([plan.ids(r, world_size, start_step) for r in range(world_size)], axis=1)


@settings(deadline=None)
@given(training_plans())
def test_training_takes_each_sample_once_and_drops_only_the_short_step(
    case: tuple[list[int], EpochPlan, list[int]],
) -> None:
    shards, plan, _ = case
    ids = joined(plan, 1).ravel()
    assert len(set(ids.tolist())) == len(ids)
    assert ((ids >= 0) & (ids < sum(shards))).all()
    assert plan.dropped_samples == sum(shards) - len(ids) < plan.batch_size


@settings(deadline=None)
@given(training_plans())
def test_the_global_order_does_not_depend_on_the_number_of_ranks(
    case: tuple[list[int], EpochPlan, list[int]],
) -> None:
    _, plan, worlds = case
    alone = joined(plan, 1)
    for world_size in worlds:
        assert (joined(plan, world_size) == alone).all()


@settings(deadline=None)
@given(training_plans(), st.data())
def test_an_epoch_resumes_at_any_step_with_any_number_of_ranks(
    case: tuple[list[int], EpochPlan, list[int]], data: st.DataObject
) -> None:
    _, plan, worlds = case
    step = data.draw(st.integers(0, plan.steps))
    before, after = data.draw(st.sampled_from(worlds)), data.draw(st.sampled_from(worlds))
    seen = joined(plan, before)[:step]
    rest = joined(plan, after, start_step=step)
    assert (np.concatenate([seen, rest]) == joined(plan, 1)).all()


@settings(deadline=None)
@given(SHARDS, st.integers(1, 33), st.integers(1, 9))
def test_evaluation_counts_every_sample_once_and_pads_all_ranks_alike(
    shards: list[int], batch_size: int, world_size: int
) -> None:
    plan = plan_evaluation(shards, batch_size=batch_size)
    parts = [plan.ids(rank, world_size) for rank in range(world_size)]
    assert len({part.shape for part in parts}) == 1
    ids = np.concatenate([part.ravel() for part in parts])
    assert sorted(ids[ids != PADDING].tolist()) == list(range(sum(shards)))
    for row in np.concatenate(parts):
        real = np.flatnonzero(row != PADDING)
        assert real.tolist() == list(range(len(real))), "padding comes last"


@settings(deadline=None)
@given(training_plans(), st.integers(1, 70))
def test_windows_cut_the_epoch_without_changing_it(
    case: tuple[list[int], EpochPlan, list[int]], window_steps: int
) -> None:
    _, plan, _ = case
    windows = list(plan.windows(0, 1, window_steps=window_steps))
    assert (np.concatenate(windows) == plan.ids(0, 1)).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_balanced_sampling_is_even(negatives: int, tumours: int, epoch: int) -> None:
    labels = np.array([0] * negatives + [1] * tumours, dtype=np.int8)
    plan = plan_training(
        [len(labels)],
        digest="d",
        seed=0,
        epoch=epoch,
        batch_size=2,
        shuffle=ShuffleConfig(balanced=True),
        labels=labels,
    )
    batches = plan.ids(0, 1)
    assert (labels[batches].sum(axis=1) == 1).all()
    times = np.bincount(batches.ravel(), minlength=len(labels))
    for label in (0, 1):
        of_class = times[labels == label]
        assert of_class.max() - of_class.min() <= 1
        assert of_class.sum() == max(negatives, tumours)


@st.composite
def balanced_block_plans(draw: st.DrawFn) -> tuple[np.ndarray, EpochPlan, list[int]]:
    """Labels of all samples, a class-balanced plan with block shuffle, and some numbers of ranks."""
    shards = draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=1, max_size=8))
    labels = np.array([0, 1, *(label for shard in shards for label in shard)], dtype=np.int8)
    lanes = draw(st.sampled_from([1, 2, 3]))
    batch = 2 * lanes * draw(st.sampled_from([1, 2]))
    assume(2 * np.bincount(labels).max() >= batch)
    plan = plan_training(
        [2, *map(len, shards)],
        digest="d",
        seed=draw(st.integers(0, 5)),
        epoch=1,
        batch_size=batch,
        shuffle=ShuffleConfig(
            kind="block", balanced=True, lanes=lanes, block_samples=draw(st.integers(6, 60))
        ),
        labels=labels,
    )
    return labels, plan, [n for n in range(1, batch + 1) if batch % n == 0]


@settings(deadline=None)
@given(balanced_block_plans())
def test_balanced_blocks_draw_both_classes_alike_and_the_larger_one_once(
    case: tuple[np.ndarray, EpochPlan, list[int]],
) -> None:
    labels, plan, _ = case
    assert (labels[joined(plan, 1)].sum(axis=1) == plan.batch_size // 2).all()
    # All positions of the order, so also those of a short last step.
    drawn = plan.order.ids(np.arange(plan.order.length))
    times = np.bincount(drawn, minlength=len(labels))
    most = np.bincount(labels).max()
    for label in (0, 1):
        of_class = times[labels == label]
        assert of_class.sum() == most
        assert of_class.max() - of_class.min() <= 1


@settings(deadline=None)
@given(balanced_block_plans(), st.data())
def test_balanced_blocks_resume_at_any_step_with_any_number_of_ranks(
    case: tuple[np.ndarray, EpochPlan, list[int]], data: st.DataObject
) -> None:
    _, plan, worlds = case
    step = data.draw(st.integers(0, plan.steps))
    before, after = data.draw(st.sampled_from(worlds)), data.draw(st.sampled_from(worlds))
    seen = joined(plan, before)[:step]
    rest = joined(plan, after, start_step=step)
    assert (np.concatenate([seen, rest]) == joined(plan, 1)).all()


def test_a_node_holds_no_more_shards_for_balanced_blocks_than_for_plain_ones() -> None:
    shards = [100] * 64
    labels = (np.random.default_rng(0).random(6400) < 0.2).astype(np.int8)
    shuffle = ShuffleConfig(kind="block", lanes=4, block_samples=1600, balanced=True)
    plan = plan_training(shards, digest="d", seed=0, epoch=0, batch_size=16, shuffle=shuffle, labels=labels)
    touched = [set((plan.ids(rank, 4) // 100).ravel().tolist()) for rank in range(4)]
    assert set.union(*touched) == set(range(64))
    assert all(len(of_rank) <= 16 + 4 for of_rank in touched), "a lane's own part and where the classes drift"
    steps_of_block = 1600 // 16
    of_block = set((plan.ids(0, 4, 0, steps_of_block) // 100).ravel().tolist())
    assert len(of_block) <= 6, "200 of the larger class are in two or three shards of 80 each"


def test_epochs_seeds_and_data_sets_have_orders_of_their_own() -> None:
    def order(digest: str, seed: int, epoch: int) -> tuple[int, ...]:
        plan = plan_training([64, 64], digest=digest, seed=seed, epoch=epoch, batch_size=128)
        return tuple(plan.ids(0, 1)[0].tolist())

    orders = {order("a", 0, 0), order("a", 0, 1), order("a", 1, 0), order("b", 0, 0)}
    assert len(orders) == 4
    assert order("a", 0, 0) == order("a", 0, 0)


def test_lanes_keep_a_node_to_its_own_shards() -> None:
    shards = [100] * 32
    shuffle = ShuffleConfig(kind="block", lanes=4, block_samples=800)
    plan = plan_training(shards, digest="d", seed=0, epoch=0, batch_size=16, shuffle=shuffle)
    touched = [set((plan.ids(rank, 4) // 100).ravel().tolist()) for rank in range(4)]
    assert all(len(shards_of_rank) <= 9 for shards_of_rank in touched)
    assert set.union(*touched) == set(range(32))


def test_shuffle_quality_tells_full_from_block_from_none() -> None:
    shards = [256] * 64

    def quality(kind: str, block_samples: int = 1024) -> float:
        shuffle = ShuffleConfig.model_validate({"kind": kind, "block_samples": block_samples})
        plan = plan_training(shards, digest="d", seed=0, epoch=0, batch_size=64, shuffle=shuffle)
        return shuffle_quality(plan, shards)

    assert quality("none") == 0
    assert 0.05 < quality("block") < quality("block", 8192) < 0.95
    assert 0.95 < quality("full") < 1.05


def test_uneven_batches_are_refused_with_a_remedy() -> None:
    plan = plan_training([100], digest="d", seed=0, epoch=0, batch_size=10)
    with pytest.raises(ConfigError, match="set the batch size to 9 or 12"):
        plan.ids(0, 3)
    with pytest.raises(ConfigError, match="do not fill one global batch"):
        plan_training([5], digest="d", seed=0, epoch=0, batch_size=10)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        plan.ids(2, 2)
    with pytest.raises(ConfigError, match="labels of all samples"):
        plan_training([100], digest="d", seed=0, epoch=0, batch_size=10, shuffle=ShuffleConfig(balanced=True))


def test_settings_that_contradict_balanced_blocks_are_refused() -> None:
    labels = np.array([0, 1] * 50, dtype=np.int8)

    def plan(batch_size: int, kind: str = "block", of: np.ndarray = labels) -> EpochPlan:
        shuffle = ShuffleConfig.model_validate({"kind": kind, "balanced": True})
        return plan_training(
            [100], digest="d", seed=0, epoch=0, batch_size=batch_size, shuffle=shuffle, labels=of
        )

    assert plan(10).steps == 10
    with pytest.raises(ConfigError, match="make the batch size even"):
        plan(5)
    with pytest.raises(ConfigError, match="none shuffle"):
        plan(10, "none")
    with pytest.raises(ConfigError, match="0 negative and 100 tumour"):
        plan(10, of=np.ones(100, dtype=np.int8))


@pytest.mark.parametrize("kind", ["full", "block"])
def test_a_hundred_million_samples_are_planned_in_seconds(kind: str) -> None:
    """The target is 10 s and 2 GiB for one of 1,024 ranks; it takes a fraction of a second and 100 MB."""
    shards = np.full(12_000, 8_334)
    shuffle = ShuffleConfig.model_validate({"kind": kind, "lanes": 1024})
    tracemalloc.start()
    began = time.process_time()
    plan = plan_training(shards, digest="d", seed=0, epoch=0, batch_size=65_536, shuffle=shuffle)
    ids = plan.ids(511, 1024)
    took_s = time.process_time() - began
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids.shape == (plan.steps, 64)
    assert took_s < 10
    assert peak_bytes < 2 << 30
