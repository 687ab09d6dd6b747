"""The eight symmetries of the square (the dihedral group D4): quarter turns, mirror images, and both.

A symmetry is a code from 0 to 7, the same as in augmentation: bit 2 transposes, then bit 1 flips the rows
and bit 0 the columns. 0 changes nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor

SYMMETRIES: Final = 8


def turn(images: Tensor, code: int) -> Tensor:
    """``images`` [..., H, W] under symmetry ``code``."""
    if code & 4:
        images = images.transpose(-2, -1)
    axes = [axis for bit, axis in ((2, -2), (1, -1)) if code & bit]
    # Without axes, flip becomes an ONNX node that no runtime loads.
    return images.flip(axes) if axes else images


def turn_maps(maps: Tensor, code: int) -> Tensor:
    """Feature maps [B, 8 * C, H, W] over p4m, symmetry first, under symmetry ``code``: each map is turned, and
    the eight change places.
    """
    source = [_product(_inverse(code), target) for target in range(SYMMETRIES)]
    batch, channels, height, width = maps.shape
    fields_BGCHW = maps.reshape(batch, SYMMETRIES, channels // SYMMETRIES, height, width)
    return turn(fields_BGCHW[:, source].reshape(maps.shape), code)


def lift_index(side: int) -> Tensor:
    """int64 [8, side * side]: under symmetry g, weight p of a filter is weight ``index[g, p]``."""
    positions = torch.arange(side * side, device="cpu").view(side, side)
    return torch.stack([turn(positions, code).flatten() for code in range(SYMMETRIES)])


def group_index(side: int) -> Tensor:
    """int64 [8, 8 * side * side]: the same for a filter over p4m, whose weights are (symmetry, position).

    The filter that answers to symmetry g has at symmetry h the weights of g^-1 h, turned by g
    (Cohen and Welling 2016, equation 11).
    """
    turned = lift_index(side)
    return torch.stack(
        [
            torch.cat([_product(_inverse(g), h) * side * side + turned[g] for h in range(SYMMETRIES)])
            for g in range(SYMMETRIES)
        ]
    )


@cache
def _product(after: int, before: int) -> int:
    """The symmetry that does ``before`` and then ``after``."""
    square = torch.arange(4, device="cpu").view(2, 2)
    both = turn(turn(square, before), after)
    return next(code for code in range(SYMMETRIES) if torch.equal(turn(square, code), both))


def _inverse(code: int) -> int:
    return next(other for other in range(SYMMETRIES) if _product(other, code) == 0)
