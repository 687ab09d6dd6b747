"""The loss of JPEG compression without its coding: 8x8 cosine transform, quantised, and back.

Baseline JPEG (ITU-T T.81, tables of annex K; colours of JFIF; quality as the Independent JPEG Group scales
it), without chroma subsampling. Images whose sides are no multiple of 8 are continued by their edge pixels,
as encoders do.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.nn import functional

_BLOCK = 8
_LUMINANCE = """
    16 11 10 16 24 40 51 61     12 12 14 19 26 58 60 55     14 13 16 24 40 57 69 56     14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMINANCE = """
    17 18 24 47 99 99 99 99     18 21 26 66 99 99 99 99     24 26 56 99 99 99 99 99     47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99     99 99 99 99 99 99 99 99     99 99 99 99 99 99 99 99     99 99 99 99 99 99 99 99"""
_YCC_FROM_RGB = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg_loss(images_BCHW: torch.Tensor, quality_B: torch.Tensor) -> torch.Tensor:
    """RGB images (float32 in [0, 1]) as JPEG of ``quality_B`` (1 to 100) gives them back, not rounded."""
    batch, _, height, width = images_BCHW.shape
    to_ycc, cosines, tables = (table.to(images_BCHW.device) for table in _tables())
    ycc = (to_ycc * 255) @ images_BCHW.flatten(2)
    ycc[:, 0] -= 128
    ycc = functional.pad(
        ycc.view(batch, 3, height, width), (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate"
    )
    rows, columns = ycc.shape[2] // _BLOCK, ycc.shape[3] // _BLOCK
    blocks = (
        ycc.view(batch, 3, rows, _BLOCK, columns, _BLOCK).transpose(3, 4).reshape(batch, 3, -1, _BLOCK**2)
    )
    steps = _quantisation(tables, quality_B).flatten(2)[:, :, None]
    spectrum = (blocks @ cosines.T).div_(steps).round_().mul_(steps)
    blocks = (spectrum @ cosines).view(batch, 3, rows, columns, _BLOCK, _BLOCK)
    ycc = blocks.transpose(3, 4).reshape(batch, 3, rows * _BLOCK, columns * _BLOCK)[:, :, :height, :width]
    ycc[:, 0] += 128
    rgb: torch.Tensor = (torch.linalg.inv(to_ycc) / 255) @ ycc.flatten(2)
    return rgb.clamp_(0, 1).view_as(images_BCHW)


def _quantisation(tables: torch.Tensor, quality_B: torch.Tensor) -> torch.Tensor:
    """[B, 3, 8, 8], luminance and both chrominances: annex K scaled by quality, whole numbers 1 to 255."""
    scale_B = torch.where(quality_B < 50, torch.floor(5000 / quality_B), 200 - 2 * quality_B)
    return torch.floor((tables * scale_B[:, None, None, None] + 50) / 100).clamp_(1, 255)


@lru_cache(maxsize=1)
def _tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colours [3, 3], orthonormal cosine transform of whole blocks [64, 64], quantisation tables [3, 8, 8]."""
    cosines = [
        [
            math.sqrt((1 if u == 0 else 2) / _BLOCK) * math.cos((2 * i + 1) * u * math.pi / (2 * _BLOCK))
            for i in range(_BLOCK)
        ]
        for u in range(_BLOCK)
    ]
    tables = [[float(step) for step in text.split()] for text in (_LUMINANCE, _CHROMINANCE, _CHROMINANCE)]
    both = torch.kron(torch.tensor(cosines), torch.tensor(cosines))
    return torch.tensor(_YCC_FROM_RGB), both, torch.tensor(tables).view(3, _BLOCK, _BLOCK)
