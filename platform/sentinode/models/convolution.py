"""Convolutions without padding: plain ones, and ones that are equivariant to the eight symmetries of the
square (group convolutions over p4m; Cohen and Welling 2016, "Group equivariant convolutional networks").

Feature maps over p4m are [B, 8 * C, H, W], symmetry first: channel g * C + c is field c as symmetry g sees it.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentinode.models.symmetry import SYMMETRIES, group_index, lift_index

Kind = Literal["plain", "lift", "group"]


class Convolution(nn.Module):
    """A convolution without padding or bias, its filters shared by the eight symmetries where there are any.

    ``plain``: [B, in, H, W] -> [B, out, h, w]. ``lift``: [B, in, H, W] -> [B, 8 * out, h, w], each filter in
    its eight forms. ``group``: [B, 8 * in, H, W] -> [B, 8 * out, h, w]. h = (H - kernel_px) / stride_px + 1;
    where that is not a whole number, turned images lose other pixels and the symmetry is broken.

    ``standardised``: weights with mean 0 and variance 1 / fan-in times a learned gain, and a bias (scaled weight
    standardisation; Brock et al. 2021, "High-performance large-scale image recognition without normalization").
    """

    index: Tensor
    """int64 [8 * weights of a filter]: the eight forms of a filter, as positions in its weights."""

    def __init__(
        self,
        kind: Kind,
        in_fields: int,
        out_fields: int,
        kernel_px: int,
        stride_px: int = 1,
        *,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.kernel_px, self.stride_px = kind, kernel_px, stride_px
        size = kernel_px**2 * (SYMMETRIES if kind == "group" else 1)
        self.fan_in = in_fields * size
        self.weight = nn.Parameter(torch.randn(out_fields, in_fields, size) * math.sqrt(2 / self.fan_in))
        self.gain = nn.Parameter(torch.ones(out_fields)) if standardised else None
        self.bias = nn.Parameter(torch.zeros(out_fields)) if standardised else None
        if kind != "plain":
            index = lift_index(kernel_px) if kind == "lift" else group_index(kernel_px)
            self.register_buffer("index", index.flatten(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        repeats = 1 if self.kind == "plain" else SYMMETRIES
        bias = None if self.bias is None else self.bias.repeat(repeats)
        return functional.conv2d(maps, self.filters(), bias, self.stride_px)

    def filters(self) -> Tensor:
        """The filter bank that is convolved with, [out, in, kernel, kernel] in channels of the maps."""
        weight = self.weight if self.gain is None else self._standardised(self.gain)
        out_fields, in_fields, _ = weight.shape
        side = self.kernel_px
        if self.kind == "plain":
            return weight.view(out_fields, in_fields, side, side)
        sources = SYMMETRIES if self.kind == "group" else 1
        bank = weight.index_select(2, self.index)
        bank = bank.view(out_fields, in_fields, SYMMETRIES, sources, side, side)
        return bank.permute(2, 0, 3, 1, 4, 5).reshape(
            SYMMETRIES * out_fields, sources * in_fields, side, side
        )

    @torch.no_grad()
    def fixed(self) -> nn.Conv2d:
        """torch's convolution with the filters as they are now."""
        bank = self.filters()
        has_bias = self.bias is not None
        layer = nn.Conv2d(bank.shape[1], bank.shape[0], self.kernel_px, self.stride_px, bias=has_bias)
        layer.weight = nn.Parameter(bank)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.repeat(bank.shape[0] // len(self.bias)))
        return layer

    def _standardised(self, gain: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2), correction=0, keepdim=True)
        return (self.weight - mean) * (gain.view(-1, 1, 1) * torch.rsqrt(variance * self.fan_in + 1e-4))


class SymmetricBatchNorm(nn.Module):
    """Batch norm of maps over p4m [B, 8 * C, H, W]: one mean, variance, scale and shift for a field's eight
    symmetries, or a turned image would be normalised differently.
    """

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(fields)

    def forward(self, maps: Tensor) -> Tensor:
        norm = self.norm
        if not self.training:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, variance = norm.running_mean.repeat(SYMMETRIES), norm.running_var.repeat(SYMMETRIES)
            scale, shift = norm.weight.repeat(SYMMETRIES), norm.bias.repeat(SYMMETRIES)
            return functional.batch_norm(maps, mean, variance, scale, shift, eps=norm.eps)
        # The symmetries as so many more columns: a view, without copying, where the maps are channels_last.
        batch, channels, height, width = maps.shape
        maps_BHWC = maps.permute(0, 2, 3, 1)
        columns_BHWC = maps_BHWC.reshape(batch, height, width * SYMMETRIES, channels // SYMMETRIES)
        normed: Tensor = norm(columns_BHWC.permute(0, 3, 1, 2))
        return normed.permute(0, 2, 3, 1).reshape(maps_BHWC.shape).permute(0, 3, 1, 2)


def fix_filters(net: nn.Module) -> nn.Module:
    """A copy of ``net``, in evaluation mode, in which each Convolution is torch's own with the filters of now.

    The output is the same, and no filter is computed any more: for export, and for scoring many batches.
    """
    fixed = copy.deepcopy(net).eval()
    for parent in list(fixed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Convolution):
                setattr(parent, name, child.fixed())
    return fixed


def crop_to(maps: Tensor, like: Tensor) -> Tensor:
    """The centre of ``maps`` that has the height and width of ``like``: a shortcut past unpadded convolutions."""
    edge = (maps.shape[2] - like.shape[2]) // 2
    return maps[:, :, edge : edge + like.shape[2], edge : edge + like.shape[3]]
