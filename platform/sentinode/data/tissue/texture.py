"""Patches of one kind of tissue all over, from which larger pictures are laid: see ``cohort.synthetic``."""

from __future__ import annotations

from typing import Final

import numpy as np

from sentinode.data.tissue.cells import draw_cells, lattice, scatter
from sentinode.data.tissue.noise import Array, ramp, smooth_noise, unit_vector
from sentinode.data.tissue.scene import (
    KINDS,
    Tissue,
    TissueStyle,
    ground_of,
    lay_large,
    lay_lymphocytes,
    lay_spindles,
    lay_tumour,
)
from sentinode.schema import PATCH_PX

TUMOUR: Final = "tumour"
TEXTURES: Final = ("lymphoid", "follicle", "sinus", "histiocytes", "stroma", "fat", TUMOUR)
_MARGIN_PX: Final = 12


def grow_texture(rng: np.random.Generator, style: TissueStyle, name: str) -> Tissue:
    """A patch [96, 96] of the tissue ``name``, one of TEXTURES, without parting or blood.

    Tumour lies in its fibrous bed and fills most of the patch: an outline drawn around it holds little else.
    """
    kind = KINDS["stroma" if name == TUMOUR else name]
    shape = (PATCH_PX, PATCH_PX)
    h, e, b = np.zeros((3, *shape), np.float32)
    tissue = Tissue(h, e, b, np.zeros(shape, bool))
    cosine, sine = unit_vector(rng)
    ground = ground_of(rng, "stroma" if name == TUMOUR else name, kind, style, cosine, sine)
    tissue.lay_ground(ground, np.ones(shape, np.float32))
    room = ground.room.copy()
    if kind.large is not None:
        lay_large(rng, tissue, kind.large, ground.room)
    if name == TUMOUR:
        room *= _fill_with_tumour(rng, tissue, style)
    density = np.float32(np.mean(kind.lymphocytes))
    lay_lymphocytes(rng, tissue, style, density * room)
    lay_spindles(rng, tissue, np.float32(kind.spindles) * room, cosine, sine)
    return tissue


def _fill_with_tumour(rng: np.random.Generator, tissue: Tissue, style: TissueStyle) -> Array:
    """Nests of the slide's tumour with narrow strands between them; returns the room left for other cells."""
    tumour = style.tumour
    y, x = lattice(rng, tumour.spacing, 0.33, _MARGIN_PX)
    cells = scatter(rng, tumour.cell, y, x)
    cells.align(*unit_vector(rng), tumour.alignment)
    nests = ramp(smooth_noise(rng, 24), -1.3, -0.9)
    return lay_tumour(rng, tissue, draw_cells(rng, cells.sown(rng, nests)), tumour)
