"""Smooth random fields, fibres and small blurs in float32, without transcendental functions or BLAS.

Only additions, multiplications, divisions, square roots and table look-ups touch the fields, so that every machine
gets the same bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sentinode.schema import PATCH_PX

Array = NDArray[np.float32]

_TILE_PX = 384
_AXIS = np.arange(PATCH_PX, dtype=np.float32)
ROWS: Array = np.ascontiguousarray(np.broadcast_to(_AXIS[:, None], (PATCH_PX, PATCH_PX)))
COLUMNS: Array = np.ascontiguousarray(np.broadcast_to(_AXIS[None, :], (PATCH_PX, PATCH_PX)))


def ramp(values: Array, low: float, high: float) -> Array:
    """0 below ``low``, 1 above ``high``, a cubic step between; ``low > high`` gives a falling step."""
    t = np.clip((values - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def unit_vector(rng: np.random.Generator, size: int | None = None) -> tuple[Array, Array]:
    """Cosine and sine of uniform random angles (rounded from float64, hence equal on every machine)."""
    angle = rng.random(size) * (2 * np.pi)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))  # type: ignore[return-value]


def smooth_noise(rng: np.random.Generator, grain_px: float) -> Array:
    """A smooth random field [96, 96] of mean 0 and standard deviation about 1, in blobs ``grain_px`` wide.

    It is a random window of a tile that is made once for each ``grain_px`` (read-only).
    """
    y, x = rng.integers(0, _TILE_PX - PATCH_PX, 2)
    return _tile(grain_px)[y : y + PATCH_PX, x : x + PATCH_PX]


@lru_cache(maxsize=32)
def _tile(grain_px: float) -> Array:
    count = int(_TILE_PX / grain_px) + 4
    rng = np.random.Generator(np.random.Philox(key=int(grain_px * 64)))
    grid = rng.random((count, count), dtype=np.float32)
    position = np.arange(_TILE_PX, dtype=np.float32) * np.float32(1.0 / grain_px)
    rows = _spline(grid, position)
    tile = _spline(np.ascontiguousarray(rows.T), position).T
    # A cubic B-spline keeps about 0.479 of the variance along each axis; a uniform number has 1 / 12.
    tile = np.asarray((tile - np.float32(0.5)) * np.float32(12**0.5 / 0.479), np.float32)
    tile = np.ascontiguousarray(tile)
    tile.flags.writeable = False
    return tile


def _spline(grid: Array, position: Array) -> Array:
    """Cubic B-spline through the rows of ``grid`` [n, m] at ``position`` [p] (in rows): [p, m]."""
    whole = position.astype(np.int32)
    t = (position - whole).astype(np.float32)[:, None]
    s = 1 - t
    weights = (s * s * s, 4 - 6 * t * t + 3 * t * t * t, 4 - 6 * s * s + 3 * s * s * s, t * t * t)
    out = weights[0] * grid[whole]
    for k in range(1, 4):
        out += weights[k] * grid[whole + k]
    return np.asarray(out * np.float32(1 / 6), np.float32)


def fibres(rng: np.random.Generator, width_px: float, wave: Array, cosine: Array, sine: Array) -> Array:
    """Fibres [96, 96] in [0, 1], about ``width_px`` wide, along (cosine, sine), bent by ``wave`` [96, 96] px."""
    along = COLUMNS * cosine + ROWS * sine
    across = ROWS * cosine - COLUMNS * sine + wave
    table = rng.random((64, 32), dtype=np.float32)
    v = across * np.float32(1 / width_px) + 128
    u = (along + wave) * np.float32(1 / (9 * width_px)) + 64
    iv, iu = v.astype(np.int32), u.astype(np.int32)
    fv, fu = np.float32(v - iv), np.float32(u - iu)
    fv, fu = fv * fv * (3 - 2 * fv), fu * fu * (3 - 2 * fu)
    flat = table.ravel()
    r0, r1, c0, c1 = (iv & 63) * 32, (iv + 1 & 63) * 32, iu & 31, iu + 1 & 31
    top = flat[r0 + c0] * (1 - fu) + flat[r0 + c1] * fu
    bottom = flat[r1 + c0] * (1 - fu) + flat[r1 + c1] * fu
    return np.asarray(top * (1 - fv) + bottom * fv, np.float32)


def blur(image: Array, amount: float) -> Array:
    """Three-tap blur [amount, 1 - 2 amount, amount] along both axes (variance 2 amount px^2), edges repeated.

    ``image`` is [96, 96] or [96, 96, C]; a negative amount sharpens.
    """
    a, b = np.float32(amount), np.float32(1 - 2 * amount)
    rows = b * image
    rows[1:] += a * image[:-1]
    rows[:-1] += a * image[1:]
    rows[0] += a * image[0]
    rows[-1] += a * image[-1]
    out = b * rows
    out[:, 1:] += a * rows[:, :-1]
    out[:, :-1] += a * rows[:, 1:]
    out[:, 0] += a * rows[:, 0]
    out[:, -1] += a * rows[:, -1]
    return np.asarray(out, np.float32)
