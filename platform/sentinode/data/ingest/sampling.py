"""How patches are sampled from whole slides: settings, for ``cohort`` does it."""

from __future__ import annotations

from pydantic import Field

from sentinode.config import Frozen


class SamplingConfig(Frozen):
    """Patches of whole slides by PCam's rule, at 0.972 um/px: tumour if the central 32x32 pixels hold tumour."""

    patches_per_slide: int = Field(default=1000, ge=1, le=100_000)
    """Most patches of each class from one slide."""
    positive_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of tumour patches, in the training and the test slides each; surplus patches are left out."""
    hard_share: float = Field(default=0.3, ge=0, le=1)
    """Share of a slide's negatives that are hard, where there are enough: those near its tumour or, with ``scores``,
    those that the model takes for tumour."""
    near_um: float = Field(default=250.0, gt=0, le=5000)
    """How near to the tumour, from centre to centre, a hard negative lies that no model has told."""
    min_tissue: float = Field(default=0.5, ge=0, le=1)
    """Least share of a patch that is tissue, as ``slides.tissue`` finds it: without pen marks and blur."""
    um_px: float | None = Field(default=None, gt=0, le=10)
    """Micrometres per pixel of every slide at level 0, in place of what its metadata say."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the choice."""
    max_bad_slides: int = Field(default=0, ge=0)
    """Number of slides that cannot be read to tolerate; they are listed and left out."""
