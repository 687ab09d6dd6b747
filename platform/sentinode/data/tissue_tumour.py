"""Tumour: how it grows (sheets, nests, cords, single cells) and how its cells look on a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentinode.data.tissue_cells import CellLayer, Cells, draw_cells, lattice
from sentinode.data.tissue_noise import Array, unit_vector
from sentinode.schema import CENTRE_PX, PATCH_PX

_LOW, _HIGH = (PATCH_PX - CENTRE_PX) // 2, (PATCH_PX + CENTRE_PX) // 2


@dataclass(frozen=True, slots=True)
class TumourStyle:
    """How the tumour of one slide looks."""

    axis: float
    """Mean semi-axis of its nuclei, px."""
    pleomorphism: float
    """Relative spread of nuclear size."""
    spacing: float
    """Distance of neighbouring cells in units of the nuclear axis."""
    chromatin: float
    vesicular: float
    nucleolus: float
    eosin: float
    haematoxylin: float
    """Stains of the cytoplasm."""
    membrane: float
    """Extra stain (or, below 0, paleness) where cells touch."""
    cleft: float
    """How empty the cleft around nests is (0..1)."""
    growth: tuple[float, float, float]
    """Shares of sheets, nests and cords."""


def draw_tumour_style(rng: np.random.Generator) -> TumourStyle:
    """Draw the tumour style of a slide."""
    growth = rng.dirichlet((1.2, 1.5, 0.8))
    return TumourStyle(
        axis=float(rng.uniform(4.4, 6.2)),
        pleomorphism=float(rng.uniform(0.1, 0.28)),
        spacing=float(rng.uniform(2.3, 3.0)),
        chromatin=float(rng.uniform(0.75, 1.35)),
        vesicular=float(rng.uniform(0.2, 0.65)),
        nucleolus=float(rng.uniform(0.0, 0.8)),
        eosin=float(rng.uniform(0.45, 1.0)),
        haematoxylin=float(rng.uniform(0.1, 0.4)),
        membrane=float(rng.uniform(-0.5, 0.4)),
        cleft=float(rng.uniform(0.0, 0.8)),
        growth=(float(growth[0]), float(growth[1]), float(growth[2])),
    )


def grow_tumour(rng: np.random.Generator, style: TumourStyle, central: bool, hard: bool) -> CellLayer | None:
    """A layer of tumour cells that reaches the central 32x32 (``central``) or keeps off it; None if no cell is left."""
    spacing = style.axis * style.spacing
    radius = spacing * 0.66
    anchor = _anchor(rng, central, hard, radius)
    y, x = lattice(rng, spacing, 0.26, 12, anchor)
    inside = _extent(rng, style, anchor, y, x, hard)
    inside[0] = True
    if not central:
        off_y = np.maximum(np.maximum(_LOW - y, y - _HIGH), 0)
        off_x = np.maximum(np.maximum(_LOW - x, x - _HIGH), 0)
        inside &= off_y * off_y + off_x * off_x > (radius * 1.25 + 1) ** 2
    if not inside.any():
        return None
    return draw_cells(_cells(rng, style, y[inside], x[inside], radius), edge_px=1.6)


def _anchor(rng: np.random.Generator, central: bool, hard: bool, radius: float) -> tuple[float, float]:
    reach = CENTRE_PX / 2 + (0.4 * radius if hard else -4.0)
    if central:
        y, x = rng.uniform(-reach, reach, 2)
    else:
        c, s = unit_vector(rng)
        y, x = 44 * float(c), 44 * float(s)
    return PATCH_PX / 2 + float(y), PATCH_PX / 2 + float(x)


def _extent(
    rng: np.random.Generator, style: TumourStyle, anchor: tuple[float, float], y: Array, x: Array, hard: bool
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which lattice points hold tumour cells: bool [M]."""
    dy, dx = y - np.float32(anchor[0]), x - np.float32(anchor[1])
    c, s = unit_vector(rng)
    u, v = dx * c + dy * s, dy * c - dx * s
    if hard:
        reach = np.float32(rng.uniform(4, 26))
        return np.asarray(u * u + (v * v) * 2 < reach * reach)
    growth = int(rng.choice(3, p=style.growth))
    if growth == 0:
        return np.asarray(u > -np.float32(rng.uniform(5, 60)))
    if growth == 1:
        reach = np.float32(rng.uniform(18, 45))
        nests = u * u + v * v * np.float32(rng.uniform(1, 2.5)) < reach * reach
        for _ in range(int(rng.integers(0, 4))):
            cy, cx = np.float32(rng.uniform(-60, 60)), np.float32(rng.uniform(-60, 60))
            reach = np.float32(rng.uniform(10, 26))
            nests |= (u - cx) ** 2 + (v - cy) ** 2 < reach * reach
        return np.asarray(nests)
    period = np.float32(rng.uniform(20, 45))
    fold = np.abs(v + 0.15 * u * u / 30 + period * 8.5) % period - period / 2
    return np.asarray(np.abs(fold) < period * np.float32(rng.uniform(0.14, 0.3)))


def _cells(rng: np.random.Generator, style: TumourStyle, y: Array, x: Array, radius: float) -> Cells:
    n = len(y)
    noise = rng.random((9, n), dtype=np.float32)
    cosine, sine = unit_vector(rng, n)
    bell = noise[0] + noise[1] + noise[2] - np.float32(1.5)
    size = np.float32(style.axis) * np.clip(1 + np.float32(2 * style.pleomorphism) * bell, 0.6, 1.6)
    room = np.float32(radius) - size
    shift = np.maximum(room, 0.5) * np.float32(0.5)
    return Cells(
        y=y,
        x=x,
        radius=np.maximum(np.float32(radius), size * np.float32(1.05)) * (np.float32(0.95) + np.float32(0.1) * noise[8]),
        long_axis=size * (1 + np.float32(0.25) * noise[3]),
        short_axis=size * (1 - np.float32(0.25) * noise[3]),
        cosine=cosine,
        sine=sine,
        shift_y=(noise[4] - np.float32(0.5)) * 2 * shift,
        shift_x=(noise[5] - np.float32(0.5)) * 2 * shift,
        dent=np.float32(0.2) * noise[6],
        chromatin=np.float32(style.chromatin) * (np.float32(0.75) + np.float32(0.5) * noise[7]),
        vesicular=np.full(n, style.vesicular, np.float32),
        nucleolus=np.full(n, style.nucleolus, np.float32),
        haematoxylin=np.float32(style.haematoxylin) * (np.float32(0.8) + np.float32(0.4) * noise[4]),
        eosin=np.float32(style.eosin) * (np.float32(0.8) + np.float32(0.4) * noise[5]),
    )
