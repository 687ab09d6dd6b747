"""Tumour: how it grows (sheets, nests, cords, single cells) and how its cells look on a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue.cells import CellLayer, CellType, draw_cells, lattice, scatter
from sentinode.data.tissue.noise import Array, unit_vector
from sentinode.schema import CENTRE_PX, PATCH_PX

_MIDDLE = PATCH_PX / 2


@dataclass(frozen=True, slots=True)
class TumourStyle:
    """How the tumour of one slide looks."""

    cell: CellType
    spacing: float
    """Distance of neighbouring cells, px."""
    membrane: float
    """Extra stain (or, below 0, paleness) where cells touch."""
    cleft: float
    """How empty the cleft around nests is (0..1)."""
    alignment: float
    """How far nuclei lie in one direction (0 none, 1 all)."""
    growth: tuple[float, float, float]
    """Shares of sheets, nests and cords."""


def draw_tumour_style(rng: np.random.Generator) -> TumourStyle:
    """Draw the tumour style of a slide."""
    axis = float(rng.uniform(5.1, 6.8))
    spacing = axis * float(rng.uniform(2.3, 2.9))
    cell = CellType(
        radius=spacing * 0.66,
        axis=axis,
        spread=float(rng.uniform(0.12, 0.3)),
        elongation=float(rng.uniform(0.2, 0.5)),
        chromatin=float(rng.uniform(1.25, 2.1)),
        vesicular=float(rng.uniform(0.2, 0.7)),
        haematoxylin=float(rng.uniform(0.1, 0.4)),
        eosin=float(rng.uniform(0.4, 0.85)),
        nucleolus=float(rng.uniform(0.0, 1.6)),
        dent=float(rng.uniform(0.12, 0.25)),
    )
    growth = rng.dirichlet((1.2, 1.5, 0.8))
    return TumourStyle(
        cell=cell,
        spacing=spacing,
        membrane=float(rng.uniform(-0.6, 0.3)),
        cleft=float(rng.uniform(0.0, 0.9)),
        alignment=float(rng.uniform(0.0, 0.7)),
        growth=(float(growth[0]), float(growth[1]), float(growth[2])),
    )


def grow_tumour(rng: np.random.Generator, style: TumourStyle, central: bool, hard: bool) -> CellLayer | None:
    """Tumour cells that reach the central 32x32 (``central``) or keep off it; None if no cell is left.

    ``hard`` makes a small group, which may only touch the centre from outside.
    """
    anchor = _anchor(rng, central, hard, style.cell.radius)
    y, x = lattice(rng, style.spacing, 0.33, 12, anchor)
    inside = _extent(rng, style, y - np.float32(anchor[0]), x - np.float32(anchor[1]), hard)
    inside &= rng.random(len(y), dtype=np.float32) > 0.06
    inside[0] = True
    cells = scatter(rng, style.cell, y, x)
    cells.align(*unit_vector(rng), style.alignment)
    if not central:
        off_y = np.maximum(np.abs(y - np.float32(_MIDDLE)) - np.float32(CENTRE_PX / 2), 0)
        off_x = np.maximum(np.abs(x - np.float32(_MIDDLE)) - np.float32(CENTRE_PX / 2), 0)
        inside &= off_y * off_y + off_x * off_x > (cells.radius + 2) ** 2
    if not inside.any():
        return None
    return draw_cells(rng, cells.keep(inside))


def _anchor(rng: np.random.Generator, central: bool, hard: bool, radius: float) -> tuple[float, float]:
    """Where the first cell lies: (y, x)."""
    if central:
        reach = CENTRE_PX / 2 + (0.45 * radius if hard else -3.0)
        y, x = rng.uniform(-reach, reach, 2)
        return _MIDDLE + float(y), _MIDDLE + float(x)
    c, s = unit_vector(rng)
    return _MIDDLE + 44 * float(c), _MIDDLE + 44 * float(s)


def _extent(
    rng: np.random.Generator, style: TumourStyle, dy: Array, dx: Array, hard: bool
) -> NDArray[np.bool_]:
    """Which lattice points, relative to the first, hold tumour cells: bool [M]."""
    c, s = unit_vector(rng)
    u, v = dx * c + dy * s, dy * c - dx * s
    if hard:
        return _disc(u, v * np.float32(1.5), float(rng.uniform(4, 24)))
    growth = int(rng.choice(3, p=style.growth))
    if growth == 0:
        return np.asarray(u > -np.float32(rng.uniform(5, 60)))
    if growth == 1:
        nests = _disc(u, v * np.float32(rng.uniform(1, 1.6)), float(rng.uniform(18, 45)))
        for _ in range(int(rng.integers(0, 4))):
            shift = rng.uniform(-60, 60, 2).astype(np.float32)
            nests |= _disc(u - shift[0], v - shift[1], float(rng.uniform(10, 26)))
        return nests
    period = np.float32(rng.uniform(20, 45))
    fold = np.abs(v + u * u * np.float32(0.005) + period * np.float32(8.5)) % period - period / 2
    return np.asarray(np.abs(fold) < period * np.float32(rng.uniform(0.14, 0.3)))


def _disc(u: Array, v: Array, radius: float) -> NDArray[np.bool_]:
    return np.asarray(u * u + v * v < np.float32(radius * radius))
