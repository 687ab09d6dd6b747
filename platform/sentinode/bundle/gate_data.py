"""May two bundles be compared on a validation split? Not where the training of either has seen any of it.

Patches are known by key, the SHA-1 of their pixels: copies that were encoded anew, and shards of others whose keys are
names, are not found. Slides and patients are compared within a data set only, since names of different data sets may
meet by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sentinode.bundle.gate_facts import DataFacts, Seen
from sentinode.data.audit_keys import digests_of
from sentinode.data.cache import ShardCache
from sentinode.data.columns import SplitColumns, columns_of_shards, read_columns
from sentinode.data.manifest import Manifest
from sentinode.schema import Split
from sentinode.storage import Store

_EXAMPLES: Final = 3


@dataclass(frozen=True)
class DataSet:
    """A data set and where its shards are."""

    manifest: Manifest
    store: Store


def data_facts(candidate: DataSet, current: DataSet | str | None) -> DataFacts:
    """What both trainings have seen of the candidate's validation split.

    ``current`` is the data set of the present bundle, the reason for which it is not known, or None where there is no
    present bundle. Raises StoreError or one of its kinds where a shard cannot be read.
    """
    valid = _columns(candidate, Split.VALID)
    facts = DataFacts(patches=len(valid.keys), candidate=_seen(valid, candidate, candidate))
    if current is None:
        return facts
    if isinstance(current, str):
        return facts.model_copy(update={"unknown": current})
    if current.manifest.digest() == candidate.manifest.digest():
        return facts.model_copy(update={"current": facts.candidate, "same_validation": True})
    same = sorted(_columns(current, Split.VALID).keys) == sorted(valid.keys)
    return facts.model_copy(
        update={"current": _seen(valid, candidate, current), "same_validation": same},
    )


def _columns(data: DataSet, split: Split) -> SplitColumns:
    return read_columns(data.manifest, data.store, split)


def _seen(valid: SplitColumns, of: DataSet, trained_on: DataSet) -> Seen:
    """What of ``valid``, the validation split ``of`` a data set, stands in the training split of ``trained_on``."""
    digests_N = digests_of(valid.keys)
    seen_N = np.zeros(len(valid.keys), bool)
    slides, patients = set[str | None](), set[str | None]()
    manifest = trained_on.manifest
    # One shard after the other: of the training split only names of slides and patients stay in memory.
    for part in columns_of_shards(manifest.of_split(Split.TRAIN), ShardCache(trained_on.store)):
        seen_N |= np.isin(digests_N, digests_of(part.keys))
        slides |= set(part.slides)
        patients |= set(part.patients)
    if manifest.dataset != of.manifest.dataset:
        slides, patients = set(), set()
    return Seen(
        dataset=manifest.dataset,
        manifest_digest=manifest.digest(),
        patches=int(seen_N.sum()),
        examples=tuple(valid.keys[at] for at in np.flatnonzero(seen_N)[:_EXAMPLES].tolist()),
        slides=len((slides & set(valid.slides)) - {None}),
        patients=len((patients & set(valid.patients)) - {None}),
    )
