"""Patches that several data sets hold, such as those that each of two took from the same slides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sentinode.data.cache import ShardCache
from sentinode.data.columns import columns_of_shards
from sentinode.data.manifest import Manifest
from sentinode.schema import Split
from sentinode.storage import Store


def find_repeated(
    loaded: Sequence[tuple[Manifest, Store]], left_out: Mapping[str, Iterable[int]]
) -> dict[str, list[int]]:
    """The rows to leave out of shards, by shard: what an earlier data set holds in the same split with the same label.

    What stands in another split, or with another label, is no mere repetition and is not among them. ``left_out``: rows
    that are not taken anyway. A patch takes some 150 bytes of memory. Raises StoreError.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    seen: dict[tuple[Split, int], set[str]] = defaultdict(set)
    for manifest, store in loaded:
        fresh: dict[tuple[Split, int], set[str]] = defaultdict(set)
        parts = columns_of_shards(manifest.shards, ShardCache(store))
        for shard, part in zip(manifest.shards, parts, strict=True):
            gone = set(left_out.get(shard.name, ()))
            for row, (key, label) in enumerate(zip(part.keys, part.labels.tolist(), strict=True)):
                if row in gone:
                    continue
                if key in seen[shard.split, label]:
                    rows[shard.name].append(row)
                else:
                    fresh[shard.split, label].add(key)
        for place, keys in fresh.items():
            seen[place] |= keys
    return dict(rows)
