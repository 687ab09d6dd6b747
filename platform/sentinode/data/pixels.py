"""The pixels of a few named samples, for golden patches, galleries and people."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sentinode.data.cache import ShardCache
from sentinode.data.manifest import Manifest
from sentinode.data.shard_set import ShardSet
from sentinode.schema import PATCH_PX, Split
from sentinode.storage import Store

_THREADS = 2
_MAPPED_BYTES = 64 << 20


def read_pixels(
    manifest: Manifest, store: Store, split: Split, sample_ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [len(sample_ids), 96, 96, 3] of the samples of ``split``, in the order of ``sample_ids``.

    Raises ManifestError where there is no such split, StoreError or one of its kinds where a shard cannot be read.
    """
    images_BHWC = torch.empty((len(sample_ids), PATCH_PX, PATCH_PX, 3), dtype=torch.uint8)
    labels_B = torch.empty(len(sample_ids), dtype=torch.int64)
    shards = ShardSet(
        manifest.of_split(split), ShardCache(store), threads=_THREADS, mapped_bytes=_MAPPED_BYTES
    )
    try:
        if len(sample_ids):
            shards.read(sample_ids, images_BHWC, labels_B)
    finally:
        shards.close()
    return images_BHWC.numpy()
