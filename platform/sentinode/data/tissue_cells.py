"""Cells: where they lie, and how their bodies, membranes and nuclei cover the field.

All cells of a layer are drawn at once. Each pixel belongs to the nearest cell (distance in units of the cell's radius), so
crowded cells press each other flat, as epithelium and follicles do; the nucleus is a dented ellipse inside its cell.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue_noise import COLUMNS, ROWS, Array, unit_vector
from sentinode.schema import PATCH_PX


@dataclass(slots=True)
class Cells:
    """Attributes of M cells, each float32 [M]. Lengths in px, patch coordinates; densities in optical-density units."""

    y: Array
    x: Array
    radius: Array
    """Radius of the cell body."""
    long_axis: Array
    short_axis: Array
    """Semi-axes of the nucleus."""
    cosine: Array
    sine: Array
    """Direction of the long axis."""
    shift_y: Array
    shift_x: Array
    """Nucleus centre relative to the cell centre."""
    dent: Array
    """Irregularity of the nuclear outline (0 none, 0.25 strong)."""
    chromatin: Array
    """Haematoxylin of the nucleus."""
    vesicular: Array
    """How much paler the inside of the nucleus is than its rim (0..1)."""
    nucleolus: Array
    """Extra haematoxylin of the nucleolus."""
    haematoxylin: Array
    eosin: Array
    """Stains of the cytoplasm."""

    def __len__(self) -> int:
        return len(self.y)

    def keep(self, mask: NDArray[np.bool_]) -> Cells:
        """The cells of ``mask`` [M]."""
        return Cells(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def at(self, field: Array) -> Array:
        """Values of ``field`` [96, 96] under the cell centres (nearest pixel inside): [M]."""
        last = PATCH_PX - 1
        iy = np.clip(self.y, 0, last).astype(np.int32)
        ix = np.clip(self.x, 0, last).astype(np.int32)
        return np.asarray(field[iy, ix])


@dataclass(slots=True)
class CellLayer:
    """A drawn layer; all [96, 96] float32. ``distance`` is 0 at a cell's centre, 1 at its edge, 2 far from all cells."""

    distance: Array
    membrane: Array
    """1 where two cells touch, falling to 0 within about a pixel."""
    body: Array
    """Coverage by cell bodies (0..1)."""
    nucleus: Array
    """Coverage by nuclei (0..1)."""
    chromatin: Array
    haematoxylin: Array
    eosin: Array


def lattice(
    rng: np.random.Generator, spacing_px: float, jitter: float, margin_px: float, origin: tuple[float, float] | None = None
) -> tuple[Array, Array]:
    """A rotated, jittered hexagonal lattice over the patch and a margin: y [M], x [M]. The first point is ``origin``."""
    cosine, sine = unit_vector(rng)
    if origin is None:
        start = rng.random(2) * spacing_px + PATCH_PX / 2
        origin = (float(start[0]), float(start[1]))
    reach = int((PATCH_PX * 0.75 + margin_px) * 1.42 / spacing_px) + 1
    steps = np.arange(-reach, reach + 1, dtype=np.float32)
    b, a = np.meshgrid(steps, steps, indexing="ij")
    a, b = (a + np.float32(0.5) * b).ravel(), (b * np.float32(0.8660254)).ravel()
    noise = (rng.random((2, a.size), dtype=np.float32) - np.float32(0.5)) * np.float32(2 * jitter)
    first = a.size // 2
    noise[:, first] = 0
    a, b = (a + noise[0]) * np.float32(spacing_px), (b + noise[1]) * np.float32(spacing_px)
    y = np.float32(origin[0]) + a * sine + b * cosine
    x = np.float32(origin[1]) + a * cosine - b * sine
    inside = (y > -margin_px) & (y < PATCH_PX + margin_px) & (x > -margin_px) & (x < PATCH_PX + margin_px)
    inside[first] = False
    order = np.concatenate([[first], np.flatnonzero(inside)])
    return y[order], x[order]


def draw_cells(cells: Cells, edge_px: float = 1.4, reach: float = 1.0) -> CellLayer:
    """Draw the layer; nuclear outlines are ``edge_px`` soft."""
    owner, distance, gap = _territories(cells)
    index = np.maximum(owner, 0)

    def per_pixel(values: Array) -> Array:
        return np.take(values, index)

    inside = owner >= 0
    radius = per_pixel(cells.radius)
    body = np.where(inside, np.clip((1 - distance) * radius * np.float32(0.7) + np.float32(0.3), 0, 1), 0)
    dy = ROWS - per_pixel(cells.y + cells.shift_y)
    dx = COLUMNS - per_pixel(cells.x + cells.shift_x)
    cosine, sine = per_pixel(cells.cosine), per_pixel(cells.sine)
    u = (dx * cosine + dy * sine) * per_pixel(1 / cells.long_axis)
    v = (dy * cosine - dx * sine) * per_pixel(1 / cells.short_axis)
    square = u * u + v * v
    dent = per_pixel(cells.dent)
    square = square + dent * (u * (u * u - 3 * v * v) + np.float32(0.8) * u * v)
    rho = np.sqrt(np.maximum(square, 0))
    size = per_pixel((cells.long_axis + cells.short_axis) * np.float32(0.5 / edge_px))
    cover = np.where(inside & (u * u + v * v < 4), np.clip((1 - rho) * size + np.float32(0.5), 0, 1), 0)
    rim = np.minimum(square * square, 1)
    spot = np.clip(1 - ((u - dent) * (u - dent) + (v + dent) * (v + dent)) * size * size * np.float32(0.5), 0, 1)
    chromatin = per_pixel(cells.chromatin) * (1 - per_pixel(cells.vesicular) * (1 - rim))
    chromatin = chromatin + per_pixel(cells.nucleolus) * spot
    return CellLayer(
        distance=distance,
        membrane=np.asarray(np.clip(1 - gap * radius * np.float32(0.6), 0, 1) * body, np.float32),
        body=np.asarray(body, np.float32),
        nucleus=np.asarray(cover, np.float32),
        chromatin=np.asarray(chromatin, np.float32),
        haematoxylin=per_pixel(cells.haematoxylin),
        eosin=per_pixel(cells.eosin),
    )


def _territories(cells: Cells) -> tuple[NDArray[np.int32], Array, Array]:
    """Owner [96, 96] int32 (-1 none), distance to it and gap to the second nearest cell, in cell radii."""
    half = int(np.ceil(cells.radius.max())) if len(cells) else 1
    pad = 2 * half + 2
    width = PATCH_PX + 2 * pad
    iy, ix = np.floor(cells.y).astype(np.intp), np.floor(cells.x).astype(np.intp)
    near = (iy >= -half) & (iy < PATCH_PX + half) & (ix >= -half) & (ix < PATCH_PX + half)
    number = np.flatnonzero(near).astype(np.int32)
    iy, ix = iy[near], ix[near]
    steps = np.arange(-half, half + 1, dtype=np.intp)
    scale = 1 / cells.radius[near]
    dy = (steps - (cells.y[near] - iy)[:, None]).astype(np.float32) * scale[:, None]
    dx = (steps - (cells.x[near] - ix)[:, None]).astype(np.float32) * scale[:, None]
    square = (dy * dy)[:, :, None] + (dx * dx)[:, None, :]
    start = (iy + pad) * width + ix + pad
    pixel = (start[:, None, None] + (steps * width)[None, :, None] + steps[None, None, :]).ravel()
    close = np.flatnonzero(square.ravel() < 1)
    value, pixel = square.ravel()[close], pixel[close]
    cell = number[close // (steps.size * steps.size)]
    first = np.full(width * width, 4, np.float32)
    np.minimum.at(first, pixel, value)
    wins = value <= first[pixel]
    owner = np.full(width * width, -1, np.int32)
    owner[pixel[wins]] = cell[wins]
    second = np.full(width * width, 4, np.float32)
    np.minimum.at(second, pixel[~wins], value[~wins])

    def crop(flat: NDArray[np.generic]) -> NDArray[np.generic]:
        return flat.reshape(width, width)[pad : pad + PATCH_PX, pad : pad + PATCH_PX]

    distance = np.sqrt(crop(first))  # type: ignore[arg-type]
    gap = np.sqrt(crop(second)) - distance  # type: ignore[arg-type]
    return crop(owner).copy(), distance, gap  # type: ignore[return-value]
