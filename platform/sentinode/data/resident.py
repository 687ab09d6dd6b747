"""A split kept on the devices as uint8, whole on each or shared among the ranks, and read only once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from sentinode.data.hand_over import Batch
from sentinode.data.layout import UNLABELLED
from sentinode.data.plan import PADDING
from sentinode.data.shard_set import ShardSet
from sentinode.errors import ConfigError
from sentinode.schema import PATCH_BYTES, PATCH_PX

Ids = npt.NDArray[np.int64]

_CHUNK_SAMPLES = 2048
_FREE_SHARE = 0.8
"""Of the device's free memory, what the set may take."""
_ROW_BYTES = PATCH_BYTES + 1
"""Pixels, then the label plus one (0: unlabelled)."""


class ResidentSet:
    """Part ``rank`` of ``parts`` equal parts of ``shards``, as rows [n, 27649] on ``device``.

    With one part, this rank has all it needs. With as many parts as ranks, each step is an exchange: every
    rank knows the plan of all, so it sends to each the samples of its part that they need and no one has to
    ask. All ranks of torch's default process group must take the same steps then.

    Raises ConfigError where the part does not fit the device's free memory, or parts are shared without
    process group.
    """

    def __init__(self, shards: ShardSet, device: torch.device, rank: int, parts: int) -> None:
        samples = int(shards.shard_samples.sum())
        self._starts: Ids = np.arange(parts + 1) * samples // parts
        self._rank, self._parts = (rank, parts) if parts > 1 else (0, 1)
        first, stop = self._starts[self._rank : self._rank + 2].tolist()
        _check_room((stop - first) * _ROW_BYTES, device)
        if parts > 1 and not (distributed.is_initialized() and distributed.get_world_size() == parts):
            raise ConfigError(
                f"a set shared among {parts} ranks without a process group of {parts}",
                "torch.distributed, initialised",
                "keep the whole set on each device, or start the ranks together",
            )
        self._rows = torch.empty((stop - first, _ROW_BYTES), dtype=torch.uint8, device=device)
        for start in range(first, stop, _CHUNK_SAMPLES):
            ids = np.arange(start, min(start + _CHUNK_SAMPLES, stop), dtype=np.int64)
            images = torch.empty((len(ids), PATCH_PX, PATCH_PX, 3), dtype=torch.uint8)
            labels = torch.empty(len(ids), dtype=torch.int64)
            shards.read(ids, images, labels)
            place = self._rows[start - first : start - first + len(ids)]
            place[:, :PATCH_BYTES] = images.view(len(ids), PATCH_BYTES).to(device)
            place[:, PATCH_BYTES] = (labels + 1).to(device, torch.uint8)

    def batch(self, ids_of_parts: Sequence[Ids]) -> Batch:
        """This rank's batch of a step, as new tensors on the device; padding is black and masked.

        ``ids_of_parts``: the sample ids [b] of every rank that shares the set in this step, PADDING where
        none.
        """
        mine = ids_of_parts[self._rank]
        owners = np.where(mine == PADDING, -1, np.searchsorted(self._starts, mine, side="right") - 1)
        # Rows come in the order of their owners, and from each in the order of this batch.
        places = np.argsort(owners, kind="stable")[np.count_nonzero(owners < 0) :]
        first, stop = self._starts[self._rank : self._rank + 2]
        wanted = [ids[(ids >= first) & (ids < stop)] for ids in ids_of_parts]
        rows = sent = self._pick(np.concatenate(wanted))
        if self._parts > 1:
            coming = np.bincount(owners[places], minlength=self._parts)
            rows = sent.new_empty((len(places), _ROW_BYTES))
            distributed.all_to_all_single(rows, sent, coming.tolist(), [len(ids) for ids in wanted])
        return self._unpacked(mine, places, rows)

    def _pick(self, ids: Ids) -> torch.Tensor:
        index = torch.from_numpy(ids - self._starts[self._rank]).to(self._rows.device)
        return self._rows.index_select(0, index)

    def _unpacked(self, ids_B: Ids, places: Ids, rows: torch.Tensor) -> Batch:
        """The batch with these rows at ``places``; its other places are padding."""
        device, size = self._rows.device, len(ids_B)
        index = torch.from_numpy(places).to(device)
        images = torch.zeros((size, PATCH_BYTES), dtype=torch.uint8, device=device)
        images.index_copy_(0, index, rows[:, :PATCH_BYTES])
        labels_B = torch.full((size,), UNLABELLED, device=device)
        labels_B.index_copy_(0, index, rows[:, PATCH_BYTES].long() - 1)
        sample_ids_B = torch.from_numpy(ids_B).to(device)
        images_BHWC = images.view(size, PATCH_PX, PATCH_PX, 3)
        return Batch(images_BHWC, labels_B, sample_ids_B, sample_ids_B != PADDING)


def _check_room(size_bytes: int, device: torch.device) -> None:
    if device.type != "cuda":
        return
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if size_bytes > _FREE_SHARE * free_bytes:
        raise ConfigError(
            f"{size_bytes} bytes of patches, and {free_bytes} bytes free on {device}",
            f"at most {_FREE_SHARE:.0%} of the free memory, to keep them on the device",
            "share the set among more ranks, or read it from the cache",
        )
