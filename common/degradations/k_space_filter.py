"""x"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import SPATIAL_DIMS, Degradation


class KSpaceFilter(Degradation):
    r"""A degradation that weights k-space on the volume's own grid.

    .. math:: A = F^{-1}\,\mathrm{diag}(w)\,F, \qquad w(k) = w(-k) \in \mathbb{R}

    The weights are real and symmetric, so a real volume stays real and the operator is its own adjoint.

    Subclasses implement ``weights``.

    Args:
        axes: the spatial axes (0, 1, 2) that are transformed.

    Raises:
        ValueError: when ``axes`` are not distinct spatial axes.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        if not self.axes or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= set(range(SPATIAL_DIMS)):
            raise ValueError(f"{type(self).__name__}: axes must be distinct spatial axes out of 0, 1, 2, got {axes}.")

    def weights(self, *k: Tensor, sizes: Sequence[int]) -> Tensor:
        """The weight of each k-space sample.

        Args:
            k: for each of ``axes``, the absolute frequency, 0 to N / 2, in cycles per field of view. The shapes
                broadcast against each other.
            sizes: the number of samples N of each of ``axes``.

        Returns:
            Weights that broadcast against k-space.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement weights(*k, sizes=...).")

    def _degrade(self, hr: Tensor) -> Tensor:
        dims = [axis - SPATIAL_DIMS for axis in self.axes]
        sizes = [hr.shape[dim] for dim in dims]
        k_space = torch.fft.rfftn(hr, dim=dims)
        k = []
        for dim, size in zip(dims, sizes, strict=True):
            # rfftn keeps only half of the last transformed axis.
            frequencies = torch.fft.rfftfreq if dim == dims[-1] else torch.fft.fftfreq
            shape = [1] * SPATIAL_DIMS
            shape[dim] = -1
            k.append(frequencies(size, 1.0 / size, device=hr.device, dtype=hr.dtype).abs().round().reshape(shape))
        return torch.fft.irfftn(k_space * self.weights(*k, sizes=sizes).to(hr.dtype), s=sizes, dim=dims)

    def _adjoint(self, lr: Tensor) -> Tensor:
        return self._degrade(lr)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"
