"""Second pass: read the patches of one shard again, check that they are still the same, and lay out its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sentinode.config import canonical_json
from sentinode.data.manifest import ShardRecord
from sentinode.data.scan import key_of
from sentinode.data.shards import Buffer, ShardSample, build_shard
from sentinode.data.sources.base import BadImage, Source, SourceItem
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


def make_shard(source: Source, plan: ShardPlan) -> tuple[Buffer, ShardRecord]:
    """Read the plan's patches and build its shard.

    Raises SourceError where a patch is not what the first pass saw: the source is being changed.
    """
    place = {item.index: i for i, item in enumerate(plan.items)}
    pixels_NHWC = np.zeros((len(plan.items), PATCH_PX, PATCH_PX, 3), np.uint8)
    for item, pixels in source.read(plan.items):
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


def describe(item: SourceItem) -> bytes:
    """The JSON member: where the patch comes from; null where that is not known."""
    return canonical_json(
        {"slide": item.slide, "centre": item.centre, "patient": item.patient, "source": item.ref}
    )
