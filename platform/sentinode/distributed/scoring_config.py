"""What decides the scores of slides, and where they are computed."""

from __future__ import annotations

import hashlib
import math

from pydantic import Field

from sentinode.config import Frozen, canonical_json
from sentinode.distributed.tile_scorer import Method
from sentinode.errors import ConfigError
from sentinode.evaluation.slide_model import SlideModel
from sentinode.evaluation.slide_pooling import Pooling, PoolingConfig
from sentinode.schema import PATCH_PX
from sentinode.slides.listing import SlideFile
from sentinode.slides.slide import MAX_REGION_PX
from sentinode.slides.tissue import TissueSettings

FORMAT = 3
"""Raised when the files of a slide change: it is then scored again. 1 judged the glass in the tiles as well, 2 took
what lies within a ring of tumour for a part of it."""


class ScoringSettings(Frozen):
    """What decides the scores of a slide, beside the model."""

    stride_px: int = Field(default=32, ge=4, le=1024)
    """Side of a cell of the heat map in pixels of the model; 32 is the square that PCam labels."""
    method: Method | None = None
    """dense: one pass over each tile, for networks without padding. patches: each patch alone. By default dense
    where the bundle can."""
    mpp_um_px: float | None = None
    """Micrometres per pixel at level 0, for slides that do not say it. It takes the place of their metadata."""
    operating_point: str | None = None
    """Point of the card whose threshold outlines lesions; by default balanced where there is one, else the card's
    default."""
    lesion_threshold: float | None = Field(default=None, gt=0, le=1)
    """Probability that outlines lesions, in place of an operating point's."""
    min_lesion_cells: int = Field(default=2, ge=1)
    """Touching cells that make a lesion; fewer are left out."""
    detections_from: float = Field(default=0.05, gt=0, le=1)
    """Least confidence of a detection in the files for FROC."""
    pooling: PoolingConfig = PoolingConfig()
    """How cells become the slide score."""
    whole_slide: bool = False
    """Score all of the slide, not only its tissue."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found."""

    @property
    def fitted(self) -> SlideModel | None:
        """The slide model that pools, where there is one."""
        return None

    def check_pooling(self, bundle: str, cell_um: float) -> None:
        """Raises ConfigError where cells cannot be pooled so: before a slide is scored, not after."""
        if self.fitted is not None:
            self.fitted.check_fits(bundle, cell_um)
        elif self.pooling.method is Pooling.LOGISTIC:
            raise ConfigError(
                "logistic pooling without a fitted slide model",
                "what sentinode screen fitted on validation slides, as --slide-model",
                "score by another pooling first; sentinode screen then fits one on the heat maps",
            )

    @property
    def shared(self) -> str:
        """Digest of what slides of one table share, beside threshold and size of cells, which their records name."""
        each = {"mpp_um_px", "method", "stride_px", "operating_point", "lesion_threshold"}
        pooled = {"pooling"} if self.fitted else set()
        parts = [FORMAT, self.model_dump(mode="json", exclude=each | pooled)]
        return hashlib.sha256(canonical_json(parts)).hexdigest()

    def key(self, slide: SlideFile, bundle: str) -> str:
        """Digest of all that decides the scores of ``slide`` by model ``bundle``."""
        parts = [FORMAT, self.model_dump(mode="json"), bundle, slide.url, slide.version]
        return hashlib.sha256(canonical_json(parts)).hexdigest()


class PooledSettings(ScoringSettings):
    """Settings of which a fitted slide model pools the cells, in place of ``pooling``."""

    slide_model: SlideModel

    @property
    def fitted(self) -> SlideModel:
        return self.slide_model


class Compute(Frozen):
    """How slides are scored on the machines at hand; it changes no score."""

    actors: int | None = Field(default=None, ge=1)
    """Processes that score; by default one a GPU, else one a CPU of the cluster."""
    cpus_per_actor: int = Field(default=1, ge=1)
    """CPUs of each, which are threads of the model where it has no GPU."""
    gpus_per_actor: float | None = Field(default=None, ge=0)
    """GPUs of each; by default one where the cluster has enough of them."""
    slides_per_actor: int = Field(default=1, ge=1, le=8)
    """Slides that one works on at the same time. With a GPU, 2 or 3 find tissue and write files beside the model; each
    takes its memory."""
    readers: int = Field(default=2, ge=1, le=32)
    """Threads of each that read tiles ahead of the model."""
    tile_cells: int = Field(default=16, ge=1, le=64)
    """Side of a tile in cells. Larger tiles compute fewer pixels twice and take more memory."""
    retries: int = Field(default=2, ge=0)
    """How often work is done again whose process died, before the slide counts as failed."""

    def check_tiles(self, stride_px: int) -> None:
        """Raises ConfigError where a whole tile is more than is read of a slide at once."""
        most_px = math.isqrt(MAX_REGION_PX)
        side_px = (self.tile_cells - 1) * stride_px + PATCH_PX
        if side_px > most_px:
            raise ConfigError(
                f"tiles of {self.tile_cells} cells of {stride_px} pixels a side take {side_px:,} pixels",
                f"at most {most_px:,} pixels",
                f"--tile-cells {(most_px - PATCH_PX) // stride_px + 1}",
            )
