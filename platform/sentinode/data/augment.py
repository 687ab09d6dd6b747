"""Augmentation of whole batches on their device, drawn from (seed, epoch, sample id) alone.

Each change is one function of images float32 [B, 3, H, W] in [0, 1] and its parameters for each image,
without loops over images and without waiting for the device. ``augment`` draws the parameters and applies
the changes in turn.
"""

from __future__ import annotations

import torch
from pydantic import Field

from sentinode.config import Frozen
from sentinode.data.jpeg_loss import jpeg_loss
from sentinode.data.random_bits import uniform
from sentinode.data.stain import jitter_stains
from sentinode.errors import ConfigError

_LARGEST_SHIFT_PX = 8
_CACHED_BYTES = 1_800_000
"""On a CPU, images changed at a time: few enough that the steps between stay in its cache, sixteen of 96 pixels."""


class AugmentConfig(Frozen):
    """Random changes to training images. Every strength of 0 (False) switches its change off."""

    dihedral: bool = True
    """One of the eight symmetries of the square, all equally likely."""
    shift_px: int = Field(default=2, ge=0, le=_LARGEST_SHIFT_PX)
    """Shift by up to so many pixels each way, edges mirrored. PCam's label asks for tumour in the central
    32x32, which a shift of a few pixels moves in or out only where tumour just touches that square's
    border; hence the limit."""
    brightness: float = Field(default=0.05, ge=0, le=1)
    """Added to all values: up to so much of full scale, darker or lighter."""
    contrast: float = Field(default=0.1, ge=0, lt=1)
    """Distance from the image's mean multiplied by 1 plus or minus up to so much."""
    hed: float = Field(default=0.05, ge=0, le=1)
    """Haematoxylin, eosin and residual stain each multiplied by 1 plus or minus up to so much, and shifted
    by up to so much optical density."""
    jpeg_loss: int = Field(default=0, ge=0, le=95)
    """JPEG-like loss at a quality drawn between 100 minus this and 100."""


@torch.no_grad()
def augment(
    images_BCHW: torch.Tensor, config: AugmentConfig, seed: int, epoch: int, sample_ids_B: torch.Tensor
) -> torch.Tensor:
    """Changed copies of ``images_BCHW`` (float32 in [0, 1], square), on the same device.

    ``sample_ids_B`` int64: each image's own randomness. The same (seed, epoch, id) gives the same change in
    any batch, on any rank. Raises ConfigError for images that are not square or too small for the shift.
    """
    height, width = images_BCHW.shape[2:]
    if height != width or config.shift_px >= height:
        raise ConfigError(f"images of {height}x{width} pixels", "square ones, larger than the shift")
    draws_BD = uniform(sample_ids_B.to(images_BCHW.device), 12, "augment", seed, epoch)
    if images_BCHW.device.type != "cpu":
        return _change(images_BCHW, config, draws_BD)
    size = max(_CACHED_BYTES // images_BCHW[0].nbytes, 1)
    if size >= len(images_BCHW):
        return _change(images_BCHW, config, draws_BD)
    parts = zip(torch.split(images_BCHW, size), torch.split(draws_BD, size), strict=True)
    return torch.cat([_change(images, config, draws) for images, draws in parts])


def _change(images_BCHW: torch.Tensor, config: AugmentConfig, draws_BD: torch.Tensor) -> torch.Tensor:
    signed = draws_BD * 2 - 1
    if config.dihedral or config.shift_px:
        code_B = (draws_BD[:, 0] * (8 if config.dihedral else 1)).long()
        offsets = (draws_BD[:, 1:3] * (2 * config.shift_px + 1)).long() - config.shift_px
        images_BCHW = move(images_BCHW, code_B, offsets[:, 0], offsets[:, 1])
    if config.hed:
        images_BCHW = jitter_stains(images_BCHW, 1 + config.hed * signed[:, 3:6], config.hed * signed[:, 6:9])
    if config.brightness or config.contrast:
        images_BCHW = adjust(
            images_BCHW, config.brightness * signed[:, 9], 1 + config.contrast * signed[:, 10]
        )
    if config.jpeg_loss:
        images_BCHW = jpeg_loss(images_BCHW, 100 - torch.round(config.jpeg_loss * draws_BD[:, 11]))
    return images_BCHW


def move(
    images_BCHW: torch.Tensor, code_B: torch.Tensor, down_B: torch.Tensor, right_B: torch.Tensor
) -> torch.Tensor:
    """Turn each square image by symmetry ``code_B`` (0 to 7), then shift it by whole pixels; all int64 [B].

    The code's bit 2 transposes, then bit 1 flips rows and bit 0 columns. Pixels from outside are mirrored
    at the edge, the edge pixel not repeated, as numpy's ``reflect``. One gather does both: the row and the
    column that a pixel comes from depend on its row and on its column alone.
    """
    batch, channels, side, _ = images_BCHW.shape
    # First the row and the column (axis A of 2) that each comes from, then where they begin in memory.
    along = torch.arange(side, device=images_BCHW.device)
    axes = torch.tensor([[2], [1]], device=images_BCHW.device)
    from_ABS = _mirror(along - torch.stack([down_B, right_B])[:, :, None], side)
    from_ABS = torch.where((code_B & axes != 0)[:, :, None], side - 1 - from_ABS, from_ABS)
    from_ABS *= torch.where((code_B & 4 != 0) == (axes == 2), 1, side)[:, :, None]
    pixel_BN = (from_ABS[0, :, :, None] + from_ABS[1, :, None, :]).flatten(1)
    index = pixel_BN[:, None, :].expand(batch, channels, -1)
    return images_BCHW.flatten(2).gather(2, index).view(images_BCHW.shape)


def adjust(images_BCHW: torch.Tensor, brightness_B: torch.Tensor, contrast_B: torch.Tensor) -> torch.Tensor:
    """Scale each image's distance from its mean by ``contrast_B``, add ``brightness_B``, clip to [0, 1]."""
    mean_B = images_BCHW.mean(dim=(1, 2, 3))
    offset_B = mean_B * (1 - contrast_B) + brightness_B
    scaled = images_BCHW * contrast_B[:, None, None, None] + offset_B[:, None, None, None]
    return scaled.clamp_(0, 1)


def _mirror(index: torch.Tensor, size: int) -> torch.Tensor:
    return (size - 1) - ((size - 1) - index.abs()).abs()
