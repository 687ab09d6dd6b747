"""In-memory batches with a lesson to learn: tumour patches have a dark centre."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sentinode.data.loader import Batch
from sentinode.training.feeds import Feeds


@dataclass
class MemoryData:
    """``samples`` patches for training and as many for validation."""

    samples: int = 64
    batch_size: int = 16
    rank: int = 0
    world_size: int = 1

    def split(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        images = rng.integers(120, 256, (self.samples, 96, 96, 3), dtype=np.uint8)
        labels = rng.integers(0, 2, self.samples)
        images[labels == 1, 32:64, 32:64] //= 3
        return torch.from_numpy(images), torch.from_numpy(labels)

    def batches(self, seed: int, order: np.ndarray, pad: bool) -> Iterator[Batch]:
        images, labels = self.split(seed)
        share = self.batch_size // self.world_size
        for start in range(0, len(order), self.batch_size):
            ids = order[start : start + self.batch_size]
            if not pad and len(ids) < self.batch_size:
                return
            mine = ids[self.rank * share : (self.rank + 1) * share]
            real = torch.arange(share) < len(mine)
            mine = torch.from_numpy(np.concatenate([mine, np.zeros(share - len(mine), mine.dtype)]))
            yield Batch(
                images_BHWC=images[mine],
                labels_B=torch.where(real, labels[mine], -1),
                sample_ids_B=torch.where(real, mine, -1),
                mask_B=real,
            )

    def feeds(self) -> Feeds:
        def train(epoch: int) -> Iterator[Batch]:
            return self.batches(1, np.random.default_rng(epoch).permutation(self.samples), pad=False)

        return Feeds(train, lambda: self.batches(2, np.arange(self.samples), pad=True))
