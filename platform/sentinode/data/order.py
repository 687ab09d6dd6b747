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
class _Blocks:
    """0..length-1, cut into lanes and these into blocks, and shuffled within each block.

    Position p belongs to lane ``p % lanes``, so all lanes are read at one pace.
    """

    length: int
    lanes: int
    block: int
    """Length of a block, of one lane."""
    key: int

    def places(self, positions: Ids) -> Ids:
        lane, within_lane = positions % self.lanes, positions // self.lanes
        shortest, longer = divmod(self.length, self.lanes)
        lane_start = lane * shortest + np.minimum(lane, longer)
        lane_length = shortest + (lane < longer)
        block = within_lane // self.block
        block_start = block * self.block
        block_length = np.minimum(self.block, lane_length - block_start)
        with np.errstate(over="ignore"):
            keys = mix(np.uint64(self.key) + mix((lane << np.int64(40) | block).astype(np.uint64)))
        return lane_start + block_start + permute_many(within_lane - block_start, block_length, keys)


@dataclass(frozen=True)
class _ShuffledShards:
    """Shards in random order, laid end to end."""

    ends: Ids
    """[shards] Where each shard ends in this row."""
    starts_id: Ids
    """[shards] Id of the first sample of each shard, in shuffled order."""

    @classmethod
    def of(cls, shard_samples: Ids, key: int) -> _ShuffledShards:
        """One ``key`` is one order of the shards, whatever their sizes."""
        shards = len(shard_samples)
        shuffled = permute(np.arange(shards, dtype=np.int64), shards, key_of("shards", key))
        starts_id = np.cumsum(shard_samples) - shard_samples
        return cls(np.cumsum(shard_samples[shuffled]), starts_id[shuffled])

    @property
    def length(self) -> int:
        return int(self.ends[-1])

    def ids(self, places: Ids) -> Ids:
        shard = np.searchsorted(self.ends, places, side="right")
        before = np.concatenate(([0], self.ends[:-1]))
        return self.starts_id[shard] + places - before[shard]


@dataclass(frozen=True)
class BlockOrder:
    """Every sample once: shards in random order, samples shuffled within blocks of their row.

    Each lane holds one block (and the shards that overlap it) at a time.
    """

    row: _ShuffledShards
    blocks: _Blocks

    @classmethod
    def of(cls, shard_samples: Ids, block_samples: int, lanes: int, key: int) -> BlockOrder:
        """``block_samples``: of one lane."""
        row = _ShuffledShards.of(shard_samples, key)
        return cls(row, _Blocks(row.length, lanes, block_samples, key))

    @property
    def length(self) -> int:
        return self.row.length

    def ids(self, positions: Ids) -> Ids:
        return self.row.ids(self.blocks.places(positions))


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
        return cls(_ids_of_classes(labels), key)

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


@dataclass(frozen=True)
class BalancedBlockOrder:
    """``BalancedOrder`` within blocks: pairs of both classes, from (nearly) the same shards.

    The members of each class stand in one row, both rows in the same order of shards. Pair q of L takes
    member ``q * n // L`` of a class of n: the larger class once, the smaller one floor or ceil of L / n
    times. Pairs are shuffled within blocks, each class by itself. Where shards mix the classes alike, as
    ingest makes them, both members of a block come from the same shards.
    """

    ids_of_class: tuple[Ids, Ids]
    rows: tuple[_ShuffledShards, _ShuffledShards]
    """Of places in ``ids_of_class``."""
    blocks: tuple[_Blocks, _Blocks]
    """Of pairs."""

    @classmethod
    def of(
        cls, shard_samples: Ids, labels: npt.NDArray[np.int8], block_samples: int, lanes: int, key: int
    ) -> BalancedBlockOrder:
        """``block_samples``: of one lane, both classes together. Raises as ``BalancedOrder.of``."""
        members = _ids_of_classes(labels)
        pairs = max(len(ids) for ids in members)
        ends = np.cumsum(shard_samples)
        sizes = (np.diff(np.searchsorted(ids, ends), prepend=0) for ids in members)
        negative, tumour = (_ShuffledShards.of(size, key) for size in sizes)
        blocks = (_Blocks(pairs, lanes, block_samples // 2, key_of(label, key)) for label in (0, 1))
        return cls(members, (negative, tumour), (next(blocks), next(blocks)))

    @property
    def length(self) -> int:
        return 2 * self.blocks[0].length

    def ids(self, positions: Ids) -> Ids:
        result = np.empty_like(positions)
        for label, members in enumerate(self.ids_of_class):
            here = positions % 2 == label
            pair = self.blocks[label].places(positions[here] // 2)
            result[here] = members[self.rows[label].ids(pair * len(members) // self.blocks[label].length)]
        return result


def _ids_of_classes(labels: npt.NDArray[np.int8]) -> tuple[Ids, Ids]:
    """The ids of negative and of tumour samples. ConfigError where a class is missing or a sample
    unlabelled.
    """
    negative, tumour = (np.flatnonzero(labels == c).astype(np.int64, copy=False) for c in (0, 1))
    if not (len(negative) and len(tumour)) or len(negative) + len(tumour) != labels.size:
        raise ConfigError(
            f"{len(negative)} negative and {len(tumour)} tumour samples of {labels.size}",
            "samples of both classes, all labelled, for class-balanced sampling",
            "turn balanced off",
        )
    return negative, tumour
