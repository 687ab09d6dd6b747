"""Between the two passes: from all keys to splits, counts and shards. Arithmetic only; no patch is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from sentinode.data.ingest.assign import Assignment, assign_splits
from sentinode.data.ingest.build import ShardPlan
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.scan import CHUNK_PATCHES, KEY_BYTES, ScanRecord
from sentinode.data.ingest.split import Int8s, find_conflicts, keep_unique
from sentinode.data.manifest import Dropped, Manifest, ShardRecord, SplitSummary
from sentinode.data.sources.base import SPLITS, UNKNOWN, Listing
from sentinode.errors import BadImagesError, LabelConflictError, SourceError
from sentinode.schema import Encoding, Split

BAD_SHOWN: Final = 50
CONFLICTS_SHOWN: Final = 20
FLAGGED_SHOWN: Final = 1000
"""Flags that a manifest names one by one; more are counted."""


@dataclass(frozen=True)
class Scan:
    """The scan of a whole source: ``keys`` uint8 [N, 20], ``labels`` int8 [N], and what was noted of
    patches."""

    keys: npt.NDArray[np.uint8]
    labels: Int8s
    bad: dict[int, str]
    flagged: dict[int, str]
    broken_promises: int

    @classmethod
    def join(cls, listing: Listing, chunks: Sequence[ScanRecord]) -> Scan:
        """Put the chunks' records, in order, together with what the listing knew already."""
        keys = np.concatenate([chunk.keys() for chunk in chunks] or [np.zeros((0, KEY_BYTES), np.uint8)])
        labels = listing.labels.copy()
        bad = dict(listing.bad)
        flagged: dict[int, str] = {}
        for number, chunk in enumerate(chunks):
            first = number * CHUNK_PATCHES
            for i, label in chunk.labels.items():
                labels[first + i] = label
            bad |= {first + i: reason for i, reason in chunk.bad.items() if first + i not in listing.bad}
            flagged |= {first + i: "its id is not the SHA-1 of its pixels" for i in chunk.broken_promises}
            flagged |= {first + i: what for i, what in chunk.flagged.items()}
        return cls(keys, labels, bad, flagged, sum(len(chunk.broken_promises) for chunk in chunks))


class ShardCut(NamedTuple):
    """A shard's place in the data set: which positions of its split's order it holds."""

    name: str
    split: Split
    positions: slice


@dataclass(frozen=True)
class Assembly:
    """The data set as it will be, but for its shards' bytes. ``version`` is 64 hex digits."""

    listing: Listing
    scan: Scan
    assignment: Assignment
    dropped: Dropped
    version: str

    @property
    def samples(self) -> int:
        """Number of patches in all splits."""
        return sum(len(order) for order in self.assignment.order.values())

    def cuts(self, config: IngestConfig) -> list[ShardCut]:
        """Every shard to be made, in manifest order."""
        size = config.shard_samples
        stem = f"shards/{config.dataset_name()}-{self.version[:8]}"
        return [
            ShardCut(f"{stem}-{split}-{number:06d}.tar", split, slice(start, start + size))
            for split, order in self.assignment.order.items()
            for number, start in enumerate(range(0, len(order), size))
        ]

    def plan(self, cut: ShardCut, encoding: Encoding) -> ShardPlan:
        """A shard's patches with their labels and keys."""
        indices = self.assignment.order[cut.split][cut.positions]
        items = self.listing.items(indices.tolist(), self.scan.labels)
        keys = [self.scan.keys[i].tobytes().hex() for i in indices]
        return ShardPlan(cut.name, cut.split, encoding, items, keys)

    def manifest(self, config: IngestConfig, kind: str, shards: Sequence[ShardRecord]) -> Manifest:
        """The manifest over finished shards."""
        flagged = self._flagged()
        return Manifest(
            dataset=config.dataset_name(),
            source=kind,
            slides_known=self.assignment.slides_known,
            split_seed=config.split_seed,
            splits={split: self._summary(split) for split in self.assignment.order},
            dropped=self.dropped,
            flagged=dict(sorted(flagged.items())[:FLAGGED_SHOWN]),
            warnings=self.warnings(),
            recipe_digest=config.recipe_digest(self.listing.digest()),
            shards=tuple(shards),
        )

    def _summary(self, split: Split) -> SplitSummary:
        order = self.assignment.order[split]
        labels, slides = self.scan.labels[order], self.listing.slides.codes[order]
        return SplitSummary(
            samples=len(order),
            class_counts=(int((labels == 0).sum()), int((labels == 1).sum())),
            slides=None if (slides == UNKNOWN).any() else len(np.unique(slides)),
            origin=self.assignment.origin[split],
        )

    def _flagged(self) -> dict[str, str]:
        """Key to what is odd, of the patches that are kept."""
        kept = {
            i
            for order in self.assignment.order.values()
            for i in order[np.isin(order, list(self.scan.flagged))]
        }
        return {self.scan.keys[i].tobytes().hex(): self.scan.flagged[i] for i in kept}

    def warnings(self) -> tuple[str, ...]:
        """What a user should know, in plain sentences."""
        noted = [*self.listing.warnings, *self.assignment.warnings]
        if self.scan.broken_promises:
            noted.append(f"{self.scan.broken_promises} ids are not the SHA-1 of their pixels")
        flagged = len(self.scan.flagged)
        if flagged > FLAGGED_SHOWN:
            noted.append(f"{flagged} patches are odd, of which {FLAGGED_SHOWN} are named")
        return tuple(noted)


def assemble(config: IngestConfig, listing: Listing, scan: Scan) -> Assembly:
    """Decide what is taken and into which split.

    Raises BadImagesError, LabelConflictError or LeakError where the data set is not fit to be taken as it is,
    ConfigError where a split cannot be carved, SourceError where nothing is left.
    """
    usable = np.ones(len(listing), bool)
    usable[list(scan.bad)] = False
    _check_bad(config, listing, scan)
    conflicting = find_conflicts(scan.keys, scan.labels, usable)
    if len(conflicting) and config.on_conflict == "error":
        raise _conflict_error(listing, scan, conflicting)
    usable[conflicting] = False

    splits = listing.splits.copy()
    if not config.use_source_splits:
        splits[scan.labels != UNKNOWN] = UNKNOWN
    unique = keep_unique(scan.keys, splits, usable)
    if not len(unique.kept):
        raise SourceError(f"none of {len(listing)} patches can be taken", "a source with patches")
    assignment = assign_splits(config, listing, scan.keys, scan.labels, splits, unique.kept)
    dropped = Dropped(
        duplicates=unique.duplicates,
        cross_split_duplicates=unique.cross_split_duplicates,
        conflicting=len(conflicting),
        bad=len(scan.bad),
    )
    return Assembly(listing, scan, assignment, dropped, _version(config, listing, scan, assignment))


def _version(config: IngestConfig, listing: Listing, scan: Scan, assignment: Assignment) -> str:
    """SHA-256 of all that shapes the shards' bytes."""
    total = hashlib.sha256(config.recipe_digest(listing.digest()).encode())
    for split, order in assignment.order.items():
        total.update(bytes([SPLITS.index(split)]) + scan.keys[order].tobytes() + scan.labels[order].tobytes())
        total.update(order.astype("<i8").tobytes())
    return total.hexdigest()


def _check_bad(config: IngestConfig, listing: Listing, scan: Scan) -> None:
    if len(scan.bad) <= config.max_bad:
        return
    listed = sorted((listing.refs[i], reason) for i, reason in scan.bad.items())
    lines = [f"\n    {ref}: {reason}" for ref, reason in listed[:BAD_SHOWN]]
    if len(listed) > BAD_SHOWN:
        lines.append(f"\n    and {len(listed) - BAD_SHOWN} more")
    raise BadImagesError(
        f"{len(listed)} images cannot be taken:{''.join(lines)}",
        f"at most {config.max_bad} (--max-bad)",
        f"mend or remove them, or leave them out with --max-bad {len(listed)}",
    )


def _conflict_error(listing: Listing, scan: Scan, conflicting: npt.NDArray[np.int64]) -> LabelConflictError:
    groups: dict[bytes, list[str]] = {}
    for i in conflicting.tolist():
        named = groups.setdefault(scan.keys[i].tobytes(), [])
        named.append(f"{listing.refs[i]} is {scan.labels[i]}")
    lines = [
        f"\n    {key.hex()}: {', '.join(named)}" for key, named in list(groups.items())[:CONFLICTS_SHOWN]
    ]
    if len(groups) > CONFLICTS_SHOWN:
        lines.append(f"\n    and {len(groups) - CONFLICTS_SHOWN} more")
    return LabelConflictError(
        f"{len(groups)} patches carry two labels:{''.join(lines)}",
        "one label for the same pixels",
        "correct the labels, or leave these patches out with --on-conflict drop",
    )
