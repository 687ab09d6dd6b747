"""A small residual network without zero padding, made for slides: one pass over a large tile equals scoring it
patch by patch.

Residual blocks normalise before they convolve (He et al. 2016, "Identity mappings in deep residual networks"); the
shortcut is the centre of the input. With ``equivariant`` all convolutions are group convolutions over p4m.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.models.convolution import Convolution, Kind, SymmetricBatchNorm, crop_to
from sentinode.models.window import WindowHead, WindowNet

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""Times this, the rectified part of a standard normal variable has variance 1."""
BRANCH_SCALE = 0.2
"""Of the residual branches at the start, where weights are standardised."""


class ValidCnnConfig(Frozen):
    """Residual network of unpadded convolutions, in stages between which height and width are halved."""

    family: Literal["valid-cnn"] = "valid-cnn"
    """The architecture."""
    input_px: int = Field(default=64, ge=8, le=448)
    """Side of the input in pixels. Each layer must divide it without remainder."""
    equivariant: bool = True
    """Group convolutions over p4m: the output is the same for a patch turned or mirrored."""
    widths: tuple[int, ...] = Field(default=(4, 8, 16), min_length=1)
    """Fields of each stage; with equivariant, each has eight orientations, so that 4 cost what 32 cost without."""
    blocks: tuple[int, ...] = (1, 1, 0)
    """Residual blocks of each stage."""
    second_kernel_px: Literal[1, 3] = 3
    """Side of the second filter of a block; the first has 3."""
    stem_kernel_px: int = Field(default=4, ge=1, le=8)
    """Side of the filters that see the pixels."""
    stem_stride_px: int = Field(default=2, ge=1, le=4)
    """Step of these filters."""
    down_kernel_px: int = Field(default=3, ge=2, le=4)
    """Side of the filters that go over to the next stage, in steps of 2."""
    tail_width: int = Field(default=32, ge=1)
    """Fields of the last convolution, which are averaged and classified."""
    tail_kernel_px: int = Field(default=3, ge=1, le=8)
    """Side of its filters."""
    pool: Literal["mean", "max"] = "mean"
    """How the last map becomes one value a field."""
    norm: Literal["weights", "batch"] = "weights"
    """weights: standardised weights and scaled activations (Brock et al. 2021), so that no patch of a batch
    depends on the others. batch: batch norm, a running average in evaluation."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the last features silenced in training, never in evaluation."""

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if len(self.blocks) != len(self.widths):
            raise ConfigError(
                f"{len(self.widths)} widths and {len(self.blocks)} numbers of blocks",
                "one of each for a stage",
            )
        if min(self.widths) < 1 or min(self.blocks) < 0:
            raise ConfigError(
                f"widths {self.widths}, blocks {self.blocks}", "positive widths, no negative blocks"
            )
        if self._last_px(self.input_px) is None:
            near = sorted(self._fitting_px(self.input_px)[:2])
            raise ConfigError(
                f"an input of {self.input_px} pixels is not divided evenly by the layers of this valid-cnn",
                "a size at which no layer leaves pixels over, or turned patches would be seen differently",
                f"set model.input_px to {' or '.join(map(str, near))}"
                if near
                else "use fewer or smaller layers",
            )
        return self

    @classmethod
    def near(cls, input_px: int, **fields: Any) -> Self:
        """The network of ``fields`` on the input nearest to ``input_px`` that its layers divide without remainder.

        Raises ConfigError where there is no such input.
        """
        fitting = cls.model_construct(**fields)._fitting_px(input_px)
        return cls(input_px=fitting[0] if fitting else input_px, **fields)

    @property
    def last_px(self) -> int:
        """Side of the last map for one patch."""
        found = self._last_px(self.input_px)
        assert found is not None
        return found

    @property
    def stride_px(self) -> int:
        """Distance in pixels of two positions of the last map."""
        return math.prod(step for _, step in self._windows())

    def _windows(self) -> Iterator[tuple[int, int]]:
        """(kernel, stride) of each convolution."""
        yield self.stem_kernel_px, self.stem_stride_px
        for stage, blocks in enumerate(self.blocks):
            if stage:
                yield self.down_kernel_px, 2
            for _ in range(blocks):
                yield from ((3, 1), (self.second_kernel_px, 1))
        yield self.tail_kernel_px, 1

    def _fitting_px(self, near_px: int) -> list[int]:
        """Sides of inputs that no layer leaves pixels over of, the nearest to ``near_px`` first."""
        fitting = [px for px in range(8, 449) if self._last_px(px)]
        return sorted(fitting, key=lambda px: (abs(px - near_px), px))

    def _last_px(self, px: int) -> int | None:
        for kernel, stride in self._windows():
            if px < kernel or (px - kernel) % stride:
                return None
            px = (px - kernel) // stride + 1
        return px


class ScaledReLU(nn.Module):
    """ReLU times ``scale``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(maps) * self.scale


@dataclass(frozen=True)
class _Layers:
    """The layers that a configuration asks for."""

    config: ValidCnnConfig

    def convolution(self, fields: int, out_fields: int, kernel_px: int, stride_px: int = 1) -> Convolution:
        kind: Kind = "group" if self.config.equivariant else "plain"
        return self._convolution(kind, fields, out_fields, kernel_px, stride_px)

    def stem(self) -> Convolution:
        config = self.config
        kind: Kind = "lift" if config.equivariant else "plain"
        return self._convolution(kind, 3, config.widths[0], config.stem_kernel_px, config.stem_stride_px)

    def activation(self, fields: int, scale: float = 1.0) -> nn.Module:
        """Norm and ReLU; ``scale`` brings standardised activations to variance 1."""
        if self.config.norm == "weights":
            return ScaledReLU(RELU_GAIN * scale)
        norm = SymmetricBatchNorm(fields) if self.config.equivariant else nn.BatchNorm2d(fields)
        return nn.Sequential(norm, nn.ReLU())

    def _convolution(self, kind: Kind, fields: int, out: int, kernel_px: int, stride_px: int) -> Convolution:
        standardised = self.config.norm == "weights"
        return Convolution(kind, fields, out, kernel_px, stride_px, standardised=standardised)


class ResidualBlock(nn.Module):
    """[B, C, H, W] -> [B, C, h, w]: the centre of the input, plus two convolutions of it."""

    def __init__(self, layers: _Layers, fields: int, variance: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            layers.activation(fields, 1 / math.sqrt(variance)),
            layers.convolution(fields, fields, 3),
            layers.activation(fields),
            layers.convolution(fields, fields, layers.config.second_kernel_px),
        )
        standardised = layers.config.norm == "weights"
        self.scale = nn.Parameter(torch.tensor(BRANCH_SCALE)) if standardised else None

    def forward(self, maps: Tensor) -> Tensor:
        change: Tensor = self.branch(maps)
        return crop_to(maps, change) + (change if self.scale is None else change * self.scale)


def build_valid_cnn(config: ValidCnnConfig) -> WindowNet:
    """Preprocessed float images_BCHW [B, 3, px, px] of ``config.input_px`` -> logits_BK [B, 2]."""
    layers = _Layers(config)
    modules: list[nn.Module] = [layers.stem()]
    fields = config.widths[0]
    for stage, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
        if stage:
            modules += [
                layers.activation(fields),
                layers.convolution(fields, width, config.down_kernel_px, 2),
            ]
            fields = width
        for block in range(blocks):
            modules.append(ResidualBlock(layers, fields, 1 + block * BRANCH_SCALE**2))
    tail = layers.convolution(fields, config.tail_width, config.tail_kernel_px)
    modules += [layers.activation(fields), tail, layers.activation(config.tail_width)]
    head = WindowHead(
        config.tail_width,
        config.last_px,
        symmetric=config.equivariant,
        pool=config.pool,
        dropout=config.dropout,
    )
    return WindowNet(nn.Sequential(*modules), head, input_px=config.input_px, stride_px=config.stride_px)
