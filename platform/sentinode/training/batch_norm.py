"""Batch norm over the batches of all ranks, so that several ranks train as one would.

torch has it for GPUs only (``SyncBatchNorm``). Here means and sums are exchanged by what every backend can do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from sentinode.models.timm_backbone import over_gpus

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _NormaliseOverRanks(torch.autograd.Function):
    """Normalised values of x [B, C, ...], and mean and (biased) variance float32 [C] of all ranks' x.

    torch's own fused kernels do all that is of the size of x, given what all ranks' x come to in place of one's.
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        _, own_mean_C, own_rstd_C = torch.native_batch_norm(x, weight_C, bias_C, None, None, True, 0.0, eps)
        own = torch.stack([own_mean_C, (own_rstd_C.pow(-2) - eps).clamp_min(0)])
        ranks = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(ranks, own)
        means_RC, variances_RC = torch.stack(ranks).unbind(1)
        mean_C = means_RC.mean(0)
        variance_C = (variances_RC + (means_RC - mean_C).square()).mean(0)
        context.save_for_backward(x, weight_C, mean_C, torch.rsqrt(variance_C + eps))
        context.mark_non_differentiable(mean_C, variance_C)
        context.eps = eps
        out = functional.batch_norm(x, mean_C, variance_C, weight_C, bias_C, False, 0.0, eps)
        return out, mean_C, variance_C

    @staticmethod
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight_C, mean_C, rstd_C = context.saved_tensors
        _, weight_grad_C, bias_grad_C = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight_C, None, None, mean_C, rstd_C, True, context.eps, [False, True, True]
        )
        sums_2C = torch.stack([weight_grad_C, bias_grad_C])
        distributed.all_reduce(sums_2C)
        along_C, level_C = sums_2C / (x.numel() // x.shape[1] * distributed.get_world_size())
        # weight * rstd * (gradient - level - along * normalised x): two maps, each affine in a channel.
        scale_C = weight_C * rstd_C
        slope_C = -scale_C * along_C * rstd_C
        x_grad = _affine(gradient, scale_C, -scale_C * level_C - slope_C * mean_C)
        x_grad += _affine(x, slope_C, torch.zeros_like(slope_C))
        return x_grad, weight_grad_C, bias_grad_C, None


def _affine(x: Tensor, slope_C: Tensor, level_C: Tensor) -> Tensor:
    """``slope * x + level`` in each channel, by the kernel for batch norms: in one pass over x, whatever its format."""
    zeros_C, ones_C = torch.zeros_like(slope_C), torch.ones_like(slope_C)
    return functional.batch_norm(x, zeros_C, ones_C, slope_C, level_C, False, 0.0, 0.0)


class RankBatchNorm(nn.Module):
    """What ``norm`` does, with the statistics of all ranks' batches, which are of one size.

    Shares the weights and buffers of ``norm``, and their names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum  # None: a plain mean over all batches
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)

    def reset_running_stats(self) -> None:
        """As torch's batch norms do."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        out: Tensor
        out, mean_C, variance_C = _NormaliseOverRanks.apply(x, self.weight, self.bias, self.eps)
        self._track(mean_C, variance_C, x.numel() // x.shape[1])
        return out

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor, count_of_rank: int) -> None:
        count = count_of_rank * distributed.get_world_size()
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * (count / max(count - 1, 1)), share)


def join_batch_norms(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` with its batch norms replaced by ones over all ranks; weights and names stay.

    Kinds that other packages derive from torch's are left alone on a CPU. So are those of a frozen part everywhere:
    they take no statistics. Leaves ``net`` in training mode.
    """
    return _joined(net.train(), device)


def _joined(net: nn.Module, device: torch.device) -> nn.Module:
    if isinstance(net, nn.modules.batchnorm._BatchNorm) and net.training:
        return _over_ranks(net, device)
    for name, child in list(net.named_children()):
        setattr(net, name, _joined(child, device))
    return net


def _over_ranks(norm: nn.modules.batchnorm._BatchNorm, device: torch.device) -> nn.Module:
    if type(norm) not in _PLAIN:
        return over_gpus(norm) if device.type == "cuda" else norm
    if device.type == "cuda":
        joined: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return joined
    assert isinstance(norm, _PLAIN)
    return RankBatchNorm(norm) if norm.track_running_stats and norm.affine else norm


def has_own_statistics(net: nn.Module) -> bool:
    """Whether a rank still has batch statistics of its own."""
    joined = (RankBatchNorm, nn.SyncBatchNorm)
    return any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, joined) for m in net.modules()
    )
