"""Guidance by a scan of another contrast: it shows where edges run, not how bright the volume is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch

_STEEP = 0.03  # of the guide's range: slopes well above are edges
_SMOOTH = 0.02  # of the volume's range: slopes well below are none
_POINTS = 200_000  # voxels of a slab on a CPU: its slopes stay in the cache, which makes them three times as fast
_ENTRIES = tuple(itertools.combinations_with_replacement(range(3), 2))  # of a symmetric matrix


class GuidingEdges:
    r"""Directional total variation: penalises slopes of a volume that are not parallel to the guide's slopes.

    .. math:: R(x) = \sum \lVert \nabla x - \xi \langle \xi, \nabla x \rangle \rVert, \qquad
        \xi = \frac{\nabla g}{\sqrt{\lVert \nabla g \rVert^2 + 0.03^2}}

    Where the guide is flat, this is total variation. Across its edges, slopes of any sign and size cost nothing. Of
    several guides it is the mean.

    Args:
        guides: g of each, ``(X, Y, Z)``, about in [0, 1].

    Source:
        Ehrhardt and Betcke, Multicontrast MRI Reconstruction with Structure-Guided Total Variation, SIAM Journal on
        Imaging Sciences 9, 2016.
    """

    def __init__(self, guides: Sequence[torch.Tensor]) -> None:
        self.guides = guides

    def linearise_around(self, volume: torch.Tensor) -> SlopeForm:
        """Half the gradient of a quadratic form that touches R from above at a volume ``(X, Y, Z)``, up to a constant.

        Applied to that volume, it gives half the gradient of R.
        """
        matrix = volume.new_zeros(6, *volume.shape)
        for part in list_slabs(volume):
            slopes = compute_slopes(volume, part)
            for guide in self.guides:
                along = compute_slopes(guide, part)
                along /= (along.square().sum(dim=0) + _STEEP**2).sqrt()
                across = slopes - along * (along * slopes).sum(dim=0)
                steep = 0.5 / len(self.guides) / (across.square().sum(dim=0) + _SMOOTH**2).sqrt()
                # (1 - xi xi^T)^2, the projection applied twice
                twice = steep * (2 - along.square().sum(dim=0))
                for entry, (i, j) in zip(matrix[:, part], _ENTRIES, strict=True):
                    entry -= twice * along[i] * along[j]
                    if i == j:
                        entry += steep
        return SlopeForm(matrix)


class SlopeForm:
    r"""A quadratic form of a volume's slopes: :math:`x \mapsto \nabla^T W \nabla x`, linear and symmetric.

    Args:
        matrix: W at each voxel, ``(6, X, Y, Z)``: xx, xy, xz, yy, yz, zz; or ``(1, X, Y, Z)``, a number at each.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns half the form's gradient at a volume ``(X, Y, Z)``."""
        total = torch.zeros_like(volume)
        for part in list_slabs(volume):
            slopes, w = compute_slopes(volume, part), self.matrix[:, part]
            if len(w) == 1:
                x, y, z = slopes * w
            else:
                x, y, z = (
                    (w[a] * slopes[0]).addcmul_(w[b], slopes[1]).addcmul_(w[c], slopes[2])
                    for a, b, c in ((0, 1, 2), (1, 3, 4), (2, 4, 5))
                )
            inner = len(x) - (part.stop == len(volume))
            for axis, along in enumerate((x[:inner], y[:, :-1], z[:, :, :-1])):
                # the transposed differences; along the first axis they reach into the next slab
                block = total[part.start : part.stop + 1] if axis == 0 else total[part]
                count = along.shape[axis]
                block.narrow(axis, 0, count).sub_(along)
                block.narrow(axis, 1, count).add_(along)
        return total


def compute_slopes(volume: torch.Tensor, part: slice) -> torch.Tensor:
    """Differences ``(3, N, Y, Z)`` from each voxel of planes to the next along each axis, 0 at the volume's last.

    Args:
        volume: ``(X, Y, Z)``.
        part: the N planes.
    """
    planes = volume[part]
    slopes = planes.new_zeros(3, *planes.shape)
    after = volume[part.start + 1 : part.stop + 1]
    torch.sub(after, planes[: len(after)], out=slopes[0, : len(after)])
    torch.sub(planes[:, 1:], planes[:, :-1], out=slopes[1, :, :-1])
    torch.sub(planes[:, :, 1:], planes[:, :, :-1], out=slopes[2, :, :, :-1])
    return slopes


def list_slabs(volume: torch.Tensor) -> Iterator[slice]:
    """Planes of a volume ``(X, Y, Z)`` to compute at a time; on a GPU all."""
    count = max(1, _POINTS // volume[0].numel()) if volume.device.type == "cpu" else len(volume)
    for first in range(0, len(volume), count):
        yield slice(first, min(first + count, len(volume)))
