"""The tissue of a patch before it is stained: which tissues lie where, their ground substance and their cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue_cells import CellLayer, Cells, draw_cells, lattice
from sentinode.data.tissue_noise import COLUMNS, ROWS, Array, blur, fibres, ramp, smooth_noise, unit_vector
from sentinode.data.tissue_tumour import TumourStyle, draw_tumour_style, grow_tumour
from sentinode.schema import PATCH_PX

_KINDS = ("lymphoid", "follicle", "sinus", "stroma", "fat", "histiocytes", "glass")
_SHARES = (0.40, 0.09, 0.13, 0.15, 0.13, 0.07, 0.03)


@dataclass(slots=True)
class Tissue:
    """Stain amounts of a patch, float32 [96, 96] each, and where tumour lies, bool [96, 96]."""

    haematoxylin: Array
    eosin: Array
    blood: Array
    tumour: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TissueStyle:
    """How the cells of one slide look."""

    lymph_axis: float
    """Semi-axis of lymphocyte nuclei, px."""
    lymph_chromatin: float
    packing: float
    """Spacing of lymphocytes, px."""
    ground: float
    """Eosin of what lies between them."""
    tumour: TumourStyle


def draw_style(rng: np.random.Generator) -> TissueStyle:
    """Draw the style of a slide."""
    return TissueStyle(
        lymph_axis=float(rng.uniform(2.9, 3.5)),
        lymph_chromatin=float(rng.uniform(1.5, 2.1)),
        packing=float(rng.uniform(6.6, 7.6)),
        ground=float(rng.uniform(0.3, 0.7)),
        tumour=draw_tumour_style(rng),
    )


def grow_tissue(rng: np.random.Generator, style: TissueStyle, wants_tumour: bool, hard_share: float) -> Tissue:
    """Grow a patch; ``wants_tumour`` puts tumour into its central 32x32, otherwise the centre stays free of it."""
    kinds = [str(k) for k in rng.choice(_KINDS, size=2, p=_SHARES)]
    part = _parting(rng) if rng.random() < 0.45 else np.zeros((PATCH_PX, PATCH_PX), np.float32)
    tissue = Tissue(*(np.zeros((3, PATCH_PX, PATCH_PX), np.float32)), np.zeros((PATCH_PX, PATCH_PX), bool))
    weights = {kind: np.zeros((PATCH_PX, PATCH_PX), np.float32) for kind in _KINDS}
    weights[kinds[0]] += 1 - part
    weights[kinds[1]] += part
    room = np.ones((PATCH_PX, PATCH_PX), np.float32)
    for kind in dict.fromkeys(kinds):
        weight = weights[kind]
        if weight.max() > 0.02:
            room -= weight * (1 - _lay_ground(rng, tissue, kind, weight, style))
    _lay_large_cells(rng, tissue, weights, room)
    hard = bool(rng.random() < hard_share)
    free = np.ones((PATCH_PX, PATCH_PX), np.float32)
    if wants_tumour or rng.random() < 0.25:
        layer = grow_tumour(rng, style.tumour, wants_tumour, hard)
        if layer is not None:
            free = _lay_tumour(rng, tissue, layer, style.tumour)
    _lay_lymphocytes(rng, tissue, weights, room * free, style)
    _lay_spindles(rng, tissue, weights, free)
    return tissue


def _parting(rng: np.random.Generator) -> Array:
    """Weight of the second tissue: one side of a wavy line."""
    c, s = unit_vector(rng)
    offset = np.float32(rng.uniform(-30, 30))
    side = (COLUMNS - 48) * c + (ROWS - 48) * s + offset + 8 * smooth_noise(rng, 30)
    return ramp(side, -3, 3)


def _lay_ground(rng: np.random.Generator, tissue: Tissue, kind: str, weight: Array, style: TissueStyle) -> Array:
    """Add the ground substance of ``kind``; returns where cells can lie (1) and where not (0)."""
    fine, coarse = smooth_noise(rng, 3.0), smooth_noise(rng, 14)
    room = np.ones((PATCH_PX, PATCH_PX), np.float32)
    if kind in ("stroma", "fat", "glass"):
        h, e, room = _FIBROUS[kind](rng, fine, coarse)
    else:
        loose = {"lymphoid": 0.15, "follicle": 0.1, "sinus": 1.0, "histiocytes": 0.4}[kind]
        e = style.ground * (0.75 + 0.45 * fine + 0.2 * coarse)
        h = 0.14 + 0.07 * fine
        holes = ramp(coarse + 0.4 * fine, 1.9 - loose, 2.3 - loose)
        e, h = e * (1 - 0.9 * holes), h * (1 - 0.95 * holes)
        room = 1 - holes
    tissue.eosin += weight * np.maximum(e, 0)
    tissue.haematoxylin += weight * np.maximum(h, 0)
    if kind != "glass" and rng.random() < 0.15:
        _lay_blood(rng, tissue, weight)
    return room


def _stroma(rng: np.random.Generator, fine: Array, coarse: Array) -> tuple[Array, Array, Array]:
    c, s = unit_vector(rng)
    wave = np.float32(rng.uniform(2, 9)) * smooth_noise(rng, 26) + np.float32(0.8) * fine
    thick = fibres(rng, float(rng.uniform(3, 7)), wave, c, s)
    thin = fibres(rng, 1.6, wave, c, s)
    gaps = ramp(thick + 0.2 * coarse, 0.1, 0.35)
    e = gaps * (0.45 + 0.55 * thick + 0.35 * thin) * np.float32(rng.uniform(0.5, 1.5))
    return 0.06 + 0.1 * thin * gaps, e + 0.05, np.zeros_like(e)


def _fat(rng: np.random.Generator, fine: Array, coarse: Array) -> tuple[Array, Array, Array]:
    spacing = float(rng.uniform(35, 75))
    y, x = lattice(rng, spacing, 0.25, spacing)
    nearest = np.full((2, PATCH_PX, PATCH_PX), 1e6, np.float32)
    bend = 3 * smooth_noise(rng, 22)
    for cy, cx in zip(y, x, strict=True):
        d = np.sqrt((ROWS - cy) ** 2 + (COLUMNS - cx) ** 2) + bend
        nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], d))
        nearest[0] = np.minimum(nearest[0], d)
    width = np.float32(rng.uniform(0.8, 2.0)) + np.maximum(0, 1.2 * coarse)
    wall = ramp(nearest[1] - nearest[0], 2.0, 0.0) * 0.6 + ramp((nearest[1] - nearest[0]) - 2 * width, 1.5, -1.5) * 0.5
    return 0.18 * wall, wall * (0.5 + 0.2 * fine), ramp(wall, 0.3, 0.8)


def _glass(rng: np.random.Generator, fine: Array, coarse: Array) -> tuple[Array, Array, Array]:
    zero = np.zeros_like(fine)
    return zero, zero, zero


_FIBROUS = {"stroma": _stroma, "fat": _fat, "glass": _glass}


def _lay_blood(rng: np.random.Generator, tissue: Tissue, weight: Array) -> None:
    y, x = lattice(rng, 5.5, 0.35, 3)
    where = ramp(smooth_noise(rng, 22), 0.7, 1.0) * weight
    cells = _nucleated(rng, y, x, radius=3.4, axis=2.6, spread=0.1)
    cells = cells.keep(cells.at(where) > rng.random(len(cells), dtype=np.float32))
    if len(cells):
        layer = draw_cells(cells)
        tissue.blood += layer.nucleus * 0.7
        tissue.eosin *= 1 - 0.7 * layer.nucleus


def _lay_large_cells(rng: np.random.Generator, tissue: Tissue, weights: dict[str, Array], room: Array) -> None:
    """Follicle centre cells and histiocytes: large and pale, but no tumour."""
    for kind, spacing, axis, chromatin, vesicular, eosin, haematoxylin in (
        ("follicle", 9.2, 4.0, 0.95, 0.45, 0.35, 0.22),
        ("histiocytes", 12.5, 3.6, 0.75, 0.5, 0.5, 0.08),
        ("sinus", 12.0, 3.4, 0.8, 0.5, 0.4, 0.08),
    ):
        weight = weights[kind]
        if weight.max() < 0.02:
            continue
        y, x = lattice(rng, spacing * float(rng.uniform(0.92, 1.1)), 0.28, 8)
        cells = _nucleated(rng, y, x, radius=spacing * 0.68, axis=axis, spread=0.15)
        cells.chromatin *= np.float32(chromatin)
        cells.vesicular += np.float32(vesicular)
        cells.eosin += np.float32(eosin)
        cells.haematoxylin += np.float32(haematoxylin)
        cells.nucleolus += np.float32(0.3)
        cells.shift_y = (rng.random(len(cells), dtype=np.float32) - 0.5) * np.float32(spacing * 0.25)
        cells = cells.keep(cells.at(weight * (0.3 + 0.7 * room)) > rng.random(len(cells), dtype=np.float32))
        if len(cells):
            _lay_cells(rng, tissue, draw_cells(cells), membrane=-0.3)


def _lay_cells(rng: np.random.Generator, tissue: Tissue, layer: CellLayer, membrane: float) -> None:
    """Put cell bodies, then nuclei over what is there."""
    grain = 1 + 0.16 * smooth_noise(rng, 2.2)
    body = layer.body
    wall = 1 + membrane * layer.membrane
    tissue.eosin += body * (layer.eosin * grain * wall - tissue.eosin)
    tissue.haematoxylin += body * (layer.haematoxylin * grain * wall - tissue.haematoxylin)
    tissue.haematoxylin += layer.nucleus * (layer.chromatin * grain - tissue.haematoxylin)
    tissue.eosin *= 1 - 0.45 * layer.nucleus
    tissue.blood *= 1 - layer.nucleus


def _lay_tumour(rng: np.random.Generator, tissue: Tissue, layer: CellLayer, style: TumourStyle) -> Array:
    """Put the tumour layer; returns where other cells still have room."""
    cleft = ramp(layer.distance, 1.35, 1.0) * (1 - layer.body) * np.float32(style.cleft)
    tissue.eosin *= 1 - cleft
    tissue.haematoxylin *= 1 - cleft
    _lay_cells(rng, tissue, layer, membrane=style.membrane)
    tissue.tumour |= layer.distance < 1
    infiltrate = np.float32(rng.random() * 0.12)
    return np.where(layer.distance < 1.1, infiltrate, np.float32(1)) * (1 - layer.nucleus)


def _lay_lymphocytes(
    rng: np.random.Generator, tissue: Tissue, weights: dict[str, Array], room: Array, style: TissueStyle
) -> None:
    density = np.float32(rng.uniform(0.75, 1.0))
    where = weights["lymphoid"] * density * ramp(smooth_noise(rng, 18), -2.6, -1.2)
    where = where + weights["follicle"] * 0.3 + weights["sinus"] * np.float32(rng.uniform(0.15, 0.7))
    where = where + weights["histiocytes"] * 0.1 + weights["stroma"] * 0.06 + weights["fat"] * 0.5
    stroma = weights["stroma"] > 0.5
    where = where * np.where(stroma, 1, room)
    y, x = lattice(rng, style.packing * float(rng.uniform(0.95, 1.12)), 0.24, 5)
    axis = style.lymph_axis
    cells = _nucleated(rng, y, x, radius=axis * 1.3, axis=axis, spread=0.1)
    cells.chromatin *= np.float32(style.lymph_chromatin)
    cells.vesicular += np.float32(0.22)
    cells.eosin += np.float32(style.ground * 0.8)
    cells.haematoxylin += np.float32(0.2)
    cells = cells.keep(cells.at(where) > rng.random(len(cells), dtype=np.float32))
    if len(cells):
        _lay_cells(rng, tissue, draw_cells(cells), membrane=-0.3)


def _lay_spindles(rng: np.random.Generator, tissue: Tissue, weights: dict[str, Array], free: Array) -> None:
    """Fibroblasts and endothelium: thin, long, dark nuclei."""
    where = (weights["stroma"] * 0.5 + weights["fat"] * 0.1 + weights["lymphoid"] * 0.03) * free
    y, x = lattice(rng, 13, 0.5, 6)
    cells = _nucleated(rng, y, x, radius=7, axis=3.2, spread=0.25)
    cells.short_axis *= np.float32(0.4)
    cells.long_axis *= np.float32(1.5)
    c, s = unit_vector(rng)
    cells.cosine = cells.cosine * np.float32(0.15) + c
    cells.sine = cells.sine * np.float32(0.15) + s
    cells.chromatin *= np.float32(1.2)
    cells = cells.keep(cells.at(where) > rng.random(len(cells), dtype=np.float32))
    if len(cells):
        layer = draw_cells(cells)
        layer.body *= 0
        _lay_cells(rng, tissue, layer, membrane=0)


def _nucleated(rng: np.random.Generator, y: Array, x: Array, radius: float, axis: float, spread: float) -> Cells:
    """Cells at (y, x) with round nuclei of semi-axis ``axis`` (relative ``spread``), chromatin about 1, no cytoplasm."""
    n = len(y)
    noise = rng.random((5, n), dtype=np.float32)
    cosine, sine = unit_vector(rng, n)
    size = np.float32(axis) * (1 + np.float32(2 * spread) * (noise[0] - np.float32(0.5)) * 2)
    round_ = 1 - np.float32(0.22) * noise[1]
    zeros = np.zeros((7, n), np.float32)
    return Cells(
        y=y, x=x, radius=np.full(n, radius, np.float32), long_axis=size, short_axis=size * round_,
        cosine=cosine, sine=sine, shift_y=zeros[0], shift_x=zeros[1], dent=np.float32(0.16) * noise[2],
        chromatin=np.float32(0.75) + np.float32(0.5) * noise[3], vesicular=zeros[2], nucleolus=zeros[3],
        haematoxylin=zeros[4], eosin=zeros[5],
    )  # fmt: skip
