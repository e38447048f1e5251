"""Averaging over blocks of voxels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import SPATIAL_DIMS, Degradation


class BlockAverage(Degradation):
    r"""Average the HR voxels that make up each LR voxel.

    .. math:: (A x)_i = \frac{1}{f_0 f_1 f_2} \sum_{j \in \mathrm{block}(i)} x_j

    This is the partial-volume model of a rectangular voxel. Many papers call it down-sampling. The edges of the field
    of view do not move, so LR voxel 0 is centred (f - 1) / 2 HR voxels further in than HR voxel 0.

    Args:
        factors: HR voxels per LR voxel along each spatial axis.

    Example:
        >>> import torch
        >>> from common.degradations import BlockAverage
        >>> BlockAverage((4, 1, 1))(torch.arange(8.0).reshape(1, 8, 1, 1)).flatten()
        tensor([1.5000, 5.5000])

    References:
        Greenspan, Super-Resolution in Medical Imaging, The Computer Journal 2009.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__(factors)
        self.offset = tuple((f - 1) / 2 for f in self.factors)

    def _degrade(self, hr: Tensor) -> Tensor:
        blocks = [n for size, f in zip(hr.shape[-SPATIAL_DIMS:], self.factors, strict=True) for n in (size // f, f)]
        return hr.reshape(*hr.shape[:-SPATIAL_DIMS], *blocks).mean(dim=(-5, -3, -1))

    def _adjoint(self, lr: Tensor) -> Tensor:
        f0, f1, f2 = self.factors
        x, y, z = lr.shape[-SPATIAL_DIMS:]
        lead = lr.shape[:-SPATIAL_DIMS]
        blocks = lr.reshape(*lead, x, 1, y, 1, z, 1).expand(*lead, x, f0, y, f1, z, f2)
        return blocks.reshape(*lead, x * f0, y * f1, z * f2) / (f0 * f1 * f2)
