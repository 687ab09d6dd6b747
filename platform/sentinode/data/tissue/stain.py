"""From stain amounts to RGB: Beer-Lambert mixing, and the stain and scanner of each slide.

Optical densities add up over the stains as in Ruifrok & Johnston, "Quantification of histochemical staining by color
deconvolution", Anal. Quant. Cytol. Histol. 23 (2001): the light of channel c is
white[c] * exp(-sum_s amount[s] * vector[s, c]).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue.jpeg import compress
from sentinode.data.tissue.noise import Array, blur
from sentinode.data.tissue.scene import Tissue
from sentinode.schema import PATCH_PX

_CENTRE_VECTORS = (
    # Haematoxylin, eosin and red blood cells, about as real PCam patches of two laboratories show them, and between.
    ((0.49, 0.73, 0.49), (0.24, 0.81, 0.54), (0.12, 0.73, 0.68)),
    ((0.56, 0.78, 0.27), (0.27, 0.93, 0.20), (0.06, 0.90, 0.45)),
    ((0.53, 0.75, 0.41), (0.21, 0.90, 0.38), (0.08, 0.82, 0.55)),
)
_CENTRE_WHITE = (249.0, 230.0, 243.0)
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
    jpeg: float
    """Coarseness of its JPEG compression; 0 is none, 1 about quality 80."""


def draw_scanner(centre_rng: np.random.Generator, slide_rng: np.random.Generator, centre: int) -> Scanner:
    """The scanner of a slide, varying about that of its centre; ``centre`` picks the stain vectors."""
    base = np.array(_CENTRE_VECTORS[centre % len(_CENTRE_VECTORS)], np.float32)
    vectors = base * centre_rng.uniform(0.95, 1.05, (3, 3)) * slide_rng.uniform(0.97, 1.03, (3, 3))
    strength = centre_rng.uniform(0.8, 0.95, (3, 1)) * slide_rng.uniform(0.87, 1.13, (3, 1))
    grey: NDArray[np.float64] = (
        _CENTRE_WHITE[centre % len(_CENTRE_WHITE)] + centre_rng.uniform(-4, 4, 3) + slide_rng.uniform(-5, 5)
    )
    return Scanner(
        vectors=(vectors * strength).astype(np.float32),
        white=np.minimum(grey, 252).astype(np.float32),
        blur=float(centre_rng.uniform(-0.14, 0.0) + slide_rng.uniform(-0.03, 0.05)),
        noise=float(centre_rng.uniform(1.0, 3.0)),
        jpeg=float(slide_rng.choice((0.0, 0.0, 0.7, 1.4))),
    )


def light_of(scanner: Scanner, haematoxylin: Array, eosin: Array, blood: Array) -> Array:
    """The share of light that comes through, float32 [H, W, 3] in (0..1], of stain amounts [H, W]."""
    density = np.empty((*haematoxylin.shape, 3), np.float32)
    for channel in range(3):
        h, e, r = scanner.vectors[:, channel]
        density[..., channel] = h * haematoxylin + e * eosin + r * blood
    step = np.clip(density * _STEPS_PER_OD, 0, _TRANSMISSION.size - 1).astype(np.int32)
    light: Array = np.take(_TRANSMISSION, step)
    return light


def digitise(rng: np.random.Generator, tissue: Tissue, scanner: Scanner) -> NDArray[np.uint8]:
    """The picture that ``scanner`` takes of ``tissue``: uint8 [96, 96, 3]."""
    light = light_of(scanner, tissue.haematoxylin, tissue.eosin, tissue.blood)
    light = blur(light, scanner.blur)
    if rng.random() < 0.03:
        for _ in range(int(rng.integers(2, 8))):
            light = blur(light, 0.25)
    image = light * scanner.white + _sensor_noise(rng) * np.float32(scanner.noise)
    if scanner.jpeg:
        image = compress(image, scanner.jpeg)
    return np.asarray(np.clip(image + np.float32(0.5), 0, 255), np.uint8)


def _sensor_noise(rng: np.random.Generator) -> Array:
    """White noise [96, 96, 3] of standard deviation 1: a window of a tile."""
    tile = _noise_tile()
    y, x = rng.integers(0, tile.shape[0] - PATCH_PX, 2)
    return tile[y : y + PATCH_PX, x : x + PATCH_PX]


@lru_cache(maxsize=1)
def _noise_tile() -> Array:
    return np.random.Generator(np.random.Philox(key=1)).standard_normal((288, 288, 3), np.float32)
