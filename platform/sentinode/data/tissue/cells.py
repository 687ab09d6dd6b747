"""Cells: where they lie, and how their bodies, membranes and nuclei cover the field.

All cells of a layer are drawn at once. Each pixel belongs to the nearest cell (distance in units of the cell's
radius), so crowded cells press each other flat, as epithelium and follicles do; the nucleus is a dented ellipse inside
its cell.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue.noise import COLUMNS, ROWS, Array, smooth_noise, unit_vector
from sentinode.schema import PATCH_PX


@dataclass(frozen=True, slots=True)
class CellType:
    """What the cells of one kind have in common. Lengths in px, stains in optical-density units."""

    radius: float
    """Radius of the cell body."""
    axis: float
    """Mean semi-axis of the nucleus."""
    spread: float
    """Standard deviation of nuclear size, relative."""
    elongation: float
    """Long over short semi-axis is up to 1 + twice this."""
    chromatin: float
    """Haematoxylin of the nucleus."""
    vesicular: float
    """How much paler the inside of the nucleus is than its rim (0..1)."""
    haematoxylin: float
    """Haematoxylin of the cytoplasm."""
    eosin: float
    """Eosin of the cytoplasm."""
    nucleolus: float = 0.0
    """Extra haematoxylin of the nucleolus."""
    dent: float = 0.1
    """Irregularity of the nuclear outline (0 none, 0.25 strong)."""


@dataclass(slots=True)
class Cells:
    """M drawn-up cells, each attribute float32 [M]; see CellType for the meaning."""

    y: Array
    x: Array
    radius: Array
    nucleus_y: Array
    nucleus_x: Array
    long_axis: Array
    short_axis: Array
    cosine: Array
    sine: Array
    dent: Array
    chromatin: Array
    vesicular: Array
    nucleolus: Array
    haematoxylin: Array
    eosin: Array

    def __len__(self) -> int:
        return len(self.y)

    def keep(self, mask: NDArray[np.bool_]) -> Cells:
        """The cells of ``mask`` [M]."""
        return Cells(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def align(self, cosine: Array, sine: Array, strength: float) -> None:
        """Turn the nuclei towards (cosine, sine); ``strength`` 0 leaves them, 1 makes them parallel."""
        keep, turn = np.float32(1 - strength), np.float32(strength)
        same: Array = np.where(self.cosine * cosine + self.sine * sine < 0, -turn, turn)
        c: Array = keep * self.cosine + same * cosine
        s: Array = keep * self.sine + same * sine
        length: Array = np.maximum(np.sqrt(c * c + s * s), np.float32(1e-3))
        self.cosine, self.sine = c / length, s / length

    def sown(self, rng: np.random.Generator, density: Array) -> Cells:
        """Each cell stays with the probability that ``density`` [96, 96] has under it (or nearest to it)."""
        iy = np.clip(self.y, 0, PATCH_PX - 1).astype(np.intp)
        ix = np.clip(self.x, 0, PATCH_PX - 1).astype(np.intp)
        return self.keep(density[iy, ix] > rng.random(len(self), dtype=np.float32))


@dataclass(slots=True)
class CellLayer:
    """A drawn layer, given for the P pixels that belong to a cell; all but the first are float32 [P]."""

    pixels: NDArray[np.intp]
    """Flat indices [P] into [96, 96]."""
    membrane: Array
    """1 where two cells touch, falling to 0 within about a pixel."""
    body: Array
    """Coverage by cell bodies (0..1)."""
    nucleus: Array
    """Coverage by nuclei (0..1)."""
    chromatin: Array
    haematoxylin: Array
    eosin: Array

    def spread(self, values: Array) -> Array:
        """``values`` [P] as a field [96, 96], 0 elsewhere."""
        field = np.zeros(PATCH_PX * PATCH_PX, np.float32)
        field[self.pixels] = values
        return field.reshape(PATCH_PX, PATCH_PX)


def lattice(
    rng: np.random.Generator,
    spacing_px: float,
    jitter: float,
    margin_px: float,
    origin: tuple[float, float] | None = None,
) -> tuple[Array, Array]:
    """A rotated, jittered hexagonal lattice over patch and margin: y [M], x [M]; ``origin`` is its first point."""
    cosine, sine = unit_vector(rng)
    if origin is None:
        start = rng.random(2) * spacing_px + PATCH_PX / 2
        origin = (float(start[0]), float(start[1]))
    reach = int((PATCH_PX / 2 + margin_px) * 1.42 / (0.866 * spacing_px)) + 2
    if max(abs(o - PATCH_PX / 2) for o in origin) > spacing_px:
        reach *= 2
    steps = np.arange(-reach, reach + 1, dtype=np.float32)
    b = np.repeat(steps, steps.size)
    a = np.tile(steps, steps.size) + np.float32(0.5) * (b % 2)
    noise = (rng.random((2, a.size), dtype=np.float32) - np.float32(0.5)) * np.float32(2 * jitter)
    first = a.size // 2
    noise[:, first] = 0
    a = (a + noise[0]) * np.float32(spacing_px)
    b = (b * np.float32(0.8660254) + noise[1]) * np.float32(spacing_px)
    y = np.float32(origin[0]) + a * sine + b * cosine
    x = np.float32(origin[1]) + a * cosine - b * sine
    low, high = np.float32(-margin_px), np.float32(PATCH_PX + margin_px)
    inside = (y > low) & (y < high) & (x > low) & (x < high)
    inside[first] = False
    order = np.concatenate([[first], np.flatnonzero(inside)])
    return y[order], x[order]


def scatter(rng: np.random.Generator, kind: CellType, y: Array, x: Array) -> Cells:
    """Individual cells of ``kind`` at (y, x)."""
    n = len(y)
    noise = rng.random((10, n), dtype=np.float32) - np.float32(0.5)
    bell = (noise[0] + noise[1] + noise[2]) * 2
    size = np.float32(kind.axis) * np.clip(1 + np.float32(kind.spread) * bell, 0.55, 1.7)
    stretch = np.float32(kind.elongation) * (noise[3] + np.float32(0.5))
    radius = np.maximum(np.float32(kind.radius), size * np.float32(1.08)) * (1 + np.float32(0.16) * noise[4])
    slack = np.maximum(np.float32(kind.radius) - size, np.float32(0.4))
    cosine, sine = unit_vector(rng, n)
    return Cells(
        y=y,
        x=x,
        radius=radius,
        nucleus_y=y + noise[5] * slack,
        nucleus_x=x + noise[6] * slack,
        long_axis=size * (1 + stretch),
        short_axis=size / (1 + stretch),
        cosine=cosine,
        sine=sine,
        dent=np.float32(kind.dent) * (noise[7] + np.float32(0.7)),
        chromatin=np.float32(kind.chromatin) * (1 + np.float32(0.6) * noise[8]),
        vesicular=np.clip(np.float32(kind.vesicular) + np.float32(0.3) * noise[9], 0, 1),
        nucleolus=np.float32(kind.nucleolus) * (noise[4] + np.float32(0.5)),
        haematoxylin=np.float32(kind.haematoxylin) * (1 + np.float32(0.5) * noise[7]),
        eosin=np.float32(kind.eosin) * (1 + np.float32(0.5) * noise[3]),
    )


def draw_cells(rng: np.random.Generator, cells: Cells, edge_px: float = 1.1) -> CellLayer:
    """Draw the layer; nuclear outlines are ``edge_px`` soft and slightly uneven."""
    pixels, owner, near, gap = _territories(cells)
    table = np.stack(
        [cells.radius, cells.nucleus_y, cells.nucleus_x, cells.cosine, cells.sine, 1 / cells.long_axis,
         1 / cells.short_axis, (cells.long_axis + cells.short_axis) * np.float32(0.5 / edge_px), cells.dent,
         cells.chromatin, cells.vesicular, cells.nucleolus, cells.haematoxylin, cells.eosin]
    )  # fmt: skip
    (radius, nucleus_y, nucleus_x, cosine, sine, by_long, by_short, size, dent, chromatin, vesicular, nucleolus,
     haematoxylin, eosin) = np.take(table, owner, axis=1)  # fmt: skip
    uneven, wavy = smooth_noise(rng, 3.2).ravel()[pixels], smooth_noise(rng, 3.2).ravel()[pixels]
    body = np.clip((1 - near - np.float32(0.12) * uneven) * radius * np.float32(0.7), 0, 1)
    dy = _ROW[pixels] - nucleus_y + np.float32(0.5) * uneven
    dx = _COLUMN[pixels] - nucleus_x - np.float32(0.4) * wavy
    u = (dx * cosine + dy * sine) * by_long
    v = (dy * cosine - dx * sine) * by_short
    uu, vv = u * u, v * v
    round_ = uu + vv
    square = np.maximum(round_ + dent * (u * (uu - 3 * vv) + np.float32(0.8) * u * v), 0)
    cover = np.clip((1 - np.sqrt(square)) * size + np.float32(0.5), 0, 1) * (round_ < 4)
    rim = np.minimum(square * square, 1)
    spot = np.maximum(1 - ((u - dent) ** 2 + (v + dent) ** 2) * size * size * np.float32(0.4), 0)
    return CellLayer(
        pixels=pixels,
        membrane=np.clip(1 - gap * radius * np.float32(0.6), 0, 1) * body,
        body=body,
        nucleus=cover,
        chromatin=chromatin * (1 - vesicular * (1 - rim)) + nucleolus * spot,
        haematoxylin=haematoxylin,
        eosin=eosin,
    )


_ROW, _COLUMN = ROWS.ravel(), COLUMNS.ravel()


def _territories(cells: Cells) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array]:
    """For the P pixels within a cell: flat index, cell, distance to it (in its radii), gap to the second nearest."""
    half = int(np.ceil(cells.radius.max()))
    pad = 2 * half + 1
    width = PATCH_PX + 2 * pad
    iy, ix = np.floor(cells.y).astype(np.intp), np.floor(cells.x).astype(np.intp)
    near = (iy >= -half) & (iy < PATCH_PX + half) & (ix >= -half) & (ix < PATCH_PX + half)
    number = np.flatnonzero(near)
    iy, ix = iy[near], ix[near]
    steps = np.arange(-half, half + 1, dtype=np.intp)
    scale = 1 / cells.radius[near]
    dy = (steps - (cells.y[near] - iy)[:, None]).astype(np.float32) * scale[:, None]
    dx = (steps - (cells.x[near] - ix)[:, None]).astype(np.float32) * scale[:, None]
    square = ((dy * dy)[:, :, None] + (dx * dx)[:, None, :]).ravel()
    start = (iy + pad) * width + ix + pad
    pixel = (start[:, None, None] + (steps * width)[None, :, None] + steps[None, None, :]).ravel()
    close = np.flatnonzero(square < 1)
    value, pixel = square[close], pixel[close]
    first = np.full(width * width, 4, np.float32)
    np.minimum.at(first, pixel, value)
    wins = value <= first[pixel]
    owner = np.full(width * width, -1, np.intp)
    owner[pixel[wins]] = number[close[wins] // (steps.size * steps.size)]
    second = np.full(width * width, 4, np.float32)
    loses = ~wins
    np.minimum.at(second, pixel[loses], value[loses])

    def crop(flat: NDArray[Any]) -> NDArray[Any]:
        return flat.reshape(width, width)[pad : pad + PATCH_PX, pad : pad + PATCH_PX]

    flat_owner = crop(owner).ravel()
    pixels = np.flatnonzero(flat_owner >= 0)
    nearest = np.sqrt(crop(first).ravel()[pixels])
    return pixels, flat_owner[pixels], nearest, np.sqrt(crop(second).ravel()[pixels]) - nearest
