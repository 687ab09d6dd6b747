"""A pseudo-random permutation of 0..n-1 that is computed element by element, without ever holding it.

An alternating Feistel network over Z_a x Z_b with a*b just above n, and cycle walking for the few values
that fall outside (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). It is integer
arithmetic only, so the order is the same on every machine and with every numpy.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]

_ROUNDS = 8
_HALF = np.uint64(32)


def key_of(*parts: object) -> int:
    """A 64-bit key from anything with a stable ``str``."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def mix(values: UInt64s) -> UInt64s:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64-bit words."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(index: npt.NDArray[np.int64], n: int, key: int) -> npt.NDArray[np.int64]:
    """Where the permutation named by ``key`` sends each of ``index`` (all in [0, n)); any shape.

    One ``key`` is one permutation: distinct indices give distinct results.
    """
    return permute_many(index, np.int64(n), np.uint64(key))


def permute_many(
    index: npt.NDArray[np.int64], n: npt.NDArray[np.int64] | np.int64, key: UInt64s | np.uint64
) -> npt.NDArray[np.int64]:
    """As ``permute``, with a size and key of its own for each element where ``n`` and ``key`` are arrays."""
    sizes = np.asarray(n, dtype=np.uint64)
    keys = np.asarray(key, dtype=np.uint64)
    rows = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.uint64)
    columns = (sizes + rows - np.uint64(1)) // rows
    result = _feistel(index.astype(np.uint64), rows, columns, keys)
    outside = np.nonzero(result >= sizes)
    while outside[0].size:
        part = [np.broadcast_to(a, result.shape)[outside] for a in (rows, columns, keys, sizes)]
        walked = _feistel(result[outside], *part[:3])
        result[outside] = walked
        still = walked >= part[3]
        outside = tuple(axis[still] for axis in outside)
    return result.astype(np.int64)


def _feistel(value: UInt64s, rows: UInt64s, columns: UInt64s, keys: UInt64s) -> UInt64s:
    left, right = value // columns, value % columns
    with np.errstate(over="ignore"):
        for number in range(_ROUNDS):
            round_key = mix(keys + np.uint64((number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF))
            if number % 2 == 0:
                left = _shift(left, right, rows, round_key)
            else:
                right = _shift(right, left, columns, round_key)
    return left * columns + right


def _shift(half: UInt64s, other: UInt64s, modulus: UInt64s, round_key: UInt64s) -> UInt64s:
    """``half`` plus a hash of ``other``, modulo ``modulus`` (below 2**32): undone by subtracting the same."""
    amount = ((mix(other ^ round_key) >> _HALF) * modulus) >> _HALF
    total = half + amount
    return np.where(total >= modulus, total - modulus, total)
