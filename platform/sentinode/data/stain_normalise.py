"""Stain normalisation: images of any laboratory made to look like one reference, as an option of evaluation.

All functions take and give images float32 [B, 3, H, W] in [0, 1]; each image is treated alone, all at once.
"""

from __future__ import annotations

from typing import Literal

import torch

from sentinode.config import Frozen
from sentinode.data.stain import optical_density

Kind = Literal["none", "macenko", "reinhard"]

_TISSUE_DENSITY = 0.15
"""Pixels of less optical density in any colour are background (Macenko's beta)."""
_ANGLE_QUANTILES = (0.01, 0.99)
_AMOUNT_QUANTILE = 0.99
_FEWEST_TISSUE_PX = 100
"""Images with less tissue are left as they are: their stains cannot be told."""

_LMS_FROM_RGB = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_OPPONENT_FROM_LMS = (
    (3**-0.5, 3**-0.5, 3**-0.5),
    (6**-0.5, 6**-0.5, -2 * 6**-0.5),
    (2**-0.5, -(2**-0.5), 0.0),
)


class StainNormConfig(Frozen):
    """What evaluation images are made to look like."""

    kind: Kind = "none"
    """macenko: stain vectors and amounts; reinhard: mean and spread of colours; none: images as they are."""
    target_stains: tuple[tuple[float, float, float], tuple[float, float, float]] = (
        (0.5626, 0.7201, 0.4062),
        (0.2159, 0.8012, 0.5581),
    )
    """Haematoxylin and eosin of the reference: unit vectors of optical density in RGB (macenko)."""
    target_amounts: tuple[float, float] = (1.9705, 1.0308)
    """99th percentile of the amount of each in the reference (macenko)."""
    target_mean: tuple[float, float, float] = (-0.437, -0.047, 0.018)
    """Mean of the reference in l, alpha, beta (reinhard); default: the median PCam patch."""
    target_std: tuple[float, float, float] = (0.286, 0.050, 0.012)
    """Standard deviation of the reference in l, alpha, beta (reinhard); default: the median PCam patch."""


@torch.no_grad()
def normalise_stain(images_BCHW: torch.Tensor, config: StainNormConfig) -> torch.Tensor:
    """Images with the reference's stains; ``images_BCHW`` itself for kind none."""
    if config.kind == "macenko":
        return macenko(images_BCHW, config)
    if config.kind == "reinhard":
        return reinhard(images_BCHW, config)
    return images_BCHW


def reinhard(images_BCHW: torch.Tensor, config: StainNormConfig) -> torch.Tensor:
    """Match mean and standard deviation in the l-alpha-beta space of Ruderman.

    Reinhard, Ashikhmin, Gooch and Shirley, "Color transfer between images", IEEE CG&A 21 (2001) 34-41.
    """
    to_lms = torch.tensor(_LMS_FROM_RGB, device=images_BCHW.device)
    to_opponent = torch.tensor(_OPPONENT_FROM_LMS, device=images_BCHW.device)
    lms = (to_lms @ images_BCHW.flatten(2)).clamp_(min=1 / 255)
    opponent = to_opponent @ lms.log10()
    std, mean = torch.std_mean(opponent, dim=2, keepdim=True, correction=0)
    target_mean = opponent.new_tensor(config.target_mean)[:, None]
    target_std = opponent.new_tensor(config.target_std)[:, None]
    matched = (opponent - mean) * (target_std / std.clamp(min=1e-6)) + target_mean
    lms = torch.pow(10, to_opponent.T @ matched)
    rgb: torch.Tensor = torch.linalg.inv(to_lms) @ lms
    return rgb.clamp_(0, 1).view_as(images_BCHW)


def macenko(images_BCHW: torch.Tensor, config: StainNormConfig) -> torch.Tensor:
    """Find each image's two stain vectors, and put the reference's vectors and amounts in their place.

    Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009,
    1107-1110. The stain vectors are the extreme directions of optical density in the plane of its two main
    components. Natural logarithms are used throughout; only ratios of densities matter.
    """
    density = optical_density(images_BCHW)  # [B, 3, HW]
    tissue = (density >= _TISSUE_DENSITY).all(dim=1)  # [B, HW]
    enough = tissue.sum(dim=1) >= _FEWEST_TISSUE_PX
    stains = _stain_vectors(density, tissue)  # [B, 3, 2]
    amounts = torch.linalg.pinv(stains) @ density  # [B, 2, HW]
    largest = torch.quantile(amounts, _AMOUNT_QUANTILE, dim=2, keepdim=True).clamp(min=1e-3)
    scaled = amounts * (density.new_tensor(config.target_amounts)[:, None] / largest)
    normalised = (density.new_tensor(config.target_stains).T @ scaled).neg_().exp_().clamp_(0, 1)
    return torch.where(enough[:, None, None, None], normalised.view_as(images_BCHW), images_BCHW)


def _stain_vectors(density: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
    """[B, 3, 2]: haematoxylin and eosin as unit vectors of optical density; haematoxylin has more red."""
    weight = tissue[:, None].to(density.dtype)
    count = weight.sum(dim=2, keepdim=True).clamp(min=1)
    mean = (density * weight).sum(dim=2, keepdim=True) / count
    centred = (density - mean) * weight
    _, axes = torch.linalg.eigh(centred @ centred.mT / count)
    plane = axes[:, :, 1:]  # [B, 3, 2], the larger component last
    plane = plane * torch.where(plane.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    projected = plane.mT @ density
    angle = torch.atan2(projected[:, 0], projected[:, 1]).masked_fill(~tissue, float("nan"))
    extremes = torch.nanquantile(angle, angle.new_tensor(_ANGLE_QUANTILES), dim=1).nan_to_num()  # [2, B]
    directions = torch.stack([extremes.sin(), extremes.cos()])  # [2, 2 quantiles, B]
    vectors = torch.einsum("bcp,pqb->bcq", plane, directions)
    redder_first = vectors[:, 0, 0] >= vectors[:, 0, 1]
    return torch.where(redder_first[:, None, None], vectors, vectors.flip(2))
