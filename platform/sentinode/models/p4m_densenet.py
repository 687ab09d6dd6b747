"""P4M-DenseNet: a densely connected network that is equivariant to turning and mirroring (Veeling et al. 2018,
"Rotation equivariant CNNs for digital pathology"), the published reference on PCam.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sentinode.config import Frozen
from sentinode.models.convolution import Convolution, SymmetricBatchNorm, crop_to
from sentinode.models.symmetry import SYMMETRIES
from sentinode.models.window import WindowHead, WindowNet

INPUT_PX = 96
"""96 -> 94 -> 92|46 -> 44|22 -> 20|10 -> 8|4 -> 2: even wherever it is halved, so that turned images lose the same
pixels.
"""
BLOCKS = 5
LAST_PX = 2
STRIDE_PX = 2 ** (BLOCKS - 1)


class P4mDensenetConfig(Frozen):
    """DenseNet of five blocks over p4m, of one layer each; batch norm; takes whole patches of 96 pixels."""

    family: Literal["p4m-densenet"] = "p4m-densenet"
    """The architecture."""
    stem_width: int = Field(default=8, ge=1)
    """Fields of the first convolution; each has eight orientations."""
    growth: int = Field(default=9, ge=1)
    """Fields that each block adds."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the last features silenced in training, never in evaluation."""


class DenseLayer(nn.Module):
    """Maps over p4m [B, 8 * C, H, W] -> [B, 8 * (C + growth), H - 2, W - 2]: the new fields beside the old."""

    def __init__(self, fields: int, growth: int) -> None:
        super().__init__()
        self.norm = SymmetricBatchNorm(fields)
        self.convolution = Convolution("group", fields, growth, kernel_px=3)

    def forward(self, maps: Tensor) -> Tensor:
        new = self.convolution(functional.relu(self.norm(maps)))
        batch, _, height, width = new.shape
        parts = [part.reshape(batch, SYMMETRIES, -1, height, width) for part in (crop_to(maps, new), new)]
        return torch.cat(parts, dim=2).flatten(1, 2)


class Transition(nn.Module):
    """Mixes the fields of maps over p4m and halves their height and width, which must be even."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.norm = SymmetricBatchNorm(fields)
        self.convolution = Convolution("group", fields, fields, kernel_px=1)

    def forward(self, maps: Tensor) -> Tensor:
        # Averaging and mixing fields can change places; this way round it is a quarter of the work.
        mixed: Tensor = self.convolution(functional.avg_pool2d(functional.relu(self.norm(maps)), 2))
        return mixed


def build_p4m_densenet(config: P4mDensenetConfig) -> WindowNet:
    """Preprocessed float images_BCHW [B, 3, 96, 96] -> logits_BK [B, 2], the same for an image turned or mirrored."""
    fields = config.stem_width
    layers: list[nn.Module] = [Convolution("lift", 3, fields, kernel_px=3)]
    for block in range(BLOCKS):
        if block:
            layers.append(Transition(fields))
        layers.append(DenseLayer(fields, config.growth))
        fields += config.growth
    layers += [SymmetricBatchNorm(fields), nn.ReLU()]
    head = WindowHead(fields, LAST_PX, symmetric=True, pool="mean", dropout=config.dropout)
    return WindowNet(nn.Sequential(*layers), head, input_px=INPUT_PX, stride_px=STRIDE_PX)
