"""Networks without padding: what they say of a patch, they say of each such window of a larger image.

One pass over a large tile is then patch-by-patch scoring, without computing overlaps again.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from sentinode.models.dropout import SampleDropout
from sentinode.models.symmetry import SYMMETRIES


class WindowHead(nn.Module):
    """Feature maps -> logits [B, 2, h, w]: over symmetries, then over windows of ``size_px`` positions, averaged
    or maximised; dropout; a linear layer.

    Windows are one position apart. Maps of ``size_px`` x ``size_px`` give one logit a class.
    """

    def __init__(
        self, fields: int, size_px: int, *, symmetric: bool, pool: Literal["mean", "max"], dropout: float
    ) -> None:
        super().__init__()
        self.fields, self.size_px, self.symmetric, self.pool = fields, size_px, symmetric, pool
        self.dropout = SampleDropout(dropout, fields)
        self.linear = nn.Conv2d(fields, 2, kernel_size=1)
        nn.init.normal_(self.linear.weight, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        if self.symmetric:
            fields_BGCHW = maps.view(maps.shape[0], SYMMETRIES, self.fields, *maps.shape[2:])
            maps = fields_BGCHW.mean(1) if self.pool == "mean" else fields_BGCHW.amax(1)
        pooling = functional.avg_pool2d if self.pool == "mean" else functional.max_pool2d
        logits_BKHW: Tensor = self.linear(self.dropout(pooling(maps, self.size_px, stride=1)))
        return logits_BKHW


class WindowNet(nn.Module):
    """A network without padding: preprocessed float images_BCHW [B, 3, px, px] -> logits_BK [B, 2]."""

    def __init__(self, features: nn.Module, head: WindowHead, *, input_px: int, stride_px: int) -> None:
        super().__init__()
        self.features, self.head = features, head
        self.input_px, self.stride_px = input_px, stride_px

    def dense(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, 2, h, w] of every window of ``input_px`` pixels, ``stride_px`` apart, of larger images.

        ``[:, :, i, j]`` is what ``forward`` says of the window whose upper left corner is (i, j) * stride_px, in
        evaluation mode, to rounding. h = (H - input_px) // stride_px + 1.
        """
        logits_BKHW: Tensor = self.head(self.features(images_BCHW))
        return logits_BKHW

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.dense(images_BCHW).flatten(1)
