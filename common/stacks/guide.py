"""Guidance by a scan of another contrast: it shows where edges run, not how bright the volume is."""

from __future__ import annotations

from collections.abc import Callable

import torch

_STEEP = 0.03  # of the guide's range: slopes well above are edges
_SMOOTH = 0.02  # of the volume's range: slopes well below are none


class GuidingEdges:
    r"""Directional total variation: penalises slopes of a volume that are not parallel to the guide's slopes.

    .. math:: R(x) = \sum \lVert \nabla x - \xi \langle \xi, \nabla x \rangle \rVert, \qquad
        \xi = \frac{\nabla g}{\sqrt{\lVert \nabla g \rVert^2 + 0.03^2}}

    Where the guide is flat, this is total variation. Across its edges, slopes of any sign and size cost nothing.

    Args:
        guide: g, ``(X, Y, Z)``, about in [0, 1].

    Source:
        Ehrhardt and Betcke, Multicontrast MRI Reconstruction with Structure-Guided Total Variation, SIAM Journal on
        Imaging Sciences 9, 2016.
    """

    def __init__(self, guide: torch.Tensor) -> None:
        slopes = compute_slopes(guide)
        self.directions = slopes / (slopes.square().sum(dim=0) + _STEEP**2).sqrt()

    def linearise_around(self, volume: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """Half the gradient of a quadratic form that touches R from above at a volume ``(X, Y, Z)``, up to a constant.

        The function is linear and symmetric. Applied to that volume, it gives half the gradient of R.
        """
        steep = 0.5 / (self._project_across(compute_slopes(volume)).square().sum(dim=0) + _SMOOTH**2).sqrt()
        return lambda x: apply_transposed_slopes(self._project_across(steep * self._project_across(compute_slopes(x))))

    def _project_across(self, slopes: torch.Tensor) -> torch.Tensor:
        """The part of slopes that is not parallel to the guide's slopes."""
        return slopes - self.directions * (self.directions * slopes).sum(dim=0)


def compute_slopes(volume: torch.Tensor) -> torch.Tensor:
    """Differences ``(3, X, Y, Z)`` from each voxel to the next along each axis, 0 at the last."""
    return torch.stack([torch.diff(volume, dim=a, append=volume.narrow(a, -1, 1)) for a in range(3)])


def apply_transposed_slopes(slopes: torch.Tensor) -> torch.Tensor:
    """The transpose of the differences."""
    total = torch.zeros_like(slopes[0])
    for axis, along in enumerate(slopes):
        inner = along.narrow(axis, 0, along.shape[axis] - 1)
        total.narrow(axis, 0, inner.shape[axis]).sub_(inner)
        total.narrow(axis, 1, inner.shape[axis]).add_(inner)
    return total
