"""Second pass: read the patches of one shard again, check that they are the same, and lay out its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sentinode.config import canonical_json
from sentinode.data.ingest.scan import CHUNK_PATCHES, key_of
from sentinode.data.manifest import ShardRecord
from sentinode.data.shards import Buffer, ShardSample, build_shard
from sentinode.data.sources.base import BadImage, Pixels, Source, SourceItem
from sentinode.errors import SourceError
from sentinode.schema import PATCH_PX, Encoding, Split


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be made: ``items[i]`` has the pixels whose SHA-1 is ``keys[i]`` (40 hex digits)."""

    name: str
    split: Split
    encoding: Encoding
    items: Sequence[SourceItem]
    keys: Sequence[str]


Blocks = Mapping[int, npt.NDArray[np.uint8]]
"""Pixels that are still in memory: number of a scan chunk to uint8 [patches of the chunk, 96, 96, 3]."""


def make_shard(source: Source, plan: ShardPlan, remembered: Blocks) -> tuple[Buffer, ShardRecord]:
    """Read the plan's patches, or take them from what is ``remembered`` of the scan, and build the shard.

    Raises SourceError where a patch is not what the first pass saw: the source is being changed.
    """
    place = {item.index: i for i, item in enumerate(plan.items)}
    pixels_NHWC = np.zeros((len(plan.items), PATCH_PX, PATCH_PX, 3), np.uint8)
    for item, pixels in _read(source, plan.items, remembered):
        i = place.pop(item.index)
        if isinstance(pixels, BadImage) or key_of(pixels) != plan.keys[i]:
            raise SourceError(
                f"{item.ref} has changed since it was scanned",
                "a source that stays as it is during ingest",
                "wait until nothing writes there, then run again",
            )
        pixels_NHWC[i] = pixels
    if place:
        raise SourceError(f"{len(place)} patches of {plan.name} could not be read again", "all of them")
    samples = [
        ShardSample(key, item.label, describe(item)) for key, item in zip(plan.keys, plan.items, strict=True)
    ]
    return build_shard(plan.name, plan.split, plan.encoding, samples, pixels_NHWC)


def _read(
    source: Source, items: Sequence[SourceItem], remembered: Blocks
) -> Iterator[tuple[SourceItem, Pixels | BadImage]]:
    elsewhere = []
    for item in items:
        block = remembered.get(item.index // CHUNK_PATCHES)
        if block is None:
            elsewhere.append(item)
        else:
            yield item, block[item.index % CHUNK_PATCHES]
    yield from source.read(elsewhere)


def describe(item: SourceItem) -> bytes:
    """The JSON member: where the patch comes from; null where that is not known."""
    return canonical_json(
        {"slide": item.slide, "centre": item.centre, "patient": item.patient, "source": item.ref}
    )
