"""What to make: how many slides of which size, with which metastases, in whose folder layout."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.schema import PATCH_MPP_UM_PX, NodeClass
from sentinode.storage import StoreUrl

FIRST_NUMBER: Final = 501
"""Synthetic slides of Camelyon16's layout are numbered from here: the real ones end at 160, and known defects of a
real slide must not be taken for those of a synthetic one."""
DIAMETER_UM: Final = {
    NodeClass.MACRO: (2100.0, 2600.0),
    NodeClass.MICRO: (320.0, 1400.0),
    NodeClass.ITC: (70.0, 180.0),
}
"""Range of the longest diameter of a metastasis of each class."""


class SlideContents(Frozen):
    """What one synthetic slide shows."""

    width_px: int = Field(default=6144, ge=512, le=250_000)
    """Width at level 0."""
    height_px: int = Field(default=6144, ge=512, le=250_000)
    """Height at level 0."""
    um_px: float = Field(default=0.5, ge=0.2, le=1.1)
    """Micrometres per pixel at level 0; tissue is drawn at 0.7 to 1.1 and enlarged."""
    macro: int = Field(default=0, ge=0, le=20)
    """Metastases over 2 mm."""
    micro: int = Field(default=0, ge=0, le=100)
    """Metastases from 0.2 to 2 mm."""
    itc: int = Field(default=0, ge=0, le=100)
    """Groups of isolated tumour cells, up to 0.2 mm."""
    pen: bool = False
    """A stroke of a felt pen on the glass, beside and over the tissue."""
    blur: bool = False
    """A part of the tissue out of focus (Gaussian, 4 um)."""
    centre: int = Field(default=0, ge=0)
    """Laboratory: its stain and scanner."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything."""

    @property
    def enlargement(self) -> int:
        """How many pixels of level 0 a drawn one is wide."""
        return max(1, round(PATCH_MPP_UM_PX / self.um_px))

    @property
    def drawn_um_px(self) -> float:
        """Micrometres per drawn pixel."""
        return self.um_px * self.enlargement

    @property
    def wanted(self) -> list[NodeClass]:
        """The class of each metastasis, largest first."""
        return [NodeClass.MACRO] * self.macro + [NodeClass.MICRO] * self.micro + [NodeClass.ITC] * self.itc


class SynthesizeConfig(Frozen):
    """Make synthetic whole slides with ASAP XML and label files, in the folder layout of Camelyon16 or Camelyon17."""

    out: StoreUrl
    """Folder or s3://bucket/prefix for the slides; what stands there under the same name is replaced."""
    layout: Literal["camelyon16", "camelyon17"] = "camelyon16"
    """camelyon16: training/ and testing/ with reference.csv; camelyon17: five nodes a patient, with
    stage_labels.csv."""
    training: int = Field(default=4, ge=0, le=400)
    """Slides of the training set (camelyon16); every other one has tumour."""
    testing: int = Field(default=4, ge=0, le=400)
    """Slides of the test set (camelyon16); every other one has tumour."""
    patients: int = Field(default=2, ge=0, le=100)
    """Patients (camelyon17)."""
    centres: int = Field(default=2, ge=1, le=5)
    """Laboratories, each with its stain and scanner."""
    width_px: int = Field(default=6144, ge=512, le=250_000)
    """Width of each slide at level 0."""
    height_px: int = Field(default=6144, ge=512, le=250_000)
    """Height of each slide at level 0."""
    um_px: float = Field(default=0.5, ge=0.2, le=1.1)
    """Micrometres per pixel at level 0."""
    pen_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the slides with pen marks."""
    blur_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the slides with a blurred part."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything: the same settings give the same slides."""

    @model_validator(mode="after")
    def _makes_something(self) -> Self:
        if not (self.training + self.testing if self.layout == "camelyon16" else self.patients):
            raise ConfigError(
                "no slide to make",
                "training, testing or, for camelyon17, patients above 0",
                "raise one of them",
            )
        return self
