"""A split kept whole, as uint8, on the device: no transfer at all after the first pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sentinode.data.hand_over import Batch
from sentinode.data.shard_set import ShardSet
from sentinode.errors import ConfigError
from sentinode.schema import PATCH_BYTES, PATCH_PX

_CHUNK_SAMPLES = 2048
_FREE_SHARE = 0.8
"""Of the device's free memory, what the set may take."""


class ResidentSet:
    """All samples of ``shards`` in manifest order: uint8 [N, 96, 96, 3] and int64 [N] on ``device``.

    Raises ConfigError where they do not fit the device's free memory.
    """

    def __init__(self, shards: ShardSet, device: torch.device) -> None:
        samples = int(shards.shard_samples.sum())
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if samples * PATCH_BYTES > _FREE_SHARE * free_bytes:
                raise ConfigError(
                    f"{samples * PATCH_BYTES} bytes of patches, and {free_bytes} bytes free on {device}",
                    f"a set of at most {_FREE_SHARE:.0%} of the free memory, to keep it on the device",
                    "turn resident off",
                )
        self._images_NHWC = torch.empty((samples, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8, device=device)
        self._labels_N = torch.empty(samples, dtype=torch.int64, device=device)
        for start in range(0, samples, _CHUNK_SAMPLES):
            ids = np.arange(start, min(start + _CHUNK_SAMPLES, samples), dtype=np.int64)
            images = torch.empty((len(ids), PATCH_PX, PATCH_PX, 3), dtype=torch.uint8)
            labels = torch.empty(len(ids), dtype=torch.int64)
            shards.read(ids, images, labels)
            self._images_NHWC[start : start + len(ids)] = images
            self._labels_N[start : start + len(ids)] = labels

    def batch(self, ids_B: npt.NDArray[np.int64]) -> Batch:
        """The samples with these ids, as new tensors on the device; negative ids give masked, black
        padding.
        """
        ids = torch.from_numpy(ids_B).to(self._labels_N.device)
        mask_B = ids >= 0
        index = ids.clamp(min=0)
        images_BHWC = self._images_NHWC.index_select(0, index)
        labels_B = self._labels_N.index_select(0, index)
        if (ids_B < 0).any():
            images_BHWC[~mask_B] = 0
            labels_B = torch.where(mask_B, labels_B, -1)
        return Batch(images_BHWC, labels_B, ids, mask_B)
