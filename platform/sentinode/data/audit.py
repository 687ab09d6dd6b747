"""The leak audit: what stands on both sides of a split, within a data set and between data sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sentinode.config import Frozen, Record
from sentinode.data.cache import ShardCache
from sentinode.data.columns import SplitColumns, read_columns
from sentinode.data.fingerprint import Floats, find_near_duplicates, frequencies
from sentinode.data.layout import UNLABELLED
from sentinode.data.manifest import Manifest, load_manifest
from sentinode.data.shard_set import ShardSet
from sentinode.errors import LeakError
from sentinode.schema import PATCH_PX, Split
from sentinode.storage import Store

Kind = Literal[
    "exact duplicate", "conflicting label", "slide on both sides", "patient on both sides", "near duplicate"
]

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
    manifest: Manifest
    store: Store
    columns: SplitColumns


def audit(
    manifest_urls: Sequence[str],
    *,
    near_duplicates: bool = True,
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Compare all splits of all data sets with each other.

    Exact duplicates and conflicting labels are found by key (SHA-1 of the pixels); slides and patients by
    name, within a data set only, since names of different data sets may meet by chance; near-duplicates by
    fingerprint over the eight symmetries. ``progress`` is called with the number of patches just
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
    report = audit([manifest_url], near_duplicates=False)
    if report.exact_leaks:
        worst = max(report.exact_leaks, key=lambda overlap: overlap.count)
        sides = f"{report.parts[worst.first].name} and {report.parts[worst.second].name}"
        raise LeakError(
            f"{worst.count} times {worst.kind}: {sides} share {', '.join(worst.examples[:3])}",
            "splits that share no patch, slide or patient",
            "ingest the data set again (duplicates are dropped then), or allow the leak explicitly",
        )


def _load(manifest_urls: Sequence[str]) -> Iterator[_Loaded]:
    number = 0
    for url in manifest_urls:
        manifest, store = load_manifest(url)
        cache = ShardCache(store)
        for split in sorted({shard.split for shard in manifest.shards}):
            columns = read_columns(manifest, store, split, cache)
            part = AuditedPart(
                number=number,
                manifest=url,
                dataset=manifest.dataset,
                split=split,
                samples=len(columns.keys),
                slides=len(set(columns.slides) - {None}),
                patients=len(set(columns.patients) - {None}),
            )
            yield _Loaded(part, manifest, store, columns)
            number += 1


def _by_key(loaded: Sequence[_Loaded]) -> Iterator[Overlap]:
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in loaded:
        for key, label in zip(one.columns.keys, one.columns.labels.tolist(), strict=True):
            places[key].append((one.part.number, label))
    repeated: dict[tuple[int, int], dict[str, None]] = defaultdict(dict)
    conflicting: dict[tuple[int, int], dict[str, None]] = defaultdict(dict)
    for key, found in places.items():
        for i, (second, label) in enumerate(found):
            for first, other in found[:i]:
                repeated[first, second][key] = None
                if UNLABELLED not in (label, other) and label != other:
                    conflicting[first, second][key] = None
    yield from _overlaps("exact duplicate", loaded, repeated)
    yield from _overlaps("conflicting label", loaded, conflicting)


def _by_group(loaded: Sequence[_Loaded]) -> Iterator[Overlap]:
    for kind, column in (("slide on both sides", "slides"), ("patient on both sides", "patients")):
        shared: dict[tuple[int, int], dict[str, None]] = {}
        names = [dict.fromkeys(n for n in getattr(one.columns, column) if n is not None) for one in loaded]
        for second, one in enumerate(loaded):
            for first, other in enumerate(loaded[:second]):
                if one.part.dataset == other.part.dataset and one.part.split is not other.part.split:
                    shared[first, second] = {n: None for n in names[first] if n in names[second]}
        yield from _overlaps(kind, loaded, shared)  # type: ignore[arg-type]


def _by_appearance(
    loaded: Sequence[_Loaded], progress: Callable[[int], None] | None
) -> tuple[list[Overlap], int]:
    keys = [key for one in loaded for key in one.columns.keys]
    part_of = np.repeat([one.part.number for one in loaded], [one.part.samples for one in loaded])
    pairs, blank = find_near_duplicates(np.concatenate([_spectra(one, progress) for one in loaded]))
    found: dict[tuple[int, int], dict[str, None]] = defaultdict(dict)
    for pair in pairs:
        if keys[pair.first] != keys[pair.second]:
            sides = int(part_of[pair.first]), int(part_of[pair.second])
            found[sides][f"{keys[pair.first]} ~ {keys[pair.second]} ({pair.correlation:.4f})"] = None
    return list(_overlaps("near duplicate", loaded, found)), blank


def _spectra(one: _Loaded, progress: Callable[[int], None] | None) -> Floats:
    records = one.manifest.of_split(one.part.split)
    shards = ShardSet(records, ShardCache(one.store), threads=_THREADS, mapped_bytes=0)
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


def _overlaps(
    kind: Kind, loaded: Sequence[_Loaded], found: dict[tuple[int, int], dict[str, None]]
) -> Iterator[Overlap]:
    for (first, second), names in sorted(found.items()):
        if names:
            leak = loaded[first].part.split is not loaded[second].part.split
            examples = tuple(list(names)[:_EXAMPLES])
            yield Overlap(
                kind=kind, first=first, second=second, count=len(names), examples=examples, leak=leak
            )
