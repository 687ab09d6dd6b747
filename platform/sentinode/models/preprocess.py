"""What stands between a stored patch and the network: fit to the input size, scale to [0, 1], normalise.

The model carries it, so that training, evaluation and serving cannot disagree.
"""

from __future__ import annotations

from typing import Final, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.models.symmetry import SYMMETRIES, turn
from sentinode.schema import PATCH_PX

RGB = tuple[float, float, float]

IMAGENET_MEAN: Final[RGB] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[RGB] = (0.229, 0.224, 0.225)
"""What most pretrained networks of timm were trained with."""

MAX_INPUT_PX: Final = 448
"""Foundation models take 224 pixels and some more; a patch has no detail to fill a larger image."""


class PreprocessConfig(Frozen):
    """How a patch becomes the network's input."""

    input_px: int = Field(default=46, ge=8, le=MAX_INPUT_PX)
    """Side of the network's input in pixels."""
    fit: Literal["resize", "crop"] = "resize"
    """``resize`` keeps the whole field of view at a coarser or finer scale, ``crop`` keeps the scale and the
    centre only.
    """
    mean: RGB = (0.7008, 0.5384, 0.6916)
    """Mean of PCam's train split, per channel, pixels scaled to [0, 1]."""
    std: RGB = (0.2350, 0.2774, 0.2129)
    """Standard deviation of PCam's train split, likewise."""

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.fit == "crop" and self.input_px > PATCH_PX:
            raise ConfigError(
                f"a crop of {self.input_px} pixels from patches of {PATCH_PX}",
                f"at most {PATCH_PX} pixels",
                "set preprocess.fit to resize",
            )
        return self


def resize_matrix(in_px: int, out_px: int) -> Tensor:
    """Weights [out_px, in_px] of antialiased bilinear resampling of one axis; each row sums to 1.

    The triangle filter is stretched by the scale when shrinking (enlarging is plain bilinear), and pixel
    centres are aligned as in ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``. An image:
    ``R @ image @ R.T``.
    """
    scale = in_px / out_px
    width = max(scale, 1.0)
    centres_O = (torch.arange(out_px, dtype=torch.float64) + 0.5) * scale
    pixels_I = torch.arange(in_px, dtype=torch.float64) + 0.5
    weights_OI = (1 - (pixels_I[None, :] - centres_O[:, None]).abs() / width).clamp_min(0)
    return (weights_OI / weights_OI.sum(dim=1, keepdim=True)).float()


class Preprocess(nn.Module):
    """uint8 images_BHWC [B, 96, 96, 3] -> normalised float32 images_BCHW [B, 3, input_px, input_px].

    Resizing is two matrix products, which every runtime computes alike; ``interpolate`` with antialiasing is
    not exported to ONNX faithfully. ``fit`` and ``normalise`` are apart because augmentation goes between
    them.
    """

    rows: Tensor
    """[input_px, 96]: the resize matrix over 255."""
    mean: Tensor
    """[3, 1, 1]"""
    std: Tensor
    """[3, 1, 1]"""

    def __init__(self, config: PreprocessConfig) -> None:
        super().__init__()
        self.config = config
        # Not persistent: they follow from the configuration, and a weights file should hold weights.
        self.register_buffer("rows", resize_matrix(PATCH_PX, config.input_px) / 255, persistent=False)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def fit(self, images_BHWC: Tensor) -> Tensor:
        """uint8 images_BHWC -> float32 images_BCHW in [0, 1] of the network's input size."""
        px = self.config.input_px
        if self.config.fit == "crop" or px == PATCH_PX:
            at = (PATCH_PX - px) // 2
            crop_BHWC = images_BHWC[:, at : at + px, at : at + px, :]
            return crop_BHWC.permute(0, 3, 1, 2).float() / 255
        # Rows first: [B, 96, 96 * 3] needs no transposition, and where the image shrinks fewer pixels are left
        # for the second product.
        rows_BOX = self.rows @ images_BHWC.float().flatten(2)
        rows_BCOW = rows_BOX.reshape(-1, px, PATCH_PX, 3).permute(0, 3, 1, 2)
        fitted_BCOO: Tensor = rows_BCOW @ (self.rows * 255).T
        return fitted_BCOO

    def fit_coarsely(self, images_BHWC: Tensor) -> Tensor:
        """``fit`` to a grey level, for training: on a CPU the pixels stay whole numbers, in a sixth of the time."""
        px = self.config.input_px
        if self.config.fit == "crop" or px == PATCH_PX or images_BHWC.device.type != "cpu":
            return self.fit(images_BHWC)
        fitted_BCOO = interpolate(images_BHWC.permute(0, 3, 1, 2), (px, px), mode="bilinear", antialias=True)
        return fitted_BCOO.contiguous().float() / 255

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """float images_BCHW in [0, 1] -> zero mean and unit variance per channel over PCam."""
        return (images_BCHW - self.mean) / self.std

    def forward(self, images_BHWC: Tensor) -> Tensor:
        return self.normalise(self.fit(images_BHWC))


class Detector(nn.Module):
    """Preprocessing and network as one: uint8 images_BHWC [B, 96, 96, 3] -> tumour logit [B], float32.

    The logit is that of class 1 less that of class 0, so ``sigmoid(logit)`` is the probability of tumour.
    ``tta``: the mean over the eight symmetries of each patch (test-time augmentation).
    """

    def __init__(self, preprocess: Preprocess, net: nn.Module, *, tta: bool = False) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.net = net
        self.tta = tta

    def forward(self, images_BHWC: Tensor) -> Tensor:
        images_BCHW = self.preprocess(images_BHWC)
        if not self.tta:
            return self._score(images_BCHW)
        # One symmetry after the other: as much memory as without.
        return torch.stack([self._score(turn(images_BCHW, code)) for code in range(SYMMETRIES)]).mean(0)

    def _score(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.net(images_BCHW).float()
        return logits_BK[:, 1] - logits_BK[:, 0]
