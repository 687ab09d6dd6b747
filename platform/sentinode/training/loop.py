"""The training loop: plain PyTorch. Who starts the ranks and joins them in a process group is not its
concern.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from sentinode.data.augment import augment
from sentinode.data.loader import Batch
from sentinode.errors import TrainingError
from sentinode.models.families import build_model
from sentinode.models.preprocess import Preprocess
from sentinode.storage import Store
from sentinode.training.config import Recipe
from sentinode.training.feeds import Feeds
from sentinode.training.metrics import EpochRecord
from sentinode.training.optim import build_optimizer, build_schedule, use_bf16
from sentinode.training.state import (
    TrainingState,
    load_checkpoint,
    save_checkpoint,
    save_history,
    save_weights,
    seed_everything,
)
from sentinode.training.validation import ValidMetrics, mean_metric


@dataclass(frozen=True)
class RankContext:
    """One rank's place in the run. With ``world_size`` above 1 torch's process group is up."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[EpochRecord], None] | None = None
    """Called on every rank after each epoch."""


def run_training(recipe: Recipe, feeds: Feeds, store: Store, context: RankContext) -> TrainingState:
    """Train until the recipe's last epoch, resuming from the run's checkpoint in ``store`` where there is
    one.

    Rank 0 writes metrics.jsonl, checkpoints and, at the end, the weights of the best validation AUROC. On
    CPUs, the same recipe, data and number of ranks give the same weights, interrupted or not.
    Raises TrainingError where the loss is not finite, on every rank alike.
    """
    state = _start(recipe, context)
    load_checkpoint(store, state)
    learner = _Learner(recipe, state, context)
    while not state.is_over(recipe):
        record = learner.epoch(feeds)
        state.add(record)
        state.schedule.step(record.valid_loss)
        if context.rank == 0:
            save_history(store, state.history)
            if record.epoch % recipe.train.checkpoint_every_epochs == 0 or state.is_over(recipe):
                save_checkpoint(store, state)
        if context.report is not None:
            context.report(record)
    if context.rank == 0:
        save_weights(store, state)
    return state


def _start(recipe: Recipe, context: RankContext) -> TrainingState:
    seed_everything(recipe.train.seed)
    net = build_model(recipe.model).to(context.device)
    optimizer = build_optimizer(recipe.train, net)
    return TrainingState(net, optimizer, build_schedule(recipe.train, optimizer))


class _Learner:
    """Runs epochs on one rank's device."""

    def __init__(self, recipe: Recipe, state: TrainingState, context: RankContext) -> None:
        self.recipe = recipe
        self.state = state
        self.context = context
        self.preprocess = Preprocess(recipe.preprocess).to(context.device)
        self.bf16 = use_bf16(recipe.train, context.device)
        # Without batch statistics there are no buffers to keep alike.
        self.net: nn.Module = (
            DistributedDataParallel(state.net, broadcast_buffers=False, gradient_as_bucket_view=True)
            if context.world_size > 1
            else state.net
        )

    def epoch(self, feeds: Feeds) -> EpochRecord:
        """Train on one epoch, then validate. Raises TrainingError where a loss is not finite."""
        done = len(self.state.history)
        lr = float(self.state.optimizer.param_groups[0]["lr"])
        seed_everything(self.recipe.train.seed, done, self.context.rank)
        began = time.perf_counter()
        waits = _Timer()
        loss_sum, steps = self._train(waits.over(feeds.train(done)), done)
        mean = mean_metric(self.context.device)
        mean.update(loss_sum / max(steps, 1))
        train_loss = float(mean.compute())
        trained = time.perf_counter()
        self._check(train_loss, done + 1, lr, "training")
        valid_loss, auroc, accuracy = self._validate(feeds.valid())
        self._check(valid_loss, done + 1, lr, "validation")
        train_s = trained - began
        return EpochRecord(
            epoch=done + 1,
            lr=lr,
            train_loss=train_loss,
            valid_loss=valid_loss,
            valid_auroc=auroc,
            valid_accuracy=accuracy,
            train_s=train_s,
            valid_s=time.perf_counter() - trained,
            patches_per_s=steps * self.recipe.train.batch_size / train_s,
            wait_fraction=min(waits.total_s / train_s, 1.0),
        )

    def _train(self, batches: Iterable[Batch], epoch: int) -> tuple[Tensor, int]:
        """Sum of this rank's mean losses, and the number of steps."""
        self.net.train()
        config, device = self.recipe.train, self.context.device
        loss_sum, steps = torch.zeros((), device=device), 0
        for batch in batches:
            images_BHWC = batch.images_BHWC.to(device, non_blocking=True)
            labels_B = batch.labels_B.to(device, non_blocking=True)
            with torch.no_grad():
                images_BCHW = augment(
                    self.preprocess.fit(images_BHWC),
                    self.recipe.augment,
                    config.seed,
                    epoch,
                    batch.sample_ids_B,
                )
                images_BCHW = self._in_memory_order(self.preprocess.normalise(images_BCHW))
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                logits_BK = self.net(images_BCHW)
            loss = functional.cross_entropy(logits_BK.float(), labels_B)
            self.state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.state.optimizer.step()
            loss_sum += loss.detach()
            steps += 1
        return loss_sum, steps

    def _validate(self, batches: Iterable[Batch]) -> tuple[float, float, float]:
        """(loss, AUROC, accuracy) over all ranks, by the weights as they are, in float32, without dropout."""
        metrics = ValidMetrics(self.context.device)
        net = self.state.net.eval()
        for batch in batches:
            images_BHWC = batch.images_BHWC.to(self.context.device, non_blocking=True)
            with torch.inference_mode():
                logits_BK = net(self._in_memory_order(self.preprocess(images_BHWC))).float()
                metrics.update(
                    logits_BK, batch.labels_B.to(self.context.device), batch.mask_B.to(self.context.device)
                )
        return metrics.compute()

    def _in_memory_order(self, images_BCHW: Tensor) -> Tensor:
        # Images only: the convolutions follow their order, while weights and optimiser state stay plainly
        # contiguous.
        order = torch.channels_last if self.recipe.train.channels_last else torch.contiguous_format
        return images_BCHW.contiguous(memory_format=order)

    def _check(self, loss: float, epoch: int, lr: float, part: str) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the {part} loss of epoch {epoch} is {loss} at learning rate {lr:g}",
                "a finite loss",
                "lower train.lr, or set train.precision to fp32",
            )


class _Timer:
    """Adds up the time spent waiting for an iterator."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(iterator, None)
            self.total_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch
