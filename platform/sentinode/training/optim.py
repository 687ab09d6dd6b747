"""Optimiser, learning-rate schedule and number format of a training run."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from sentinode.training.config import TrainConfig


class Schedule(Protocol):
    """Sets the learning rate once an epoch."""

    def step(self, valid_loss: float) -> None:
        """To be called after each epoch with its validation loss, the same on every rank."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _Timed:
    """A schedule that looks at the epoch only."""

    def __init__(self, scheduler: CosineAnnealingLR) -> None:
        self._scheduler = scheduler

    def step(self, valid_loss: float) -> None:
        self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scheduler.load_state_dict(state)


class _Constant:
    def step(self, valid_loss: float) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def build_optimizer(config: TrainConfig, net: nn.Module) -> Optimizer:
    """The optimiser over all weights of ``net``, fused: one kernel a step instead of several per weight."""
    weights = list(net.parameters())
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            weights, config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay, fused=True
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, config.lr, weight_decay=config.weight_decay, fused=True)


def build_schedule(config: TrainConfig, optimizer: Optimizer) -> Schedule:
    """The schedule of ``config`` over ``optimizer``."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
    if config.schedule == "cosine":
        return _Timed(CosineAnnealingLR(optimizer, T_max=config.epochs))
    return _Constant()


def use_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 in training (weights, optimiser and loss stay float32)."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AVX512-BF16 or AMX a CPU emulates bfloat16, which is slower than float32.
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
