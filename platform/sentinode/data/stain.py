"""Haematoxylin and eosin: stains multiplied in optical density, for augmentation and for normalisation.

Light through stained tissue follows Beer and Lambert: optical density OD = -ln(intensity) is a sum of stain
vectors times amounts. All functions take images float32 [B, 3, H, W] in [0, 1] (red, green, blue).
"""

from __future__ import annotations

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
    stains = torch.tensor(RUIFROK_HED, device=images_BCHW.device)
    unmix = torch.linalg.inv(torch.tensor(RUIFROK_HED, dtype=torch.float64)).to(stains)
    map_B33 = torch.einsum("rs,bs,sc->bcr", unmix, gain_BS, stains)
    offset_B31 = (shift_BS @ stains)[:, :, None]
    density = torch.baddbmm(offset_B31, map_B33, optical_density(images_BCHW))
    return density.neg_().exp_().clamp_(0, 1).view_as(images_BCHW)
