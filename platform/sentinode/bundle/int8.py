"""What the card says of a bundle's int8 graph."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from sentinode.config import Frozen

Int8Method = Literal["static QDQ", "dynamic"]

INT8_TOLERANCE: Final = 0.02
"""By how much a golden probability may lie further off than when it was sealed: int8 kernels round differently on other
processors."""


class Int8Facts(Frozen):
    """``card.int8``: how ``model.int8.onnx`` was made, and its AUROC on validation beside the float graph's."""

    method: Int8Method
    calibration_patches: int
    """Training patches from which ranges were taken; 0 for dynamic."""
    patches: int
    """Labelled validation patches on which both were measured."""
    auroc: float
    auroc_loss: float
    """The float graph's AUROC minus that of int8."""
    auroc_loss_low: float | None = None
    auroc_loss_high: float | None = None
    """95 % interval (DeLong; over slides where these are known); None where not estimable."""
    golden_difference: float = Field(ge=0)
    """The largest difference of a golden probability from the float graph's when it was sealed."""
