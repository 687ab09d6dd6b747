"""The keys of a split, kept and compared in 26 bytes a patch: sorted arrays, whatever the length of a key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DIGEST_BYTES = 16
"""Of a key: 10**8 patches hold two keys of one digest with a chance of 10**-23."""

Digests = npt.NDArray[np.bytes_]
Ids = npt.NDArray[np.int64]


def digests_of(keys: Iterable[str]) -> Digests:
    """S16 [keys]: a digest of each key."""
    joined = b"".join(hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest() for key in keys)
    return np.frombuffer(joined, dtype=f"S{DIGEST_BYTES}")


@dataclass(frozen=True)
class KeyTable:
    """The distinct keys of a split, sorted by digest, and what their patches are labelled."""

    digests_N: Digests
    """Of all samples, in manifest order."""
    first_K: Ids
    """The first sample of each distinct key, in the order of the digests."""
    repeated_K: npt.NDArray[np.bool_]
    """True where more than one sample has the key."""
    labels_K: npt.NDArray[np.uint8]
    """Bit 0: one of them is negative; bit 1: one is tumour."""

    @classmethod
    def of(cls, digests_N: Digests, labels_N: npt.NDArray[np.int8]) -> KeyTable:
        order = np.argsort(digests_N, kind="stable")
        ordered = digests_N[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        bits = np.where(labels_N < 0, 0, labels_N + 1).astype(np.uint8)[order]
        counts = np.diff(starts, append=len(ordered))
        return cls(digests_N, order[starts], counts > 1, np.bitwise_or.reduceat(bits, starts))

    def repeated(self) -> tuple[Ids, Ids]:
        """The first samples of keys that come more than once, and of those whose labels conflict."""
        conflict = self.labels_K == 3
        return np.sort(self.first_K[self.repeated_K]), np.sort(self.first_K[conflict])

    def shared(self, other: KeyTable) -> tuple[Ids, Ids]:
        """The first samples here of keys that ``other`` holds too, and of those whose labels conflict."""
        theirs, mine = other.digests_N[other.first_K], self.digests_N[self.first_K]
        place = np.minimum(np.searchsorted(theirs, mine), len(theirs) - 1)
        common = np.flatnonzero(theirs[place] == mine)
        here, there = self.labels_K[common], other.labels_K[place[common]]
        conflict = ((here & 1) & (there >> 1)) | ((here >> 1) & (there & 1))
        first = self.first_K[common]
        return np.sort(first), np.sort(first[conflict == 1])
