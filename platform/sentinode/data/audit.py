"""The leak audit: what stands on both sides of a split, within a data set and between data sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sentinode.config import Frozen, Record
from sentinode.data.audit_keys import Ids, KeyTable, digests_of
from sentinode.data.cache import ShardCache
from sentinode.data.columns import columns_of_shards, read_keys
from sentinode.data.fingerprint import Floats, NearPair, find_near_duplicates, frequencies
from sentinode.data.manifest import ShardRecord, load_manifest
from sentinode.data.shard_set import ShardSet
from sentinode.data.sources.known import current_name
from sentinode.errors import LeakError
from sentinode.schema import PATCH_PX, Split

Kind = Literal[
    "exact duplicate", "conflicting label", "slide on both sides", "patient on both sides", "near duplicate"
]

Found = dict[tuple[int, int], tuple[int, tuple[str, ...]]]
"""Numbers of two parts -> how many overlaps, and some of them by name."""

_EXAMPLES = 10
_CHUNK_SAMPLES = 2048
_THREADS = 2


class AuditedPart(Frozen):
    """One split of one data set."""

    number: int
    """Place in ``AuditReport.parts``."""
    manifest: str
    """URL."""
    dataset: str
    split: Split
    samples: int
    slides: int
    """Distinct slides named; 0 where slides are unknown."""
    patients: int

    @property
    def name(self) -> str:
        """``dataset/split``."""
        return f"{self.dataset}/{self.split.value}"


class Overlap(Frozen):
    """What two parts have in common, or one part has twice."""

    kind: Kind
    first: int
    """Number of a part."""
    second: int
    """Number of a part; the same as ``first`` for repetitions within it."""
    count: int
    """Keys, slides, patients or pairs."""
    examples: tuple[str, ...]
    leak: bool
    """True where the parts are different splits: what is measured on one has been seen in the other."""


class AuditReport(Record):
    """Everything found, exactly and by appearance."""

    parts: tuple[AuditedPart, ...]
    overlaps: tuple[Overlap, ...]
    near_duplicates_searched: bool
    blank: int
    """Patches without structure, left out of the search for near-duplicates."""

    @property
    def exact_leaks(self) -> tuple[Overlap, ...]:
        """Leaks that are certain: keys, slides or patients on both sides."""
        return tuple(o for o in self.overlaps if o.leak and o.kind != "near duplicate")


@dataclass(frozen=True)
class _Loaded:
    part: AuditedPart
    records: Sequence[ShardRecord]
    cache: ShardCache
    keys: KeyTable
    slides: dict[str, None]
    """Distinct, in manifest order, by their current names: data sets name one slide in different ways."""
    patients: dict[str, None]

    def names(self, ids: Ids) -> tuple[int, tuple[str, ...]]:
        """How many samples, and the keys of the first few."""
        return len(ids), tuple(read_keys(self.records, self.cache, ids[:_EXAMPLES].tolist()))


def audit(
    manifest_urls: Sequence[str],
    *,
    near_duplicates: bool = True,
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Compare all splits of all data sets with each other.

    Exact duplicates and conflicting labels are found by key (SHA-1 of the pixels); slides and patients by
    name, within a data set only, since names of different data sets may meet by chance; near-duplicates by
    fingerprint over the eight symmetries. Keys take 26 bytes a patch, and the search for near-duplicates
    about 800 more; names count once. ``progress`` is called with the number of patches just
    fingerprinted. Raises StoreError or one of its kinds where a shard cannot be read.
    """
    loaded = list(_load(manifest_urls))
    overlaps = [*_by_key(loaded), *_by_group(loaded)]
    blank = 0
    if near_duplicates:
        near, blank = _by_appearance(loaded, progress)
        overlaps += near
    return AuditReport(
        parts=tuple(one.part for one in loaded),
        overlaps=tuple(overlaps),
        near_duplicates_searched=near_duplicates,
        blank=blank,
    )


def refuse_leaks(manifest_url: str) -> None:
    """Raises LeakError where a key, slide or patient of a data set stands in more than one of its splits."""
    check_leaks(audit([manifest_url], near_duplicates=False))


def check_leaks(report: AuditReport, remedy: str = "") -> None:
    """Raises LeakError where the report has a leak that is certain; ``remedy``: what to do, if not to ingest again."""
    if report.exact_leaks:
        worst = max(report.exact_leaks, key=lambda overlap: overlap.count)
        sides = f"{report.parts[worst.first].name} and {report.parts[worst.second].name}"
        raise LeakError(
            f"{worst.count} times {worst.kind}: {sides} share {', '.join(worst.examples[:3])}",
            "splits that share no patch, slide or patient",
            remedy
            or "ingest the data set again with --overwrite (duplicates are dropped then), or allow the leak explicitly",
        )


def _load(manifest_urls: Sequence[str]) -> Iterator[_Loaded]:
    number = 0
    for url in manifest_urls:
        manifest, store = load_manifest(url)
        cache = ShardCache(store)
        for split in sorted({shard.split for shard in manifest.shards}):
            records = manifest.of_split(split)
            digests, labels = [], []
            slides: dict[str, None] = {}
            patients: dict[str, None] = {}
            for columns in columns_of_shards(records, cache):
                digests.append(digests_of(columns.keys))
                labels.append(columns.labels)
                named = dict.fromkeys(name for name in columns.slides if name is not None)
                slides |= {current_name(name): None for name in named}
                patients |= dict.fromkeys(name for name in columns.patients if name is not None)
            keys = KeyTable.of(np.concatenate(digests), np.concatenate(labels))
            part = AuditedPart(
                number=number,
                manifest=url,
                dataset=manifest.dataset,
                split=split,
                samples=len(keys.digests_N),
                slides=len(slides),
                patients=len(patients),
            )
            yield _Loaded(part, records, cache, keys, slides, patients)
            number += 1


def _by_key(loaded: Sequence[_Loaded]) -> Iterator[Overlap]:
    repeated: Found = {}
    conflicting: Found = {}
    for second, one in enumerate(loaded):
        for first, other in enumerate(loaded[: second + 1]):
            same, conflict = one.keys.repeated() if other is one else other.keys.shared(one.keys)
            repeated[first, second] = other.names(same)
            conflicting[first, second] = other.names(conflict)
    yield from _overlaps("exact duplicate", loaded, repeated)
    yield from _overlaps("conflicting label", loaded, conflicting)


def _by_group(loaded: Sequence[_Loaded]) -> Iterator[Overlap]:
    kinds: tuple[tuple[Kind, str], ...] = (
        ("slide on both sides", "slides"),
        ("patient on both sides", "patients"),
    )
    for kind, column in kinds:
        shared: Found = {}
        for second, one in enumerate(loaded):
            for first, other in enumerate(loaded[:second]):
                if one.part.dataset == other.part.dataset and one.part.split is not other.part.split:
                    names = [n for n in getattr(other, column) if n in getattr(one, column)]
                    shared[first, second] = len(names), tuple(names[:_EXAMPLES])
        yield from _overlaps(kind, loaded, shared)


def _by_appearance(
    loaded: Sequence[_Loaded], progress: Callable[[int], None] | None
) -> tuple[list[Overlap], int]:
    digests = np.concatenate([one.keys.digests_N for one in loaded])
    ends = np.cumsum([one.part.samples for one in loaded])
    pairs, blank = find_near_duplicates(np.concatenate([_spectra(one, progress) for one in loaded]))
    found: dict[tuple[int, int], list[NearPair]] = defaultdict(list)
    for pair in pairs:
        if digests[pair.first] != digests[pair.second]:
            first, second = np.searchsorted(ends, (pair.first, pair.second), side="right").tolist()
            found[first, second].append(pair)
    named: Found = {}
    for (first, second), alike in found.items():
        shown = alike[:_EXAMPLES]
        keys = [
            loaded[side].names(np.array(ids) - ends[side] + loaded[side].part.samples)[1]
            for side, ids in ((first, [p.first for p in shown]), (second, [p.second for p in shown]))
        ]
        texts = [f"{a} ~ {b} ({p.correlation:.4f})" for a, b, p in zip(*keys, shown, strict=True)]
        named[first, second] = len(alike), tuple(texts)
    return list(_overlaps("near duplicate", loaded, named)), blank


def _spectra(one: _Loaded, progress: Callable[[int], None] | None) -> Floats:
    shards = ShardSet(one.records, one.cache, threads=_THREADS, mapped_bytes=0)
    result = np.empty((one.part.samples, 8, 8), dtype=np.float32)
    images = torch.empty((_CHUNK_SAMPLES, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8)
    labels = torch.empty(_CHUNK_SAMPLES, dtype=torch.int64)
    try:
        for start in range(0, one.part.samples, _CHUNK_SAMPLES):
            ids = np.arange(start, min(start + _CHUNK_SAMPLES, one.part.samples))
            shards.read(ids, images[: len(ids)], labels[: len(ids)])
            result[ids] = frequencies(images[: len(ids)].numpy())
            if progress is not None:
                progress(len(ids))
    finally:
        shards.close()
    return result


def _overlaps(kind: Kind, loaded: Sequence[_Loaded], found: Found) -> Iterator[Overlap]:
    for (first, second), (count, examples) in sorted(found.items()):
        if count:
            leak = loaded[first].part.split is not loaded[second].part.split
            yield Overlap(kind=kind, first=first, second=second, count=count, examples=examples, leak=leak)
