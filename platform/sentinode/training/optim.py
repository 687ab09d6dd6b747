"""Optimiser and number format of a training run."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from sentinode.training.config import TrainConfig


def build_optimizer(config: TrainConfig, net: nn.Module) -> Optimizer:
    """The optimiser over the trained weights of ``net``, fused: one kernel a step instead of several per weight."""
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in trained if w.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, config.lr, betas=(0.9, config.adam_beta2), fused=True)


def use_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 in training (weights, optimiser and loss stay float32)."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AVX512-BF16 or AMX a CPU emulates bfloat16, which is slower than float32.
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
