"""Batch norm over all processes, on any device."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import nn


class _SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.SyncBatchNorm`` for any device: a differentiable sum over the processes. Torch's is for GPUs only."""

    num_batches_tracked: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor
    momentum: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        # In float32 even under autocast, because the sums are over a whole batch.
        values = x.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = torch.cat([values.sum(dim=(0, 2, 3)), (values**2).sum(dim=(0, 2, 3)), count])
        total, squares, count = dist_functional.all_reduce(sums).split([self.num_features, self.num_features, 1])
        mean = total / count
        variance = (squares / count - mean**2).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        gain = self.weight * torch.rsqrt(variance + self.eps)
        return (values * gain[:, None, None] + (self.bias - mean * gain)[:, None, None]).to(x.dtype)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make every ``BatchNorm2d`` of a network see the batches of all processes in training, in place.

    Args:
        network: every process of the default group uses it in step. Its weights and their names do not change.

    Raises:
        RuntimeError: if the processes are not joined.
    """
    if not dist.is_initialized():
        raise RuntimeError("synchronise_batch_norm: torch.distributed is not initialised.")
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SynchronisedBatchNorm2d
