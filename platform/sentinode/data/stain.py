"""Haematoxylin and eosin: stains multiplied in optical density, for augmentation and for normalisation.

Light through stained tissue follows Beer and Lambert: optical density OD = -ln(intensity) is a sum of stain
vectors times amounts. All functions take images float32 [B, 3, H, W] in [0, 1] (red, green, blue).
"""

from __future__ import annotations

import math
from functools import cache

import torch

from sentinode.data.stain_vectors import RUIFROK_HED

_DARKEST = 1 / 255
"""Intensities below one grey level count as one: OD stays finite."""


def optical_density(images_BCHW: torch.Tensor) -> torch.Tensor:
    """OD [B, 3, H W] of each pixel."""
    return images_BCHW.flatten(2).clamp(min=_DARKEST).log().neg_()


def jitter_stains(images_BCHW: torch.Tensor, gain_BS: torch.Tensor, shift_BS: torch.Tensor) -> torch.Tensor:
    """Multiply each image's three stain amounts by ``gain_BS`` and add ``shift_BS`` (both [B, 3]); clipped
    to [0, 1].

    The jitter of Tellez et al., IEEE Trans. Med. Imaging 37 (2018) 2126-2136, in the stain basis of Ruifrok
    and Johnston. Unmixing, jitter and mixing are one affine map of optical density for each image.
    """
    stains, unmix = _stains(images_BCHW.device)
    map_B33 = torch.einsum("rs,bs,sc->bcr", unmix, gain_BS, stains)
    # -OD in powers of two, whose exponential takes a CPU a third of the time.
    offset_B31 = (shift_BS @ stains)[:, :, None] * -math.log2(math.e)
    log2_BCN = images_BCHW.flatten(2).clamp(min=_DARKEST).log2_()
    changed_BCN = torch.baddbmm(offset_B31, map_B33, log2_BCN).exp2_()
    return changed_BCN.clamp_(max=1).view(images_BCHW.shape)


@cache
def _stains(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The stain vectors, float32 [stain, channel], and the inverse of that matrix."""
    stains = torch.tensor(RUIFROK_HED, dtype=torch.float64)
    return stains.to(device, torch.float32), torch.linalg.inv(stains).to(device, torch.float32)
