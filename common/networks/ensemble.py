"""A network's mean over mirrored and transposed copies of its input."""

from __future__ import annotations

import torch
from torch import nn


class GeometricEnsemble(nn.Module):
    """The mean of a network's results for the eight forms of a slab, each transformed back.

    The forms are the mirror images in plane of the slab and of its transpose in plane. The network must keep the grid.
    Source: the geometric ensemble loss of Maeda 2020.

    Args:
        network: maps ``(B, 1, H, W, Z)`` to the same size.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, Z)`` to the same size; H and W are equal."""
        forms = [turned.flip(axes) for turned in (slab, slab.transpose(2, 3)) for axes in ([], [2], [3], [2, 3])]
        results = self.network(torch.cat(forms)).chunk(len(forms))
        undone = [result.flip(axes) for result, axes in zip(results, 2 * [[], [2], [3], [2, 3]], strict=True)]
        undone = undone[:4] + [result.transpose(2, 3) for result in undone[4:]]
        return torch.stack(undone).mean(dim=0)
