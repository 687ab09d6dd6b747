"""Dropout whose choice belongs to the sample, so that it does not depend on batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SampleDropout(nn.Module):
    """Silences each feature of values [B, features, ...] with probability ``rate`` in training; scales the rest up.

    The trainer hands in the noise of each batch; without it torch's generator is asked.
    """

    def __init__(self, rate: float, features: int) -> None:
        super().__init__()
        self.rate, self.features = rate, features
        self.noise_BN: Tensor | None = None
        """Uniform on [0, 1), float32 [B, features]."""

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return values
        noise_BN = self.noise_BN
        if noise_BN is None:
            noise_BN = torch.rand(values.shape[:2], device=values.device)
        kept_BN = (noise_BN >= self.rate).to(values.dtype) / (1 - self.rate)
        return values * kept_BN.view(*kept_BN.shape, *[1] * (values.ndim - 2))
