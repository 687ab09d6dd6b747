"""Weights averaged over training: EMA (Polyak and Juditsky, SIAM J. Control Optim. 30 (1992) 838-855) and SWA
(Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018).

The average is a second copy of the network. How much each update counts follows from the position in the
run, so there is nothing to save but the copy itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sentinode.training.batch_norm import RankBatchNorm
from sentinode.training.config import AveragingConfig, TrainConfig

STATISTICS_BATCHES = 64
"""Batches over which an swa average takes its batch statistics anew."""


def build_average(config: AveragingConfig, net: nn.Module) -> nn.Module | None:
    """The copy that will hold the average, None where nothing is averaged."""
    return None if config.kind == "none" else copy.deepcopy(net).requires_grad_(False)


def update_ema(average: nn.Module, net: nn.Module, config: AveragingConfig, step: int) -> None:
    """Move the average towards ``net`` after optimiser step ``step`` (from 0, over the whole run)."""
    decay = min(config.ema_decay, (1 + step) / (10 + step))
    _move(average, net, 1 - decay)


def update_swa(average: nn.Module, net: nn.Module, config: TrainConfig, epoch: int) -> bool:
    """Take the end of ``epoch`` (from 0) into the average; False before the first epoch that counts."""
    first = int(config.averaging.swa_from * config.epochs)
    if epoch < first:
        return False
    _move(average, net, 1 / (epoch - first + 1))
    return True


@torch.no_grad()
def refresh_statistics(average: nn.Module, batches: Iterable[Tensor]) -> None:
    """Take the batch statistics of averaged weights anew: those of their parts do not belong to them.

    ``batches``: preprocessed float images_BCHW; without batch norms none is asked for. Batch norms
    that are joined over ranks take the batches of all of them. Those of a frozen part stay as they are: it is in
    evaluation mode also in training.
    """
    average.train()
    kinds = (_BatchNorm, RankBatchNorm)
    norms = [module for module in average.modules() if isinstance(module, kinds) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    for images_BCHW in islice(batches, STATISTICS_BATCHES if norms else 0):
        average(images_BCHW)
    average.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def _move(average: nn.Module, net: nn.Module, share: float) -> None:
    mine, theirs = list(average.state_dict().values()), list(net.state_dict().values())
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], share)
    for a, b in zip(mine, theirs, strict=True):
        if not a.is_floating_point():
            a.copy_(b)
