"""Random numbers that depend on (seed, epoch, sample) alone: not on batch cuts, ranks, devices or torch's
generators.

A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with the
finaliser of splitmix64 as its hash, in 64-bit integer arithmetic, which every device computes alike.
"""

from __future__ import annotations

import torch

from sentinode.data.permutation import key_of

_GOLDEN = 0x9E3779B97F4A7C15
_BITS = 24
"""Kept of each hash: what a float32 holds exactly."""


def uniform(sample_ids_B: torch.Tensor, draws: int, *parts: object) -> torch.Tensor:
    """float32 [B, draws], uniform on [0, 1), on the device of ``sample_ids_B`` (int64).

    ``parts`` name the stream, e.g. ("augment", seed, epoch): other parts give independent numbers.
    """
    counters = torch.arange(1, draws + 1, device=sample_ids_B.device) * _signed(_GOLDEN)
    hashed = _mix(_mix(sample_ids_B + _signed(key_of(*parts)))[:, None] + counters)
    return _shift_right(hashed, 64 - _BITS).to(torch.float32) * 2.0**-_BITS


def _mix(values: torch.Tensor) -> torch.Tensor:
    values = (values ^ _shift_right(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shift_right(values, 27)) * _signed(0x94D049BB133111EB)
    return values ^ _shift_right(values, 31)


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Of the 64 bits without sign: zeros come in from the left."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The two's complement reading of a 64-bit word; int64 products wrap around as unsigned ones do."""
    return word - (1 << 64) if word >> 63 else word
