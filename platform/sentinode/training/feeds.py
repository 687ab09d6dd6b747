"""The batches of one rank: what the loop asks of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_keys
from sentinode.data.loader import Batch, LoaderConfig, PatchLoader
from sentinode.data.manifest import Manifest
from sentinode.data.plan import plan_training
from sentinode.schema import Split
from sentinode.storage import Store
from sentinode.training.config import Recipe

VALID_BATCH = 512
"""Patches of one validation step of one rank: no gradients are kept, so it need not follow the training
batch.
"""


@dataclass(frozen=True)
class Feeds:
    """This rank's part of the data. All ranks yield equally many training batches, of one size."""

    train: Callable[[int, int], Iterable[Batch]]
    """Batches of an epoch (from 0), from a step on."""
    valid: Callable[[], Iterable[Batch]]
    """Batches of the validation split, padding masked."""
    steps: int
    """Training batches of an epoch."""
    class_counts: tuple[int, int]
    """Training samples of each class."""
    keys: Callable[[Sequence[int]], list[str]]
    """The keys of training samples by their ids, for messages."""


@contextmanager
def open_feeds(
    recipe: Recipe,
    manifest: Manifest,
    store: Store,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
    loader: LoaderConfig | None = None,
) -> Iterator[Feeds]:
    """The train and valid splits of ``manifest``, whose shards lie in ``store``, through this node's cache.

    Raises ManifestError where a split is missing, ConfigError where batch size, shuffle and data do not go
    together.
    """
    cache = ShardCache(store)
    open_split = partial(
        PatchLoader,
        manifest,
        store,
        rank=rank,
        world_size=world_size,
        cache=cache,
        device=device or "cpu",
        config=loader,
    )
    config = recipe.train
    with (
        open_split(
            Split.TRAIN,
            batch_size=config.batch_size,
            training=True,
            seed=config.seed,
            shuffle=recipe.shuffle,
        ) as train,
        open_split(Split.VALID, batch_size=_valid_batch(manifest, world_size), training=False) as valid,
    ):
        yield Feeds(
            train.epoch,
            valid.epoch,
            train.steps,
            manifest.splits[Split.TRAIN].class_counts,
            partial(read_keys, manifest.of_split(Split.TRAIN), cache),
        )


def _valid_batch(manifest: Manifest, world_size: int) -> int:
    """Patches of one validation step over all ranks: as few steps as VALID_BATCH allows, and hardly any padding.

    Padding is scored like patches are: a small split in batches of the full size would take many times its work.
    """
    samples = sum(shard.samples for shard in manifest.of_split(Split.VALID))
    steps = max(1, -(-samples // (VALID_BATCH * world_size)))
    return max(1, -(-samples // (steps * world_size))) * world_size


def check_steps(recipe: Recipe, manifest: Manifest) -> None:
    """Raise ConfigError where batch size, shuffle and the train split of ``manifest`` do not go together.

    Reads no shard: how many labels there are of each class is enough to count steps.
    """
    shards = manifest.of_split(Split.TRAIN)
    classes = np.arange(2, dtype=np.int8)
    plan_training(
        [shard.samples for shard in shards],
        digest=manifest.digest(),
        seed=recipe.train.seed,
        epoch=0,
        batch_size=recipe.train.batch_size,
        shuffle=recipe.shuffle,
        labels=np.concatenate([np.repeat(classes, shard.class_counts) for shard in shards]),
    )
