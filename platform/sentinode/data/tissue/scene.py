"""The tissue of a patch before it is stained: which tissues lie where, and the cells on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sentinode.data.tissue.cells import CellLayer, CellType, draw_cells, lattice, scatter
from sentinode.data.tissue.ground import Ground, blood, fat, glass, pulp, stroma
from sentinode.data.tissue.noise import COLUMNS, ROWS, Array, blur, ramp, smooth_noise, unit_vector
from sentinode.data.tissue.tumour import TumourStyle, draw_tumour_style, grow_tumour
from sentinode.schema import PATCH_PX


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of tissue. Densities are probabilities that a place of the cell's lattice is taken."""

    share: float
    """How often it is the main tissue of a patch."""
    lymphocytes: tuple[float, float]
    """Least and greatest density."""
    spindles: float = 0.0
    holes: float = 0.0
    """How much of the ground is open."""
    large: CellType | None = None
    """Large benign cells: the mimics of tumour."""


_FOLLICLE = CellType(
    radius=5.6, axis=3.6, spread=0.16, elongation=0.25, chromatin=1.7, vesicular=0.4,
    haematoxylin=0.4, eosin=0.4, nucleolus=0.6, dent=0.16,
)  # fmt: skip
_HISTIOCYTE = CellType(
    radius=8.2, axis=3.4, spread=0.15, elongation=0.3, chromatin=1.4, vesicular=0.45,
    haematoxylin=0.1, eosin=0.5, nucleolus=0.4, dent=0.2,
)  # fmt: skip
_SPINDLE = CellType(
    radius=8.0, axis=2.6, spread=0.25, elongation=1.6, chromatin=2.0, vesicular=0.2,
    haematoxylin=0.0, eosin=0.0, dent=0.05,
)  # fmt: skip
KINDS = {
    "lymphoid": Kind(share=0.38, lymphocytes=(0.7, 1.0), spindles=0.04, holes=0.25),
    "follicle": Kind(share=0.08, lymphocytes=(0.1, 0.35), spindles=0.02, holes=0.1, large=_FOLLICLE),
    "sinus": Kind(share=0.12, lymphocytes=(0.15, 0.6), spindles=0.1, holes=1.5, large=_HISTIOCYTE),
    "histiocytes": Kind(share=0.08, lymphocytes=(0.02, 0.2), spindles=0.03, holes=0.3, large=_HISTIOCYTE),
    "stroma": Kind(share=0.16, lymphocytes=(0.0, 0.1), spindles=0.45),
    "fat": Kind(share=0.15, lymphocytes=(0.0, 0.35), spindles=0.3),
    "glass": Kind(share=0.03, lymphocytes=(0.0, 0.0)),
}
_SCANT = ("fat", "glass")


@dataclass(slots=True)
class Tissue:
    """Stain amounts of a patch, float32 [96, 96] each, and where tumour lies, bool [96, 96]."""

    haematoxylin: Array
    eosin: Array
    blood: Array
    tumour: NDArray[np.bool_]

    def lay_ground(self, ground: Ground, weight: Array) -> None:
        """Add a ground substance with its share ``weight`` [96, 96] of each pixel."""
        self.haematoxylin += weight * ground.haematoxylin
        self.eosin += weight * ground.eosin

    def lay_cells(self, rng: np.random.Generator, layer: CellLayer, membrane: float) -> None:
        """Put cell bodies, then nuclei, over what is there; ``membrane`` is extra stain where cells touch."""
        at = layer.pixels
        grain = smooth_noise(rng, 1.4).ravel()[at]
        plasma = (1 + np.float32(0.3) * grain) * (1 + np.float32(membrane) * layer.membrane)
        clumps = 1 + np.float32(0.24) * grain + np.float32(0.18) * smooth_noise(rng, 2.4).ravel()[at]
        nucleus = layer.nucleus * (1 - np.float32(0.45) * layer.membrane)
        eosin, haematoxylin, blood = (a.ravel() for a in (self.eosin, self.haematoxylin, self.blood))
        e, h = eosin[at], haematoxylin[at]
        e += layer.body * (layer.eosin * plasma - e)
        h += layer.body * (layer.haematoxylin * plasma - h)
        # Nuclear protein takes up eosin as well: nuclei are purple, not blue or grey.
        eosin[at] = e + nucleus * (np.float32(0.16) * layer.chromatin - np.float32(0.35) * e)
        haematoxylin[at] = h + nucleus * (layer.chromatin * clumps - h)
        blood[at] *= 1 - nucleus


@dataclass(frozen=True, slots=True)
class TissueStyle:
    """How the tissue of one slide looks."""

    lymphocyte: CellType
    packing: float
    """Spacing of lymphocytes, px."""
    ground_eosin: float
    tumour: TumourStyle


def draw_style(rng: np.random.Generator) -> TissueStyle:
    """Draw the style of a slide."""
    axis = float(rng.uniform(2.55, 3.15))
    ground = float(rng.uniform(0.22, 0.55))
    lymphocyte = CellType(
        radius=axis * 1.3, axis=axis, spread=0.15, elongation=0.24,
        chromatin=float(rng.uniform(2.1, 2.9)), vesicular=0.2, haematoxylin=0.3, eosin=ground * 0.9, dent=0.16,
    )  # fmt: skip
    return TissueStyle(lymphocyte, axis * float(rng.uniform(2.15, 2.5)), ground, draw_tumour_style(rng))


def grow_tissue(
    rng: np.random.Generator, style: TissueStyle, wants_tumour: bool, hard_share: float
) -> Tissue:
    """Grow a patch; ``wants_tumour`` puts tumour into its central 32x32, otherwise that stays free of it."""
    shape = (PATCH_PX, PATCH_PX)
    h, e, b = np.zeros((3, *shape), np.float32)
    tissue = Tissue(h, e, b, np.zeros(shape, bool))
    hard, around = bool(rng.random() < hard_share), bool(rng.random() < 0.18)
    names = rng.choice(list(KINDS), size=2, p=[kind.share for kind in KINDS.values()])
    if (wants_tumour or around) and names[0] in _SCANT and rng.random() < 0.5:
        names[0] = "stroma"  # tumour brings its own fibrous bed (desmoplasia)
    second = _parting(rng) if names[0] != names[1] and rng.random() < 0.45 else None
    weights = [np.ones(shape, np.float32)] if second is None else [1 - second, second]
    cosine, sine = unit_vector(rng)
    lymphocytes, spindles, room = np.zeros((3, *shape), np.float32)
    for name, weight in zip(names, weights, strict=False):
        kind = KINDS[str(name)]
        ground = ground_of(rng, str(name), kind, style, cosine, sine)
        tissue.lay_ground(ground, weight)
        room += weight * ground.room
        lymphocytes += weight * np.float32(rng.uniform(*kind.lymphocytes))
        spindles += weight * np.float32(kind.spindles)
        if kind.large is not None:
            lay_large(rng, tissue, kind.large, weight * ground.room)
    if rng.random() < 0.12:
        lay_blood(rng, tissue, room)
    if wants_tumour or around:
        room *= lay_tumour(rng, tissue, grow_tumour(rng, style.tumour, wants_tumour, hard), style.tumour)
    lay_lymphocytes(rng, tissue, style, lymphocytes * room)
    lay_spindles(rng, tissue, spindles * room, cosine, sine)
    thickness = 1 + np.float32(0.09) * smooth_noise(rng, 30)
    tissue.haematoxylin *= thickness
    tissue.eosin *= thickness
    return tissue


def _parting(rng: np.random.Generator) -> Array:
    """Weight of the second tissue: one side of a wavy line."""
    c, s = unit_vector(rng)
    offset = np.float32(rng.uniform(-30, 30))
    waves = 7 * smooth_noise(rng, 26) + 2 * smooth_noise(rng, 7)
    return ramp((COLUMNS - 48) * c + (ROWS - 48) * s + offset + waves, -1.5, 1.5)


def ground_of(
    rng: np.random.Generator, name: str, kind: Kind, style: TissueStyle, cosine: Array, sine: Array
) -> Ground:
    if name == "stroma":
        return stroma(rng, cosine, sine)
    if name == "fat":
        return fat(rng)
    if name == "glass":
        return glass()
    return pulp(rng, style.ground_eosin * float(rng.uniform(0.8, 1.25)), kind.holes)


def lay_large(rng: np.random.Generator, tissue: Tissue, kind: CellType, where: Array) -> None:
    size = float(rng.uniform(0.88, 1.15))
    eosin = kind.eosin * float(rng.uniform(0.7, 1.5))
    kind = replace(kind, radius=kind.radius * size, axis=kind.axis * size, eosin=eosin)
    y, x = lattice(rng, kind.radius * 1.5, 0.32, 8)
    cells = scatter(rng, kind, y, x).sown(rng, where * np.float32(0.93))
    if len(cells):
        tissue.lay_cells(rng, draw_cells(rng, cells), membrane=float(rng.uniform(-0.5, 0.1)))


def lay_blood(rng: np.random.Generator, tissue: Tissue, room: Array) -> None:
    red = blood(rng, ramp(smooth_noise(rng, 20), 0.6, 0.9) * np.maximum(room, np.float32(0.3)))
    tissue.blood += red * np.float32(0.9)
    tissue.eosin *= 1 - np.float32(0.7) * np.minimum(red, 1)


def lay_tumour(
    rng: np.random.Generator, tissue: Tissue, layer: CellLayer | None, style: TumourStyle
) -> Array:
    """Put a layer of tumour cells with the cleft around it; returns the room left for other cells."""
    if layer is None:
        return np.ones_like(tissue.eosin)
    body = layer.spread(layer.body)
    cleft = 1 - np.float32(style.cleft) * np.minimum(2 * blur(blur(body, 0.25), 0.25), 1)
    tissue.eosin *= cleft
    tissue.haematoxylin *= cleft
    tissue.lay_cells(rng, layer, membrane=style.membrane)
    tissue.tumour.ravel()[layer.pixels] = True
    infiltrate = np.float32(rng.random() * 0.12)
    return np.where(tissue.tumour, infiltrate, np.float32(1)) * (1 - layer.spread(layer.nucleus))


def lay_lymphocytes(rng: np.random.Generator, tissue: Tissue, style: TissueStyle, where: Array) -> None:
    loose = float(rng.uniform(0.96, 1.12))
    y, x = lattice(rng, style.packing * loose, 0.3, 5)
    clearings = ramp(smooth_noise(rng, 11), -2.4, -1.2)
    cells = scatter(rng, style.lymphocyte, y, x).sown(rng, where * clearings)
    if len(cells):
        tissue.lay_cells(rng, draw_cells(rng, cells), membrane=-0.4)


def lay_spindles(rng: np.random.Generator, tissue: Tissue, where: Array, cosine: Array, sine: Array) -> None:
    """Fibroblasts and endothelium along (cosine, sine): thin, long, dark nuclei without a visible body."""
    y, x = lattice(rng, 12, 0.5, 6)
    cells = scatter(rng, _SPINDLE, y, x).sown(rng, where)
    if len(cells):
        cells.align(cosine, sine, 0.8)
        layer = draw_cells(rng, cells)
        layer.body *= 0
        tissue.lay_cells(rng, layer, membrane=0)
