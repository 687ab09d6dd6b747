"""Errors that end a run, told to all ranks: what one meets before the first step, and a loss that is not finite, whose
batch is kept."""

from __future__ import annotations

import logging
import math
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import distributed, nn

from sentinode.data.loader import Batch
from sentinode.errors import ConfigError, ManifestError, SentinodeError, StoreError, TrainingError, first_of
from sentinode.storage import Store
from sentinode.training.context import RankContext
from sentinode.training.feeds import Feeds
from sentinode.training.step import StepResult

_NAMED = 8
"""Samples of a rank that the message names."""

FINAL = (ConfigError, ManifestError, TrainingError)
"""Errors that no other try would mend."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """A step of a run; epoch and step count from 1."""

    epoch: int
    step: int
    lr: float


@contextmanager
def told_to_all(world_size: int) -> Iterator[None]:
    """Where ranks meet errors of a FINAL kind in this block, all raise the first one's: one node alone may lack a file
    or room, and the ranks on the others would wait.

    Every rank has to enter it (a collective operation).
    """
    mine: SentinodeError | None = None
    try:
        yield
    except FINAL as error:
        mine = error
    found = [mine]
    if world_size > 1:
        found = [None] * world_size
        distributed.all_gather_object(found, mine)
        if mine is not None and None in found:
            log.error("a rank on %s, and not all ranks, met this: %s", platform.node(), mine)
    first = next((error for error in found if error is not None), None)
    if first is not None:
        first.everywhere = True
        raise first


def loss_error(
    result: StepResult,
    batch: Batch,
    feeds: Feeds,
    store: Store,
    net: nn.Module,
    context: RankContext,
    where: Where,
) -> TrainingError:
    """The error for a step whose loss is not finite, the same on every rank; it names the samples at fault.

    Their batches are kept as ``failures/epoch-E-step-S-rank-R.safetensors`` (images_BHWC, labels_B, sample_ids_B;
    keys in the header). Every rank has to call this (a collective operation).
    """
    mine: list[str] | None = None
    if not math.isfinite(result.own_loss):
        mine = feeds.keys(batch.sample_ids_B.tolist())
        name = f"failures/epoch-{where.epoch:04d}-step-{where.step:06d}-rank-{context.rank}.safetensors"
        _keep(store, name, batch, mine)
    found: list[list[str] | None] = [mine]
    if context.world_size > 1:
        found = [None] * context.world_size
        distributed.all_gather_object(found, mine)
    named = "; ".join(
        f"rank {rank}: {first_of(keys, _NAMED)}" for rank, keys in enumerate(found) if keys is not None
    )
    largest = max(float(weight.detach().abs().max()) for weight in net.parameters())
    return TrainingError(
        f"the training loss of epoch {where.epoch}, step {where.step} is {result.loss} at learning rate {where.lr:g}, "
        f"with weights of up to {largest:.3g}; samples of {named}",
        "a finite loss",
        f"look at the batch kept in {store.locate('failures')}; with large weights, lower train.lr, set "
        "train.clip_norm, or set train.precision to fp32",
    )


def _keep(store: Store, key: str, batch: Batch, keys: list[str]) -> None:
    tensors = {
        "images_BHWC": batch.images_BHWC,
        "labels_B": batch.labels_B,
        "sample_ids_B": batch.sample_ids_B,
    }
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        path = Path(folder) / "batch.safetensors"
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, path, {"keys": ",".join(keys)})
        try:
            store.upload(path, key)
        except StoreError as error:
            log.warning("the bad batch could not be kept: %s", error)
