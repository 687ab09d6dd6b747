"""Which split a patch belongs to: duplicates, conflicts and carving, as pure arithmetic over arrays.

N patches are columns: ``keys`` uint8 [N, 20] (SHA-1 of the pixels), ``labels`` int8 [N] (0, 1, -1
unlabelled), ``splits`` int8 [N] (place in SPLITS, -1 undecided). Nothing here depends on the order of the
patches but that the first of several copies is the one that stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sentinode.data.sources.base import UNKNOWN

Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unique:
    """What is left when every pixel content stands once. ``kept`` int64 [K] is in key order."""

    kept: Indices
    duplicates: int
    """Copies within a split."""
    cross_split_duplicates: int
    """Copies of a patch that stays in another split."""


def key_words(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """uint64 [3, N]: keys as numbers whose order is the keys' own (the last word holds four bytes)."""
    padded = np.zeros((len(keys), 24), np.uint8)
    padded[:, :20] = keys
    words: npt.NDArray[np.uint64] = np.ascontiguousarray(padded.view(">u8").T.astype(np.uint64))
    return words


def find_conflicts(keys: npt.NDArray[np.uint8], labels: Int8s, usable: Bools) -> Indices:
    """Indices of labelled patches whose pixels also carry the other label, in key order."""
    labelled = np.flatnonzero(usable & (labels != UNKNOWN))
    order, starts = _group(keys, labelled, np.zeros(len(keys), np.int8))
    if not len(order):
        return order
    found = labels[order]
    differs = np.minimum.reduceat(found, starts) != np.maximum.reduceat(found, starts)
    sizes = np.diff(np.append(starts, len(order)))
    return np.extract(np.repeat(differs, sizes), order)


def keep_unique(keys: npt.NDArray[np.uint8], splits: Int8s, usable: Bools) -> Unique:
    """Keep one patch of each pixel content: that of the split evaluated last (unlabelled, test, valid,
    train), and there the first."""
    order, starts = _group(keys, np.flatnonzero(usable), -splits)
    if not len(order):
        return Unique(order, 0, 0)
    kept = order[starts]
    sizes = np.diff(np.append(starts, len(order)))
    elsewhere = int((splits[order] != np.repeat(splits[kept], sizes)).sum())
    return Unique(kept, len(order) - len(kept) - elsewhere, elsewhere)


def _group(keys: npt.NDArray[np.uint8], among: Indices, rank: Int8s) -> tuple[Indices, Indices]:
    """``among`` sorted by key, then rank, then index; and where in it each new key starts."""
    if not len(among):
        empty = np.zeros(0, np.int64)
        return empty, empty
    words = key_words(keys[among])
    by_key = np.lexsort((rank[among], words[2], words[1], words[0]))
    words = words[:, by_key]
    new = np.ones(len(among), bool)
    new[1:] = (words[:, 1:] != words[:, :-1]).any(axis=0)
    return among[by_key], np.flatnonzero(new)
