"""Places of slides of which data sets say different things, such as a tumour that was missed and then drawn.

Pixels do not tell: the grids of two samplings lie differently, so no patch is equal to another. The label of a patch
speaks of its central square: tumour if any pixel of it is. So two squares that share an area may both be right, the
negative one with the healthy part of the other; the more they share, the less likely that is. Where the middle of one
lies in the other, the earlier label is given up. It may have been right, and a wrong one that shares less stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_descriptions
from sentinode.data.manifest import Manifest
from sentinode.data.places import find_place
from sentinode.data.sources.known import current_name
from sentinode.schema import CENTRE_PX, PATCH_PX
from sentinode.storage import Store

_REACH_PX: Final = CENTRE_PX / 2


class _Labelled(NamedTuple):
    shard: str
    row: int
    label: int
    x: float
    """Centre, in pixels of patches: the same at any resolution of the slide."""
    y: float


def find_contradicted(loaded: Sequence[tuple[Manifest, Store]]) -> dict[str, list[int]]:
    """The rows to leave out of shards, by shard: those that a later data set may contradict, see above.

    Slides are told by their names, under any of which they go. Raises StoreError.
    """
    found = [_by_slide(manifest, store) for manifest, store in loaded]
    rows: dict[str, list[int]] = defaultdict(list)
    for slide in {slide for one in found for slide in one}:
        standing: dict[tuple[int, int, int], list[_Labelled]] = defaultdict(list)
        for here in reversed([one[slide] for one in found if slide in one]):
            doubtful = {one for one in here if _is_contradicted(one, standing)}
            for one in here:
                if one in doubtful:
                    rows[one.shard].append(one.row)
                else:
                    standing[one.label, *_bin(one)].append(one)
    return {shard: sorted(some) for shard, some in rows.items()}


def _is_contradicted(one: _Labelled, standing: Mapping[tuple[int, int, int], Iterable[_Labelled]]) -> bool:
    column, row = _bin(one)
    return any(
        abs(one.x - other.x) < _REACH_PX and abs(one.y - other.y) < _REACH_PX
        for dx, dy in product((-1, 0, 1), repeat=2)
        for other in standing.get((1 - one.label, column + dx, row + dy), ())
    )


def _bin(one: _Labelled) -> tuple[int, int]:
    return int(one.x // CENTRE_PX), int(one.y // CENTRE_PX)


def _by_slide(manifest: Manifest, store: Store) -> dict[str, list[_Labelled]]:
    places: dict[str, list[_Labelled]] = defaultdict(list)
    cache = ShardCache(store)
    for shard in manifest.shards:
        labels, descriptions = read_descriptions(shard, cache)
        for row, (label, told) in enumerate(zip(labels.tolist(), descriptions, strict=True)):
            slide, place = told.get("slide"), find_place(told.get("source") or "")
            if slide is None or place is None or label not in (0, 1):
                continue
            x, y = ((at / place.side_px + 0.5) * PATCH_PX for at in place.corner)
            places[current_name(slide)].append(_Labelled(shard.name, row, label, x, y))
    return dict(places)
