"""From stain amounts to RGB: Beer-Lambert mixing, and the stain and scanner of each slide.

Optical-density vectors after Ruifrok & Johnston, "Quantification of histochemical staining by color deconvolution",
Anal. Quant. Cytol. Histol. 23 (2001): light of channel c is white[c] * exp(-sum_s amount[s] * vector[s, c]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue_noise import Array, blur
from sentinode.data.tissue_scene import Tissue
from sentinode.schema import PATCH_PX

_CENTRE_VECTORS = (
    # haematoxylin, eosin, red blood cells
    ((0.62, 0.68, 0.56), (0.14, 0.46, 0.36), (0.10, 0.72, 0.66)),
    ((0.72, 0.66, 0.28), (0.20, 0.66, 0.22), (0.08, 0.86, 0.42)),
    ((0.66, 0.70, 0.40), (0.12, 0.54, 0.28), (0.10, 0.80, 0.55)),
)
_STEPS_PER_OD = 2048
_TRANSMISSION = np.exp(-np.arange(6 * _STEPS_PER_OD) / _STEPS_PER_OD).astype(np.float32)


@dataclass(frozen=True)
class Scanner:
    """Stain and scanner of one slide."""

    vectors: Array
    """Optical density [3 stains, 3 channels] of unit amounts of haematoxylin, eosin and haemoglobin."""
    white: Array
    """Grey level [3] of empty glass."""
    blur: float
    """Three-tap blur of the optics (px^2 / 2); negative for a scanner that sharpens."""
    noise: float
    """Standard deviation of the sensor noise, grey levels."""


def draw_scanner(centre_rng: np.random.Generator, slide_rng: np.random.Generator, centre: int) -> Scanner:
    """The scanner of a slide, varying about that of its centre; ``centre`` picks the family of stain vectors."""
    base = np.array(_CENTRE_VECTORS[centre % len(_CENTRE_VECTORS)], np.float32)
    vectors = base * centre_rng.uniform(0.92, 1.08, (3, 3)) * slide_rng.uniform(0.95, 1.05, (3, 3))
    strength = centre_rng.uniform(0.92, 1.08, (3, 1)) * slide_rng.uniform(0.8, 1.22, (3, 1))
    grey = centre_rng.uniform(228, 250) + centre_rng.uniform(-4, 4, 3) + slide_rng.uniform(-4, 4)
    return Scanner(
        vectors=(vectors * strength).astype(np.float32),
        white=np.minimum(grey, 252).astype(np.float32),
        blur=float(centre_rng.uniform(-0.05, 0.1) + slide_rng.uniform(-0.02, 0.05)),
        noise=float(centre_rng.uniform(1.0, 3.0)),
    )


def digitise(rng: np.random.Generator, tissue: Tissue, scanner: Scanner) -> NDArray[np.uint8]:
    """The picture that ``scanner`` takes of ``tissue``: uint8 [96, 96, 3]."""
    density = np.empty((PATCH_PX, PATCH_PX, 3), np.float32)
    for channel in range(3):
        h, e, r = scanner.vectors[:, channel]
        density[..., channel] = h * tissue.haematoxylin + e * tissue.eosin + r * tissue.blood
    step = np.clip(density * _STEPS_PER_OD, 0, _TRANSMISSION.size - 1).astype(np.int32)
    light = np.take(_TRANSMISSION, step)
    light = blur(light, scanner.blur)
    if rng.random() < 0.06:
        for _ in range(int(rng.integers(2, 8))):
            light = blur(light, 0.25)
    noise = rng.standard_normal(light.shape, np.float32) * np.float32(scanner.noise)
    image = light * scanner.white + noise
    return np.asarray(np.clip(image + np.float32(0.5), 0, 255), np.uint8)
