"""Batch norm over the batches of all ranks, so that several ranks train as one would.

torch has it for GPUs only (``SyncBatchNorm``). Here the two sums are exchanged by an all-reduce that passes
gradients on, which every backend can do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks, whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class RankBatchNorm(nn.Module):
    """What ``norm`` does, with the statistics of all ranks' batches, which are of one size.

    Shares the weights and buffers of ``norm``, and their names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        axes = [axis for axis in range(x.ndim) if axis != 1]
        wide = x.float()
        # Around the running mean, or the difference of two large sums would lose the variance.
        origin_C = self.running_mean.detach().clone()
        moved = wide - _along(origin_C, x.ndim)
        sums_2C = torch.stack([moved.mean(axes), moved.square().mean(axes)])
        sums_2C = _SumOverRanks.apply(sums_2C) / distributed.get_world_size()
        mean_C, square_C = sums_2C.unbind()
        variance_C = square_C - mean_C.square()
        self._track(mean_C.detach() + origin_C, variance_C.detach(), x.numel() // x.shape[1])
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        shift_C = self.bias - mean_C * scale_C
        out: Tensor = moved * _along(scale_C, x.ndim) + _along(shift_C, x.ndim)
        return out.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor, count_of_rank: int) -> None:
        count = count_of_rank * distributed.get_world_size()
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * (count / max(count - 1, 1)), share)


def join_batch_norms(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` with its batch norms replaced by ones over all ranks; weights and names stay.

    Kinds that other packages derive from torch's are left alone on a CPU.
    """
    if device.type == "cuda":
        joined: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return joined
    if type(net) in _PLAIN:
        assert isinstance(net, _PLAIN)
        return RankBatchNorm(net) if net.track_running_stats and net.affine else net
    for name, child in list(net.named_children()):
        setattr(net, name, join_batch_norms(child, device))
    return net


def has_own_statistics(net: nn.Module) -> bool:
    """Whether a rank still has batch statistics of its own."""
    joined = (RankBatchNorm, nn.SyncBatchNorm)
    return any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, joined) for m in net.modules()
    )


def _along(values_C: Tensor, ndim: int) -> Tensor:
    return values_C.view(1, -1, *[1] * (ndim - 2))
