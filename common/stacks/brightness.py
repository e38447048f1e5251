"""Brightness and contrast of stacks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter

_BLUR = 6.0  # mm, standard deviation
_TISSUE = 0.3  # of the brightest, above which blurred voxels are compared
_VOXELS = 40_000
_STEPS = 10
_OUTLYING = 2.0  # standard deviations of a logarithm; above, a voxel counts less
_POWERS = [powers for powers in itertools.product(range(3), repeat=3) if sum(powers) <= 2]


class Brightness:
    r"""A stack's brightness relative to the volume: the exponential of a polynomial of degree 2.

    .. math:: g(u) = \exp \sum_{|p| \le 2} c_p\, u_0^{p_0} u_1^{p_1} u_2^{p_2}

    The coordinates u run from -1 to 1 from edge to edge of the field of view. Stack and volume are blurred before they
    are compared, because the volume's detail may be wrong. The fit is by least squares in tissue, where outliers count
    less. Elsewhere the field is clipped to its range in tissue.

    Args:
        stack: ``(X, Y, Z)``.
        shown: the volume's values in the same voxels.
        seen: 1 in voxels that lie in the volume, else 0.
        spacing: of the voxels in mm.

    Attributes:
        mean: geometric mean of the field over the compared voxels.
        range: lowest and highest logarithm of the field in these voxels.
    """

    def __init__(self, stack: torch.Tensor, shown: torch.Tensor, seen: torch.Tensor, spacing: Sequence[float]) -> None:
        sigmas = [_BLUR / mm for mm in spacing]
        y, s = (gaussian_filter((v * seen).double().cpu().numpy(), sigmas) for v in (stack, shown))
        tissue = (s > _TISSUE * s.max()) & (y > _TISSUE * y.max())
        chosen = np.argwhere(tissue)
        chosen = chosen[np.random.default_rng(0).permutation(len(chosen))[:_VOXELS]]
        axes = [_coordinates(n)[index] for n, index in zip(stack.shape, chosen.T, strict=True)]
        columns = np.stack([math.prod(u**p for u, p in zip(axes, powers, strict=True)) for powers in _POWERS], axis=1)
        dark, bright = (v[tuple(chosen.T)] for v in (y, s))
        logs = np.log(dark / bright)
        counts = bright
        for _ in range(_STEPS):
            self.coefficients = np.linalg.lstsq(columns * counts[:, None], logs * counts, rcond=None)[0]
            missed = np.abs(logs - columns @ self.coefficients)
            counts = bright / np.sqrt(1 + (missed / (_OUTLYING * 1.4826 * np.median(missed) + 1e-12)) ** 2)
        fitted = columns @ self.coefficients
        self.mean, self.range = float(np.exp(fitted.mean())), (float(fitted.min()), float(fitted.max()))

    def over(self, size: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """The field, as a volume of this many voxels over the same field of view."""
        axes = [torch.from_numpy(_coordinates(n)).float().to(device) for n in size]
        x, y, z = axes[0][:, None, None], axes[1][:, None], axes[2]
        terms = zip(self.coefficients.tolist(), _POWERS, strict=True)
        return sum(c * x**i * y**j * z**k for c, (i, j, k) in terms).clamp(*self.range).exp()


def _coordinates(n: int) -> np.ndarray:
    """Coordinates of the centres of n voxels, from -1 to 1."""
    return (2 * np.arange(n) + 1) / n - 1


_SHOWN = 0.1  # of the brightest, above which voxels are tissue
_DETAIL = 4.0  # pixels, standard deviation of the blur that is subtracted to get the detail
_BORDER = 3  # pixels of tissue next to air, which are an edge in any contrast
_FEWEST = 200  # voxels


def likeness(stack: torch.Tensor, shown: torch.Tensor, seen: torch.Tensor) -> float:
    """The correlation of detail in tissue: near 1 for the same contrast, near 0 or below for another.

    Args:
        stack: ``(X, Y, Z)``, slices along the last axis.
        shown: a volume's values in the same voxels.
        seen: 1 in voxels that lie in the volume, else 0.

    Returns:
        The correlation; 0 if there are fewer than 200 voxels to compare.
    """
    y, s, inside = (v.double().cpu().numpy() for v in (stack, shown, seen))
    tissue = (y > _SHOWN * np.percentile(y, 99)) & (s > _SHOWN * np.percentile(s, 99)) & (inside > 0)
    tissue = binary_erosion(tissue, np.ones((3, 3, 1)), iterations=_BORDER)
    if tissue.sum() < _FEWEST:
        return 0.0
    details = [(v - gaussian_filter(v, (_DETAIL, _DETAIL, 0)))[tissue] for v in (y, s)]
    return float(np.corrcoef(*details)[0, 1])
