"""A stack's brightness relative to a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ..geometry.gaussian import average_gaussian

_WIDTH = 20.0  # mm, standard deviation of the window
_COARSE = 5.0  # mm of the grid on which fields are kept
_FIRM = 0.02  # of the mean power: windows with less tissue have the mean brightness
_MOST = 4.0  # ratio of a field to its mean
_GAINS = (0.5, 2.0)  # range of a slice's gain
_SAME = 0.01  # difference from 1 of a gain that no one sees, and that edges across slices imitate


class BrightnessField:
    r"""The smooth field by which a stack y is brighter than what a volume shows in its voxels, s.

    .. math:: g = \frac{w * (c\, y\, s) + \epsilon\, \bar g}{w * (c\, s^2) + \epsilon}

    This is the least-squares gain in each Gaussian window w of 20 mm. Where there is no tissue, the field goes to its
    mean :math:`\bar g`.

    Args:
        stack: y, ``(X, Y, Z)``.
        simulated: s.
        counts: c, how much each voxel counts, 0 to 1.
        spacing: of the voxels in mm.

    Attributes:
        mean: :math:`\bar g`, the least-squares gain of the whole stack.
    """

    def __init__(
        self, stack: torch.Tensor, simulated: torch.Tensor, counts: torch.Tensor, spacing: Sequence[float] | np.ndarray
    ) -> None:
        size = [max(1, round(n * mm / _COARSE)) for n, mm in zip(stack.shape, spacing, strict=True)]
        products = torch.stack([counts * stack * simulated, counts * simulated.square()])
        products = F.interpolate(products[None], size, mode="area")[0]
        cells = [n * mm / m for n, mm, m in zip(stack.shape, spacing, size, strict=True)]
        covariance = np.diag([(_WIDTH / cell) ** 2 for cell in cells]).astype(np.float32)
        margins = [int(3 * _WIDTH / cell) + 1 for cell in cells]
        above, below = average_gaussian(products, covariance, margins).clamp_min(0)
        total = products.sum(dim=(1, 2, 3))
        self.mean = float(total[0] / total[1].clamp_min(1e-12))
        least = _FIRM * below.max().clamp_min(1e-12)
        field = (above + least * self.mean) / (below + least)
        self.logarithm = (field / self.mean).clamp(1 / _MOST, _MOST).log() if self.mean > 0 else torch.zeros_like(field)

    def evaluate(self, size: Sequence[int]) -> torch.Tensor:
        """The field, as a volume of this many voxels over the same field of view."""
        scaled = F.interpolate(self.logarithm[None, None], tuple(size), mode="trilinear", align_corners=False)[0, 0]
        return self.mean * scaled.exp()


def estimate_slice_gains(stack: torch.Tensor, simulated: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The least-squares gain of each slice of a stack, ``(Z,)``; a slice that shows little has a gain near 1.

    A gain that differs from 1 by less than 0.01 is 1.

    Args:
        stack: ``(X, Y, Z)``, without its brightness field.
        simulated: what a volume shows in its voxels.
        counts: how much each voxel counts, 0 to 1.
    """
    above, below = ((counts * v * simulated).sum(dim=(0, 1)) for v in (stack, simulated))
    firm = 5 * _FIRM * below.median() + 1e-12
    gains = ((above + firm) / (below + firm)).clamp(*_GAINS)
    return torch.where((gains - 1).abs() < _SAME, 1.0, gains)
