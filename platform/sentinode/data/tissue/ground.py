"""What lies between the cells: pulp, fibrous stroma, fat, glass and blood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentinode.data.tissue.cells import CellType, draw_cells, lattice, scatter
from sentinode.data.tissue.noise import COLUMNS, ROWS, Array, fibres, ramp, smooth_noise
from sentinode.schema import PATCH_PX

_ERYTHROCYTE = CellType(
    radius=3.4, axis=2.7, spread=0.12, elongation=0.12, chromatin=1.0, vesicular=0.3, haematoxylin=0, eosin=0
)


@dataclass(slots=True)
class Ground:
    """Stains of a ground substance and where cells have room in it (0..1), float32 [96, 96] each."""

    haematoxylin: Array
    eosin: Array
    room: Array


def pulp(rng: np.random.Generator, eosin: float, holes: float) -> Ground:
    """The reticular ground between lymphoid cells; ``holes`` (0..1.5) tells how much of it is open sinus."""
    fine, web, coarse = smooth_noise(rng, 1.5), smooth_noise(rng, 3.5), smooth_noise(rng, 13)
    open_ = ramp(coarse + 0.5 * web, 2.3 - holes, 2.6 - holes)
    pale = ramp(web + 0.4 * fine, 0.1, 1.3)
    solid = (1 - np.float32(0.8) * pale) * (1 - np.float32(0.97) * open_)
    stain = solid * (1 + np.float32(0.4) * fine)
    pink = np.float32(eosin) * stain * (1 + np.float32(0.2) * coarse)
    return Ground(np.float32(0.3) * stain, pink, 1 - open_)


def stroma(rng: np.random.Generator, cosine: Array, sine: Array) -> Ground:
    """Wavy collagen along (cosine, sine), dense or loose."""
    fine = smooth_noise(rng, 1.5)
    wave = np.float32(rng.uniform(2, 8)) * smooth_noise(rng, 26) + smooth_noise(rng, 6)
    thick = fibres(rng, float(rng.uniform(3, 8)), wave, cosine, sine)
    thin = fibres(rng, 1.5, wave, cosine, sine)
    loose = float(rng.uniform(-0.2, 0.5))
    solid = ramp(thick + np.float32(0.35) * thin, loose, loose + 0.25)
    strength = np.float32(rng.uniform(0.45, 1.3))
    eosin = solid * (np.float32(0.25) + np.float32(0.45) * thick + np.float32(0.75) * thin) * strength
    eosin = np.maximum(eosin * (1 + np.float32(0.22) * fine), np.float32(0.03))
    return Ground(np.float32(0.22) * thin * solid + np.float32(0.02), eosin, np.ones_like(eosin))


def fat(rng: np.random.Generator) -> Ground:
    """Empty vacuoles of unequal size with thin walls, some torn, and a little tissue where three meet."""
    spacing = float(rng.uniform(42, 110))
    y, x = lattice(rng, spacing, 0.3, spacing * 0.8)
    bonus = rng.random(len(y), dtype=np.float32) * np.float32(spacing * 0.35)
    distance = np.sqrt((ROWS[:, :, None] - y) ** 2 + (COLUMNS[:, :, None] - x) ** 2) - bonus
    ranks = np.partition(distance, 2, axis=2)[:, :, :3]
    coarse, fine = smooth_noise(rng, 11), 1 + np.float32(0.4) * smooth_noise(rng, 1.5)
    bend = np.float32(1.2) * smooth_noise(rng, 18) + np.float32(0.4) * smooth_noise(rng, 5)
    gap = ranks[:, :, 1] - ranks[:, :, 0] + bend
    cleft = np.float32(rng.uniform(0, 2.5) if rng.random() < 0.4 else 0)
    wall = ramp(np.abs(gap - cleft), float(rng.uniform(1.6, 3.0)), 0.5)
    wall = wall * np.clip(np.float32(0.75) + coarse / 3, 0.1, 1)
    corner = ramp(ranks[:, :, 2] - ranks[:, :, 0] + 4 * bend, float(rng.uniform(4, 20)), 1) * ramp(gap, 7, 3)
    filled = np.maximum(wall * np.float32(0.7), corner * np.float32(0.6)) * fine
    room = np.maximum(corner, wall * np.float32(0.3))
    return Ground(np.float32(0.2) * filled, np.float32(0.6) * filled, room)


def glass() -> Ground:
    """No tissue."""
    nothing = np.zeros((PATCH_PX, PATCH_PX), np.float32)
    return Ground(nothing, nothing, nothing)


def blood(rng: np.random.Generator, where: Array) -> Array:
    """Red blood cells sown with density ``where``: coverage float32 [96, 96] in (0..1)."""
    y, x = lattice(rng, 5.6, 0.35, 3)
    cells = scatter(rng, _ERYTHROCYTE, y, x).sown(rng, where)
    if not len(cells):
        return np.zeros_like(where)
    layer = draw_cells(rng, cells)
    return layer.spread(layer.nucleus * layer.chromatin)
