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


def sample_pixels(
    manifest: Manifest, store: Store, split: Split, count: int, shards: int = 8
) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [N, 96, 96, 3] of up to ``count`` samples of ``split``, evenly spread over up to ``shards``
    shards; which ones depends on the manifest alone. Raises as ``read_pixels``.
    """
    sizes = np.array([record.samples for record in manifest.of_split(split)])
    starts = np.cumsum(sizes) - sizes
    chosen = np.unique(np.linspace(0, len(sizes) - 1, min(shards, len(sizes))).round().astype(np.int64))
    ids = np.concatenate([starts[shard] + np.arange(sizes[shard]) for shard in chosen])
    return read_pixels(manifest, store, split, ids[_spread(len(ids), count)])


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    """Up to ``count`` different positions below ``length``, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))
