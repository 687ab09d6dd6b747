"""One optimiser step on one rank: from stored patches to changed weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sentinode.data.augment import augment
from sentinode.data.loader import Batch
from sentinode.data.random_bits import uniform
from sentinode.models.dropout import SampleDropout
from sentinode.models.preprocess import Preprocess
from sentinode.schema import CENTRE_PX, PATCH_PX
from sentinode.training.config import Recipe
from sentinode.training.loss import ClassWeights, mean_loss, smoothed
from sentinode.training.mix import mix_pairs
from sentinode.training.optim import use_bf16
from sentinode.training.state import seed_everything


@dataclass
class StepResult:
    """What a step says of itself, over all ranks unless said otherwise."""

    loss: float
    own_loss: float
    """Of this rank's part."""
    flagged: bool
    """Whether a rank asked for attention."""
    own_s: float
    """This rank's time for augmentation and forward pass."""


class Stepper:
    """Trains ``net`` (wrapped for data parallelism where there are several ranks) batch by batch."""

    def __init__(
        self,
        recipe: Recipe,
        net: nn.Module,
        optimizer: Optimizer,
        weights: ClassWeights,
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        self.recipe, self.net, self.optimizer = recipe, net, optimizer
        self.weights, self.device = weights, device
        self.rank, self.world_size = rank, world_size
        self.preprocess = Preprocess(recipe.preprocess).to(device)
        self.bf16 = use_bf16(recipe.train, device)
        self._trained = [weight for weight in net.parameters() if weight.requires_grad]
        self._dropouts = [module for module in net.modules() if isinstance(module, SampleDropout)]

    def images(self, images_BHWC: Tensor) -> Tensor:
        """Stored patches (uint8) as the network takes them, unchanged by chance: images_BCHW."""
        return self._in_memory_order(self.preprocess(images_BHWC.to(self.device, non_blocking=True)))

    def run(self, batch: Batch, lr: float, epoch: int, step: int, *, flag: bool = False) -> StepResult:
        """Take one step, unless the loss is not finite: then weights stay as they are, on every rank.

        ``flag``: ask all ranks for attention after this step.
        """
        began = time.perf_counter()
        config = self.recipe.train
        seed_everything(config.seed, epoch, step, self.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        images_BCHW, targets_B = self._prepared(batch, epoch)
        ids_B = batch.sample_ids_B.to(self.device, non_blocking=True)
        parts = config.micro_batches
        total = torch.zeros(2, device=self.device)
        total[1] = float(flag)
        own_s, pending = 0.0, None
        chunks = zip(*(values.tensor_split(parts) for values in (images_BCHW, targets_B, ids_B)), strict=True)
        for number, (images, targets, ids) in enumerate(chunks):
            last = number == parts - 1
            with self._without_sync(not last):
                self._draw_dropout(ids, epoch)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    logits_BK = self.net(images)
                loss = mean_loss(logits_BK, targets, self.weights) * (len(targets) / len(targets_B))
                total[0] += loss.detach()
                own_s = time.perf_counter() - began
                own = total[0].clone()
                if last and self.world_size > 1:
                    pending = distributed.all_reduce(total, async_op=True)
                loss.backward()  # type: ignore[no-untyped-call]
        own_loss = own.item()
        if pending is not None:
            pending.wait()
        mean, flags = total.tolist()
        if mean - mean == 0:  # finite
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(self._trained, config.clip_norm)
            self.optimizer.step()
        return StepResult(mean / self.world_size, own_loss, bool(flags), own_s)

    @torch.no_grad()
    def _prepared(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """The augmented, mixed and normalised images of a batch, and its targets."""
        recipe, seed = self.recipe, self.recipe.train.seed
        ids_B = batch.sample_ids_B.to(self.device, non_blocking=True)
        fit = self.preprocess.fit_coarsely if self.bf16 else self.preprocess.fit
        fitted_BCHW = fit(batch.images_BHWC.to(self.device, non_blocking=True))
        images_BCHW = augment(fitted_BCHW, recipe.augment, seed, epoch, ids_B)
        targets_B = smoothed(batch.labels_B.to(self.device, non_blocking=True), recipe.train.label_smoothing)
        images_BCHW, targets_B = mix_pairs(
            images_BCHW,
            targets_B,
            recipe.train.mix,
            seed,
            epoch,
            ids_B,
            self._centre_px(),
            alternating=recipe.shuffle.balanced,
        )
        return self._in_memory_order(self.preprocess.normalise(images_BCHW)), targets_B

    def _centre_px(self) -> float:
        """Side of PCam's central square at the scale of the network's input."""
        config = self.recipe.preprocess
        return CENTRE_PX * (config.input_px / PATCH_PX if config.fit == "resize" else 1.0)

    def _draw_dropout(self, ids_B: Tensor, epoch: int) -> None:
        for number, module in enumerate(self._dropouts):
            module.noise_BN = uniform(
                ids_B, module.features, "dropout", self.recipe.train.seed, epoch, number
            )

    def _without_sync(self, wanted: bool) -> AbstractContextManager[None]:
        return (
            self.net.no_sync() if wanted and isinstance(self.net, DistributedDataParallel) else nullcontext()
        )

    def _in_memory_order(self, images_BCHW: Tensor) -> Tensor:
        # Images only: the convolutions follow their order, while weights and optimiser state stay plainly
        # contiguous.
        order = torch.channels_last if self.recipe.train.channels_last else torch.contiguous_format
        return images_BCHW.contiguous(memory_format=order)


class Timer:
    """Adds up the time spent waiting for an iterator."""

    def __init__(self, total_s: float = 0.0) -> None:
        self.total_s = total_s

    def over(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """``batches``, timed."""
        try:
            while True:
                began = time.perf_counter()
                batch = next(batches, None)
                self.total_s += time.perf_counter() - began
                if batch is None:
                    return
                yield batch
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
