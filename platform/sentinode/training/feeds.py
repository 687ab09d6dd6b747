"""The batches of one rank: what the loop asks of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from sentinode.data.cache import ShardCache
from sentinode.data.loader import Batch, LoaderConfig, PatchLoader
from sentinode.data.manifest import Manifest
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

    train: Callable[[int], Iterable[Batch]]
    """Batches of an epoch (from 0)."""
    valid: Callable[[], Iterable[Batch]]
    """Batches of the validation split, padding masked."""


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
    open_split = partial(
        PatchLoader,
        manifest,
        store,
        rank=rank,
        world_size=world_size,
        cache=ShardCache(store),
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
        open_split(Split.VALID, batch_size=VALID_BATCH * world_size, training=False) as valid,
    ):
        yield Feeds(train.epoch, valid.epoch)
