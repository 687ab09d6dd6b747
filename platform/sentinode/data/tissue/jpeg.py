"""The loss of JPEG compression (ITU-T T.81, 4:4:4, no entropy coding), exact to the bit on every machine.

The discrete cosine transform is done with integers held in float64: products and sums stay below 2^53, so no rounding,
order of summation or fused multiply-add can change a result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue.noise import Array

_SCALE = 4096.0
_K = np.arange(8)
_NORM = np.where(_K == 0, 8**-0.5, 0.5)[:, None]
_DCT = np.rint(_SCALE * _NORM * np.cos((2 * _K[None, :] + 1) * _K[:, None] * np.pi / 16))
"""Rows are the basis functions, times 4096 and rounded."""

_FREQUENCY = _K[:, None] + _K[None, :]
_LUMA_STEP = 6.0 + 2.6 * _FREQUENCY
"""Quantisation steps of luminance [8, 8]: they rise with frequency much as those of T.81 annex K at quality 80."""
_CHROMA_STEP = np.minimum(8.0 + 6.0 * _FREQUENCY, 40.0)


def compress(image_HWC: Array, coarseness: float) -> Array:
    """``image_HWC`` float32 [96, 96, 3] RGB (grey levels) after compression; ``coarseness`` scales the steps."""
    red, green, blue = (image_HWC[..., c] for c in range(3))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    planes = np.stack([luma - 128, (blue - luma) * np.float32(0.564), (red - luma) * np.float32(0.713)])
    step = np.stack([_LUMA_STEP, _CHROMA_STEP, _CHROMA_STEP]) * coarseness
    y, cb, cr = _quantise(np.rint(planes).astype(np.float64), step).astype(np.float32)
    y += 128
    red, blue = y + np.float32(1.402) * cr, y + np.float32(1.772) * cb
    green = y - np.float32(0.344) * cb - np.float32(0.714) * cr
    return np.stack([red, green, blue], axis=-1)


def _quantise(planes: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transform [3, H, W] in 8x8 blocks, round to multiples of ``step`` [3, 8, 8] and transform back."""
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4)
    levels = np.rint(_DCT @ blocks @ _DCT.T * (1 / (_SCALE * _SCALE)) / step[:, None, None])
    values = np.rint(levels * step[:, None, None])
    pixels = np.rint(_DCT.T @ values @ _DCT * (1 / (_SCALE * _SCALE)))
    return pixels.transpose(0, 1, 3, 2, 4).reshape(planes.shape)
