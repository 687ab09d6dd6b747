"""Epochs on one rank: training steps with saves and progress between them, then validation."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sentinode.errors import TrainingError
from sentinode.storage import Store
from sentinode.training.averaging import refresh_statistics, update_ema, update_swa
from sentinode.training.batch_norm import has_own_statistics, join_batch_norms
from sentinode.training.config import Recipe
from sentinode.training.context import RankContext
from sentinode.training.failure import Where, loss_error
from sentinode.training.feeds import Feeds
from sentinode.training.keeper import Keeper
from sentinode.training.loss import class_weights
from sentinode.training.metrics import EpochRecord
from sentinode.training.schedule import learning_rate
from sentinode.training.state import PartialEpoch, TrainingState
from sentinode.training.step import Stepper, StepResult, Timer
from sentinode.training.validation import ScoreCollector, ValidScores

ATTENTION_EVERY_S = 5.0


class Learner:
    """Runs the epochs of ``recipe`` on this rank, changing ``state``."""

    def __init__(
        self,
        recipe: Recipe,
        state: TrainingState,
        feeds: Feeds,
        store: Store,
        keeper: Keeper,
        context: RankContext,
    ) -> None:
        self.recipe, self.state, self.feeds, self.store = recipe, state, feeds, store
        self.keeper, self.context = keeper, context
        self.stepper = Stepper(
            recipe,
            self._parallel(state.net),
            state.optimizer,
            class_weights(recipe, feeds.class_counts),
            context.device,
            context.rank,
            context.world_size,
        )
        if state.average is not None and context.world_size > 1:
            # swa takes its batch statistics anew, and from the batches of all ranks as one rank would.
            state.average = join_batch_norms(state.average, context.device)
        self._asked_s = time.monotonic()

    def epoch(self) -> EpochRecord:
        """Train to the end of the present epoch, then validate.

        Raises TrainingError, on every rank alike, where a loss is not finite.
        """
        epoch, began_s = len(self.state.history), time.perf_counter() - self.state.partial.train_s
        waits = Timer(self.state.partial.wait_s)
        lr, own_s = self._train(epoch, began_s, waits)
        train_s, steps = time.perf_counter() - began_s, self.state.partial.steps
        train_loss = self.state.partial.loss_sum / max(steps, 1)
        scored = self._averaged(epoch)
        began = time.perf_counter()
        scores = self._validate(scored)
        if not math.isfinite(scores.loss):
            raise TrainingError(
                f"the validation loss of epoch {epoch + 1} is {scores.loss} at learning rate {lr:g}",
                "a finite loss",
                "lower train.lr, or set train.precision to fp32",
            )
        auroc, accuracy, specificity = self._measure(scores)
        wait_s, slowest_rank, slowest_ratio = self._compare_ranks(waits.total_s, own_s)
        record = EpochRecord(
            epoch=epoch + 1,
            lr=lr,
            train_loss=train_loss,
            valid_loss=scores.loss,
            valid_auroc=auroc,
            valid_accuracy=accuracy,
            valid_specificity=specificity,
            train_s=train_s,
            valid_s=time.perf_counter() - began,
            patches_per_s=steps * self.recipe.train.batch_size / train_s,
            wait_fraction=min(wait_s / train_s, 1.0),
            slowest_rank=slowest_rank,
            slowest_ratio=slowest_ratio,
            world_size=self.context.world_size,
        )
        if self.state.add(record, scored) and self.context.rank == 0 and self.context.on_best is not None:
            self.context.on_best(scores)
        return record

    def _train(self, epoch: int, began_s: float, waits: Timer) -> tuple[float, float]:
        """Take the rest of the epoch's steps; returns the last learning rate and this rank's own time."""
        config, state = self.recipe.train, self.state
        self.stepper.net.train()
        own_s, lr = 0.0, self._lr(epoch, max(state.partial.steps - 1, 0))
        for batch in waits.over(iter(self.feeds.train(epoch, state.partial.steps))):
            step = state.partial.steps
            lr = self._lr(epoch, step)
            result = self.stepper.run(batch, lr, epoch, step, flag=self._wants_attention())
            if not math.isfinite(result.loss):
                where = Where(epoch + 1, step + 1, lr)
                raise loss_error(result, batch, self.feeds, self.store, state.net, self.context, where)
            if state.average is not None and config.averaging.kind == "ema":
                update_ema(state.average, state.net, config.averaging, epoch * self.feeds.steps + step)
            own_s += result.own_s
            state.partial = PartialEpoch(
                steps=step + 1,
                loss_sum=state.partial.loss_sum + result.loss,
                train_s=time.perf_counter() - began_s,
                wait_s=waits.total_s,
            )
            self._between(result)
        return lr, own_s + waits.total_s

    def _lr(self, epoch: int, step: int) -> float:
        losses = [record.valid_loss for record in self.state.history]
        at = epoch * self.feeds.steps + step
        return learning_rate(self.recipe.train, at, self.feeds.steps, losses)

    def _between(self, result: StepResult) -> None:
        """What may be due between two steps."""
        urgent = result.flagged and self.context.must_save is not None and self.context.must_save()
        self.keeper.after_step(self.state, self.feeds.steps, self.context.world_size, urgent=urgent)

    def _wants_attention(self) -> bool:
        """Every few seconds rank 0 has all ranks look whether they are about to be taken away, at the same step."""
        if self.context.must_save is None or self.context.rank:
            return False
        if time.monotonic() - self._asked_s < ATTENTION_EVERY_S:
            return False
        self._asked_s = time.monotonic()
        return True

    def _averaged(self, epoch: int) -> nn.Module:
        """The weights that count at the end of an epoch: the average where there is one yet."""
        state, config = self.state, self.recipe.train
        scored = state.net
        if state.average is not None and config.averaging.kind == "ema":
            scored = state.average
        elif state.average is not None and update_swa(state.average, state.net, config, epoch):
            scored = state.average
            refresh_statistics(scored, self._plain_images(epoch))
        if self.context.world_size > 1 and has_own_statistics(scored):
            for buffer in scored.buffers():
                distributed.broadcast(buffer, 0)
        return scored

    def _plain_images(self, epoch: int) -> Iterator[Tensor]:
        for batch in self.feeds.train(epoch, 0):
            yield self.stepper.images(batch.images_BHWC)

    def _validate(self, net: nn.Module) -> ValidScores:
        """By the weights as they are, in float32, without dropout."""
        collector = ScoreCollector()
        net.eval()
        for batch in self.feeds.valid():
            with torch.inference_mode():
                logits_BK = net(self.stepper.images(batch.images_BHWC))
                device = logits_BK.device
                collector.add(
                    logits_BK,
                    batch.labels_B.to(device),
                    batch.mask_B.to(device),
                    batch.sample_ids_B.to(device),
                )
        return collector.gather(self.context.world_size)

    def _measure(self, scores: ValidScores) -> tuple[float, float, float]:
        """AUROC, accuracy, and specificity at 99 % sensitivity: measured on rank 0, known to all."""
        found = (0.0, 0.0, 0.0)
        if self.context.rank == 0:
            found = (*scores.auroc_and_accuracy(), scores.specificity)
        if self.context.world_size == 1:
            return found
        told = torch.tensor(found, dtype=torch.float64, device=self.context.device)
        distributed.broadcast(told, 0)
        auroc, accuracy, specificity = told.tolist()
        return auroc, accuracy, specificity

    def _compare_ranks(self, wait_s: float, own_s: float) -> tuple[float, int, float]:
        """Mean wait over ranks, the slowest rank, and its time over the mean."""
        mine = torch.tensor([wait_s, own_s], dtype=torch.float64, device=self.context.device)
        parts = [torch.empty_like(mine) for _ in range(self.context.world_size)]
        if self.context.world_size > 1:
            distributed.all_gather(parts, mine)
        else:
            parts = [mine]
        times_R2 = torch.stack(parts).cpu()
        slowest = int(times_R2[:, 1].argmax())
        mean_s = float(times_R2[:, 1].mean())
        ratio = float(times_R2[slowest, 1]) / mean_s if mean_s else 1.0
        return float(times_R2[:, 0].mean()), slowest, ratio

    def _parallel(self, net: nn.Module) -> nn.Module:
        """``net`` compiled where asked for, and wrapped where there are several ranks."""
        joined = join_batch_norms(net, self.context.device) if self.context.world_size > 1 else net
        compiled: nn.Module = torch.compile(joined) if self.recipe.train.compile else joined  # type: ignore[assignment]
        if self.context.world_size == 1:
            return compiled
        # Of 1x1 convolutions under channels_last: their gradients lie in memory as the weights do, but are said not to.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Buffers follow rank 0, for the batch norms that could not be joined.
        return DistributedDataParallel(compiled, gradient_as_bucket_view=True)
