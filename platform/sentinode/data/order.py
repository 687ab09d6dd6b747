"""Orders of an epoch: functions from a position in the epoch to a sample id, computed only where asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sentinode.data.permutation import key_of, mix, permute, permute_many
from sentinode.errors import ConfigError

Ids = npt.NDArray[np.int64]


class Order(Protocol):
    """A sequence of ``length`` sample ids."""

    @property
    def length(self) -> int: ...

    def ids(self, positions: Ids) -> Ids:
        """The sample ids at ``positions`` (each in [0, length)); same shape."""
        ...


@dataclass(frozen=True)
class SequentialOrder:
    """Manifest order."""

    length: int

    def ids(self, positions: Ids) -> Ids:
        return positions


@dataclass(frozen=True)
class FullOrder:
    """Every sample once, anywhere."""

    length: int
    key: int

    def ids(self, positions: Ids) -> Ids:
        return permute(positions, self.length, self.key)


@dataclass(frozen=True)
class BlockOrder:
    """Every sample once: shards in random order, laid end to end, cut into lanes and these into blocks.

    Samples are shuffled within their block. Position p belongs to lane ``p % lanes``, so all lanes are read
    at one pace, each holding one block (and the shards that overlap it) at a time.
    """

    lanes: int
    block_samples: int
    """Of one lane."""
    key: int
    shuffled_ends: Ids
    """[shards] Where each shard ends in the row of shuffled shards."""
    shuffled_starts_id: Ids
    """[shards] Id of the first sample of each shard, in shuffled order."""

    @classmethod
    def of(cls, shard_samples: Ids, block_samples: int, lanes: int, key: int) -> BlockOrder:
        shards = len(shard_samples)
        shuffled = permute(np.arange(shards, dtype=np.int64), shards, key_of("shards", key))
        starts_id = np.cumsum(shard_samples) - shard_samples
        return cls(lanes, block_samples, key, np.cumsum(shard_samples[shuffled]), starts_id[shuffled])

    @property
    def length(self) -> int:
        return int(self.shuffled_ends[-1])

    def ids(self, positions: Ids) -> Ids:
        lane, within_lane = positions % self.lanes, positions // self.lanes
        shortest, longer = divmod(self.length, self.lanes)
        lane_start = lane * shortest + np.minimum(lane, longer)
        lane_length = shortest + (lane < longer)
        block = within_lane // self.block_samples
        block_start = block * self.block_samples
        block_length = np.minimum(self.block_samples, lane_length - block_start)
        with np.errstate(over="ignore"):
            keys = mix(np.uint64(self.key) + mix((lane << np.int64(40) | block).astype(np.uint64)))
        within_block = permute_many(within_lane - block_start, block_length, keys)
        return self._locate(lane_start + block_start + within_block)

    def _locate(self, places: Ids) -> Ids:
        """Places in the row of shuffled shards -> sample ids."""
        shard = np.searchsorted(self.shuffled_ends, places, side="right")
        before = np.concatenate(([0], self.shuffled_ends[:-1]))
        return self.shuffled_starts_id[shard] + places - before[shard]


@dataclass(frozen=True)
class BalancedOrder:
    """Classes alternate. The larger class comes exactly once, the smaller one as often, repeated evenly:
    each of its samples comes floor or ceil of the ratio of sizes times, every pass in a new order.
    """

    ids_of_class: tuple[Ids, Ids]
    key: int

    @classmethod
    def of(cls, labels: npt.NDArray[np.int8], key: int) -> BalancedOrder:
        """``labels`` int8 [samples]. Raises ConfigError where a class is missing or a sample unlabelled."""
        counts = [int((labels == c).sum()) for c in (0, 1)]
        if min(counts) == 0 or sum(counts) != labels.size:
            raise ConfigError(
                f"{counts[0]} negative and {counts[1]} tumour samples of {labels.size}",
                "samples of both classes, all labelled, for class-balanced sampling",
                "turn balanced off",
            )
        negative, tumour = (np.flatnonzero(labels == c).astype(np.int64) for c in (0, 1))
        return cls((negative, tumour), key)

    @property
    def length(self) -> int:
        return 2 * max(len(ids) for ids in self.ids_of_class)

    def ids(self, positions: Ids) -> Ids:
        result = np.empty_like(positions)
        for label, members in enumerate(self.ids_of_class):
            here = positions % 2 == label
            turn, place = np.divmod(positions[here] // 2, len(members))
            with np.errstate(over="ignore"):
                keys = mix(np.uint64(key_of(label, self.key)) + turn.astype(np.uint64))
            result[here] = members[permute_many(place, np.int64(len(members)), keys)]
        return result
