"""MixUp and CutMix over pairs of neighbours in a batch, drawn from (seed, epoch, sample) alone.

Neighbours 2k and 2k + 1 of the global order are partners; where classes alternate, any two of four neighbours that
bring a patch together with one of its own class as often as not. Ranks hold contiguous parts of a step, so a share of
the batch that is a multiple of 2 (of 4) keeps partners on one rank, and the result does not depend on the number of
ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sentinode.data.random_bits import uniform
from sentinode.training.config import MixConfig, Recipe


def mix_pairs(
    images_BCHW: Tensor,
    targets_B: Tensor,
    config: MixConfig,
    seed: int,
    epoch: int,
    sample_ids_B: Tensor,
    centre_px: float,
    *,
    alternating: bool = False,
) -> tuple[Tensor, Tensor]:
    """Images and targets (share of tumour, float32 [B]) with each pair mixed; an odd last one stays as it is.

    Where both kinds are asked for, each pair takes one by the toss of a coin. ``centre_px``: side of the
    square that decides the label, at the images' scale. ``alternating``: the classes come by turns.
    """
    pairs = len(targets_B) // 2
    if pairs == 0 or not (config.mixup or config.cutmix):
        return images_BCHW, targets_B
    if alternating:
        order_B = _partners(sample_ids_B, seed, epoch)  # its own inverse
        images, targets = mix_pairs(
            images_BCHW[order_B], targets_B[order_B], config, seed, epoch, sample_ids_B[order_B], centre_px
        )
        return images[order_B], targets[order_B]
    draws_P4 = uniform(sample_ids_B[: 2 * pairs : 2], 4, "mix", seed, epoch)
    cutmix_share = float(config.cutmix > 0) / (2 if config.mixup else 1)
    paste_P = draws_P4[:, 0] < cutmix_share
    mixed_share_P = _share(draws_P4[:, 1], config.mixup)
    area_P = _share(draws_P4[:, 1], config.cutmix)
    height, width = images_BCHW.shape[2:]
    mask_PHW, share_P = _boxes(draws_P4[:, 2:4], area_P, height, width, centre_px)
    weight_PHW = torch.where(paste_P[:, None, None], mask_PHW, mixed_share_P[:, None, None])
    share_P = torch.where(paste_P, share_P, mixed_share_P)

    even = images_BCHW[: 2 * pairs].reshape(pairs, 2, *images_BCHW.shape[1:])
    swapped = even.flip(1)
    images = torch.lerp(even, swapped, weight_PHW[:, None, None].to(even.dtype)).flatten(0, 1)
    both = targets_B[: 2 * pairs].reshape(pairs, 2)
    targets = torch.lerp(both, both.flip(1), share_P[:, None]).flatten()
    return torch.cat([images, images_BCHW[2 * pairs :]]), torch.cat([targets, targets_B[2 * pairs :]])


def partners_of(recipe: Recipe) -> int:
    """Neighbours that stay together in mixing: what each rank's share of a step is to be a multiple of."""
    if not (recipe.train.mix.mixup or recipe.train.mix.cutmix):
        return 1
    return 4 if recipe.shuffle.balanced else 2


def _partners(sample_ids_B: Tensor, seed: int, epoch: int) -> Tensor:
    """Places int64 [B] that put partners side by side: of four neighbours the middle ones change places, or not, by
    the toss of a coin. A last one to three stay.
    """
    order_B = torch.arange(len(sample_ids_B), device=sample_ids_B.device)
    firsts_G = order_B[: len(order_B) // 4 * 4 : 4]
    changed_G = firsts_G[uniform(sample_ids_B[firsts_G], 1, "partners", seed, epoch)[:, 0] < 0.5]
    order_B[changed_G + 1], order_B[changed_G + 2] = changed_G + 2, changed_G + 1
    return order_B


def _share(uniform_P: Tensor, concentration: float) -> Tensor:
    """The partner's share, in [0, 1/2]: 1 is uniform, towards 0 most shares are small.

    A power of a uniform draw (Kumaraswamy, J. Hydrology 46 (1980) 79-88), the Beta-like law whose inverse has a closed
    form. Beyond one half a pair would only change places.
    """
    return uniform_P.pow(1 / max(concentration, 1e-3)) / 2


def _boxes(
    place_P2: Tensor, area_P: Tensor, height: int, width: int, centre_px: float
) -> tuple[Tensor, Tensor]:
    """Masks [P, H, W] of squares of ``area_P``, and the share of the central square that each covers."""
    rows = torch.arange(height, device=area_P.device) + 0.5
    columns = torch.arange(width, device=area_P.device) + 0.5
    half_P = area_P.sqrt() / 2
    in_row_PH = ((rows / height - place_P2[:, :1]).abs() < half_P[:, None]).float()
    in_column_PW = ((columns / width - place_P2[:, 1:]).abs() < half_P[:, None]).float()
    central_H = ((rows - height / 2).abs() < centre_px / 2).float()
    central_W = ((columns - width / 2).abs() < centre_px / 2).float()
    covered_P = (in_row_PH @ central_H) * (in_column_PW @ central_W) / (central_H.sum() * central_W.sum())
    return in_row_PH[:, :, None] * in_column_PW[:, None, :], covered_P
