"""Batches of one rank, read ahead in a background thread and handed over to its device.

Legend of array shapes: B batch of this rank, H and W 96 pixels, C red, green, blue.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from sentinode.config import Frozen
from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_labels
from sentinode.data.hand_over import Batch, HandOver, Slot, WaitClock
from sentinode.data.manifest import Manifest
from sentinode.data.plan import PADDING, EpochPlan, ShuffleConfig, plan_evaluation, plan_training
from sentinode.data.prefetch import Prefetcher
from sentinode.data.resident import ResidentSet
from sentinode.data.shard_set import ShardSet
from sentinode.errors import ConfigError
from sentinode.schema import Split
from sentinode.storage import Store

__all__ = ["Batch", "LoaderConfig", "PatchLoader"]

Ids = npt.NDArray[np.int64]


class LoaderConfig(Frozen):
    """How a process reads. None of it changes which samples come, or their order."""

    ahead_batches: int | None = Field(default=None, ge=0)
    """Batches that a background thread makes ready before they are asked for. More of them even out reading,
    but crowd the CPU's cache. Default: one; none where a single core both reads and works on the batches, for
    there a second thread only takes turns with the first.
    """
    download_threads: int = Field(default=8, ge=1)
    """Shards downloaded at a time, ahead of need."""
    read_threads: int | None = Field(default=None, ge=1)
    """Threads that decode webp and jpeg shards or read large npy sets; default: one for each usable core."""
    mapped_bytes: int = Field(default=320 << 20, ge=0)
    """npy sets up to this size are memory-mapped, the fastest way; their pages count as memory of the
    process. Raise it where memory is plentiful."""
    resident: Literal["no", "whole", "shared"] = "no"
    """Keep the split on the device as uint8: whole on each, or shared, a part on each rank's device,
    exchanged step by step by torch.distributed. An error where it does not fit."""


class PatchLoader:
    """The batches of one rank of a split, epoch by epoch.

    ``training``: shuffled, equal full steps, the short last one dropped. Else: manifest order, padded and
    masked. ``batch_size`` is global, over all ranks. On a CPU the tensors of a batch are reused: they are
    valid until the next batch is asked for. On a GPU they are new ones, copied from pinned memory on a
    stream of their own.

    Raises ManifestError where the data set lacks the split, ConfigError for settings that do not go together.
    """

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        split: Split,
        *,
        batch_size: int,
        training: bool,
        seed: int = 0,
        shuffle: ShuffleConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
        cache: ShardCache | None = None,
        device: torch.device | str = "cpu",
        config: LoaderConfig | None = None,
    ) -> None:
        self.config = config or LoaderConfig()
        self.device = torch.device(device)
        self.rank, self.world_size = rank, world_size
        self.batch_size, self.training, self.seed = batch_size, training, seed
        self.shuffle = shuffle or ShuffleConfig()
        self._digest = f"{manifest.digest()} {split.value}"
        self._shards = ShardSet(
            manifest.of_split(split),
            cache or ShardCache(store),
            threads=self.config.read_threads or _usable_cores(),
            mapped_bytes=self.config.mapped_bytes,
        )
        self._labels: npt.NDArray[np.int8] | None = None
        self._resident: ResidentSet | None = None
        alone = self.device.type == "cpu" and _usable_cores() == 1
        ahead = self.config.ahead_batches
        self._ahead = (0 if alone else 1) if ahead is None else ahead
        self._active: HandOver | None = None
        self._clock = WaitClock()
        if training and self.shuffle.kind == "full" and not self._shards.fits:
            raise ConfigError(
                f"the {split.value} split is larger than the node's cache may be",
                f"at most {self._shards.cache.budget_bytes} bytes, for a full shuffle",
                "set shuffle kind block, or raise the budget",
            )
        self.plan(0).rank_batch_size(world_size)

    @property
    def samples(self) -> int:
        """Samples of the split."""
        return int(self._shards.shard_samples.sum())

    @property
    def steps(self) -> int:
        """Steps of an epoch, equal on all ranks."""
        return self.plan(0).steps

    @property
    def wait_fraction(self) -> float:
        """The share of the latest epoch's time that its consumer waited for data."""
        return self._clock.fraction

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch, for all ranks."""
        if not self.training:
            return plan_evaluation(self._shards.shard_samples, batch_size=self.batch_size)
        if self.shuffle.balanced and self._labels is None:
            self._labels = self._read_labels()
        return plan_training(
            self._shards.shard_samples,
            digest=self._digest,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            labels=self._labels,
        )

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` (from 0) from ``start_step`` on, which resumes an interrupted epoch.

        Raises StoreError or one of its kinds where a shard cannot be had or is damaged, never yielding fewer
        samples; ConfigError for a step outside the epoch. Beginning another epoch, or ``close``, ends this
        one: asking it for more is a ConfigError then.
        """
        plan = self.plan(epoch)
        if not 0 <= start_step <= plan.steps:
            raise ConfigError(f"step {start_step} of epoch {epoch}", f"a step within 0 to {plan.steps}")
        if self.config.resident != "no":
            return self._clock.timed(self._resident_epoch(plan, start_step))
        return self._clock.timed(self._streamed_epoch(plan, start_step))

    def close(self) -> None:
        """Let go of shards, threads and device memory."""
        self._stop()
        self._resident = None
        self._shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop(self) -> None:
        """End what an epoch left in the middle still does in the background."""
        if self._active is not None:
            self._active.stop()
            self._active = None

    def _streamed_epoch(self, plan: EpochPlan, start_step: int) -> Iterator[Batch]:
        size = plan.rank_batch_size(self.world_size)
        self._stop()
        hand_over = self._active = HandOver(size, self._ahead, self.device)
        prefetcher = self._prefetch(plan, start_step)

        def fill(slots: Iterator[Slot]) -> Iterator[Slot]:
            for ids_SB in plan.windows(self.rank, self.world_size, start_step):
                for ids_B, slot in zip(ids_SB, slots, strict=False):
                    for _ in range(self._read(ids_B, slot)):
                        prefetcher.used()
                    yield slot

        try:
            yield from hand_over.run(fill)
        finally:
            prefetcher.close()

    def _read(self, ids_B: Ids, slot: Slot) -> int:
        mask_B = ids_B != PADDING
        slot.sample_ids_B.copy_(torch.from_numpy(ids_B))
        slot.mask_B.copy_(torch.from_numpy(mask_B))
        real = int(np.count_nonzero(mask_B))
        if real == len(ids_B):
            return self._shards.read(ids_B, slot.images_BHWC, slot.labels_B)
        # Padding comes last: a rank's part of a step is a contiguous piece of the order.
        slot.images_BHWC[real:] = 0
        slot.labels_B[real:] = PADDING
        return self._shards.read(ids_B[:real], slot.images_BHWC[:real], slot.labels_B[:real]) if real else 0

    def _read_labels(self) -> npt.NDArray[np.int8]:
        """Every sample's label; shards are downloaded in parallel, and evicted again where not all fit."""
        threads = self.config.download_threads
        records, cache = self._shards.records, self._shards.cache
        prefetcher = Prefetcher(cache, iter(records), threads, None if self._shards.fits else threads)
        labels = np.zeros(self.samples, dtype=np.int8)
        start = 0
        try:
            for record in records:
                labels[start : start + record.samples] = read_labels(record, cache)
                start += record.samples
                prefetcher.used()
        finally:
            prefetcher.close()
        return labels

    def _prefetch(self, plan: EpochPlan, start_step: int) -> Prefetcher:
        if self._shards.complete:
            return Prefetcher(self._shards.cache, iter(()), 0)
        windows = plan.windows(self.rank, self.world_size, start_step)
        ahead = None if self._shards.fits else self.config.download_threads
        records = self._shards.in_order_of_use(windows)
        return Prefetcher(self._shards.cache, records, self.config.download_threads, ahead)

    def _resident_epoch(self, plan: EpochPlan, start_step: int) -> Iterator[Batch]:
        shared = self.config.resident == "shared" and self.world_size > 1
        if self._resident is None:
            parts = self.world_size if shared else 1
            self._resident = ResidentSet(self._shards, self.device, self.rank, parts)
        ranks = range(self.world_size) if shared else [self.rank]
        windows = [plan.windows(rank, self.world_size, start_step) for rank in ranks]
        for ids_of_ranks in zip(*windows, strict=True):
            for ids_of_parts in zip(*ids_of_ranks, strict=True):
                yield self._resident.batch(ids_of_parts)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
