"""The epoch plan: which samples each rank takes in each step, as pure arithmetic.

The global order of an epoch is a function of (manifest digest, split, seed, epoch) and the declared shuffle
alone. Step s takes ``order[s * B : (s + 1) * B]``, B being the global batch size, and each rank a
contiguous part of that, so the average of the gradients is the same for any number of ranks and a run may
resume at any step with another number.

Legend of array shapes: S steps, B global batch, b batch of one rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sentinode.config import Frozen
from sentinode.data.order import (
    BalancedBlockOrder,
    BalancedOrder,
    BlockOrder,
    FullOrder,
    Order,
    SequentialOrder,
)
from sentinode.data.permutation import key_of
from sentinode.errors import ConfigError

Ids = npt.NDArray[np.int64]

PADDING = -1
"""Stands in a plan where a rank has no sample left (evaluation only)."""

WINDOW_STEPS = 64
"""Steps planned at a time: enough that numpy's overhead vanishes, few enough to stay small."""


class ShuffleConfig(Frozen):
    """How the samples of an epoch are ordered."""

    kind: Literal["full", "block", "none"] = "full"
    """full: any sample may come anywhere (the node holds the set); block: shards in random order, samples
    shuffled within blocks (the node holds ``block_samples``); none: manifest order."""
    block_samples: int = Field(default=262_144, gt=0)
    """Samples shuffled together under ``block``, over all lanes; also what the nodes must hold at a time."""
    lanes: int = Field(default=1, gt=0)
    """Parts of the order that ranks read side by side under ``block``. With a multiple of the number of
    nodes, each node downloads only its own part of the set."""
    balanced: bool = False
    """Draw both classes equally often: the larger one exactly once, the smaller one repeated evenly. The
    labels of the whole split are read before the first step: one pass over its shards."""


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one epoch for any rank of any number of ranks."""

    order: Order
    batch_size: int
    """Global: over all ranks."""
    pad: bool
    """True: the last, short step is padded (evaluation); False: it is dropped (training)."""
    lanes: int = 1
    run: int = 1
    """Neighbours in the order that belong to one lane: 2 where the order is one of pairs."""

    @property
    def steps(self) -> int:
        """Steps of the epoch, the same for every rank."""
        whole, rest = divmod(self.order.length, self.batch_size)
        return whole + (1 if self.pad and rest else 0)

    @property
    def dropped_samples(self) -> int:
        """Samples of the last, short step that this epoch leaves out (always 0 with padding)."""
        return 0 if self.pad else self.order.length % self.batch_size

    def rank_batch_size(self, world_size: int) -> int:
        """Samples of one rank in one step. Raises ConfigError where training steps do not split evenly."""
        if world_size < 1:
            raise ConfigError(f"{world_size} ranks", "at least one rank")
        if not self.pad and self.batch_size % world_size:
            lower = self.batch_size - self.batch_size % world_size
            raise ConfigError(
                f"a global batch of {self.batch_size} samples does not split evenly over {world_size} ranks",
                f"a multiple of {world_size}",
                f"set the batch size to {lower or world_size} or {lower + world_size}",
            )
        return -(-self.batch_size // world_size)

    def ids(self, rank: int, world_size: int, start_step: int = 0, stop_step: int | None = None) -> Ids:
        """Sample ids [S, b] of ``rank`` for steps ``start_step`` to ``stop_step``; PADDING where it has none.

        Raises ConfigError for a rank or step outside the epoch.
        """
        stop_step = self.steps if stop_step is None else stop_step
        if not (0 <= rank < world_size and 0 <= start_step <= stop_step <= self.steps):
            raise ConfigError(
                f"rank {rank} of {world_size}, steps {start_step} to {stop_step}",
                f"a rank below the number of ranks and steps within 0 to {self.steps}",
            )
        size = self.rank_batch_size(world_size)
        within_step = rank * size + np.arange(size, dtype=np.int64)
        steps = np.arange(start_step, stop_step, dtype=np.int64)
        positions = steps[:, None] * self.batch_size + self._by_lane(within_step)
        real = (within_step < self.batch_size) & (positions < self.order.length)
        if real.all():
            return self.order.ids(positions)
        ids = np.full(positions.shape, PADDING, dtype=np.int64)
        ids[real] = self.order.ids(positions[real])
        return ids

    def windows(
        self, rank: int, world_size: int, start_step: int = 0, window_steps: int = WINDOW_STEPS
    ) -> Iterator[Ids]:
        """``ids`` of the rest of the epoch, ``window_steps`` steps at a time."""
        for step in range(start_step, self.steps, window_steps):
            yield self.ids(rank, world_size, step, min(step + window_steps, self.steps))

    def _by_lane(self, within_step: Ids) -> Ids:
        """Lanes alternate in the order; a step lists them one by one, so that a rank stays in its lanes."""
        if self.lanes == 1:
            return within_step
        lane, within_lane = np.divmod(within_step, self.batch_size // self.lanes)
        turn, within_run = np.divmod(within_lane, self.run)
        return (turn * self.lanes + lane) * self.run + within_run


def plan_training(
    shard_samples: npt.ArrayLike,
    *,
    digest: str,
    seed: int,
    epoch: int,
    batch_size: int,
    shuffle: ShuffleConfig | None = None,
    labels: npt.NDArray[np.int8] | None = None,
) -> EpochPlan:
    """The plan of one training epoch.

    ``shard_samples`` [shards]: samples of each shard in manifest order; sample ids count through them from
    0. ``digest``: names the data (manifest digest and split). ``labels`` int8 [samples]: needed by balanced
    sampling. Raises ConfigError for settings that contradict each other or an epoch without a single step.
    """
    shuffle = shuffle or ShuffleConfig()
    sizes = np.asarray(shard_samples, dtype=np.int64)
    samples = int(sizes.sum())
    key = key_of("epoch", digest, seed, epoch)
    if shuffle.balanced and (labels is None or shuffle.kind == "none"):
        raise ConfigError(
            f"class-balanced sampling with {shuffle.kind} shuffle"
            + (" and no labels" if labels is None else ""),
            "labels of all samples, and full or block shuffle",
            "set shuffle kind full or block, or turn balanced off",
        )
    if shuffle.kind == "block":
        plan = _plan_blocks(sizes, shuffle, labels if shuffle.balanced else None, key, batch_size)
    else:
        order: Order = SequentialOrder(samples) if shuffle.kind == "none" else FullOrder(samples, key)
        if shuffle.balanced and labels is not None:
            order = BalancedOrder.of(labels, key)
        plan = EpochPlan(order, batch_size, pad=False)
    if plan.steps == 0:
        raise ConfigError(
            f"{samples} samples do not fill one global batch of {batch_size}",
            "at least one full step an epoch",
            f"set the batch size to at most {samples}",
        )
    return plan


def _plan_blocks(
    shard_samples: Ids,
    shuffle: ShuffleConfig,
    labels: npt.NDArray[np.int8] | None,
    key: int,
    batch_size: int,
) -> EpochPlan:
    """Block shuffle, class-balanced where ``labels`` are given."""
    lanes, run = shuffle.lanes, 1 if labels is None else 2
    if batch_size % (lanes * run) or shuffle.block_samples < lanes * run:
        raise ConfigError(
            f"{lanes} lanes for a batch of {batch_size} and blocks of {shuffle.block_samples} samples",
            f"a batch size that is a multiple of {lanes * run}, and at least as many block samples",
            "lower the number of lanes" if lanes > 1 else "make the batch size even",
        )
    per_lane = shuffle.block_samples // lanes
    order: Order
    if labels is None:
        order = BlockOrder.of(shard_samples, per_lane, lanes, key)
    else:
        order = BalancedBlockOrder.of(shard_samples, labels, per_lane, lanes, key)
    return EpochPlan(order, batch_size, pad=False, lanes=lanes, run=run)


def plan_evaluation(shard_samples: npt.ArrayLike, *, batch_size: int) -> EpochPlan:
    """Manifest order, every sample exactly once over all ranks; the last step is padded and masked."""
    return EpochPlan(SequentialOrder(int(np.sum(shard_samples, dtype=np.int64))), batch_size, pad=True)


def shuffle_quality(plan: EpochPlan, shard_samples: npt.ArrayLike, steps: int = 64) -> float:
    """How well the steps mix shards: 1 as well as a full shuffle, 0 where each step comes from one shard.

    The mean number of other shards met in a global batch, over that expected of a draw without replacement
    from the whole set, both counted from one. Looks at ``steps`` steps spread over the epoch.
    """
    sizes = np.asarray(shard_samples, dtype=np.int64)
    whole = plan.order.length // plan.batch_size
    ends = np.cumsum(sizes)
    picked = np.unique(np.linspace(0, whole - 1, min(steps, whole)).astype(np.int64))
    met = [
        np.unique(np.searchsorted(ends, plan.ids(0, 1, int(s), int(s) + 1)[0], side="right")).size
        for s in picked
    ]
    expected = _expected_shards(sizes, plan.batch_size)
    return 1.0 if expected <= 1 else float((np.mean(met) - 1) / (expected - 1))


def _expected_shards(shard_samples: Ids, drawn: int) -> float:
    """The mean number of shards that ``drawn`` samples of the set, without replacement, come from."""
    total = int(shard_samples.sum())

    def log_ways(samples: int) -> float:
        """Of drawing from so many samples, up to a constant."""
        return math.lgamma(samples + 1) - math.lgamma(samples - drawn + 1)

    sizes, shards = np.unique(shard_samples, return_counts=True)
    missed = [
        math.exp(log_ways(total - size) - log_ways(total)) if total - size >= drawn else 0.0
        for size in sizes.tolist()
    ]
    return float(shards @ (1 - np.array(missed)))
