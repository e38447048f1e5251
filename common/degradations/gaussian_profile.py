"""Voxels with a Gaussian profile: thick slices, and blurred, coarser planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..physics.gaussian import FWHM_PER_SIGMA
from ..physics.spline import apply_along, spline_matrix
from .base import SPATIAL_DIMS, Degradation


class GaussianProfile(Degradation):
    r"""Average along each axis with a Gaussian profile as wide as the LR voxels, at each LR voxel.

    With f the factor of an axis, and x(p) the cubic spline through its voxels,

    .. math:: (A x)_i = \int g(u)\, x(c_i + u)\, du, \qquad
              g(u) \propto \exp\!\left(-4 \ln 2\,\frac{u^2}{(\mathrm{fwhm} \cdot f)^2}\right), \qquad
              c_i = f\,i + \frac{f - 1}{2}

    A 2-D scan excites one slice at a time. The profile of a short selective pulse is close to a Gaussian with the
    nominal slice thickness as full width at half maximum: factors (1, 1, f). Many papers blur a plane in this way
    before sampling, with a standard deviation of :math:`f / (2 \sqrt{2 \ln 2})`: factors (f, f, 1). With ``fwhm=1``
    voxels touch; more is overlap (or an imperfect pulse), less is a gap.

    LR voxel 0 is centred on the first f HR voxels (offset (f - 1) / 2), not on HR voxel 0. So the edge of the field of
    view does not move. Beyond the edges of a volume, its outermost voxels are repeated.

    Factors need not be whole. Each LR voxel is computed at its exact position, also between HR voxels, so operators in
    sequence compose and their affines are exact. (A Gaussian as narrow as a voxel, sampled at HR voxels, would have an
    error of a tenth of a voxel.) The number of voxels is then rounded, and the far edge of the field of view moves by
    up to half a voxel.

    Args:
        factors: HR voxels per LR voxel along each spatial axis, three numbers of at least 1; an axis of factor 1 does
            not change.
        fwhm: full width at half maximum of the profile, as a multiple of the LR voxels; more than 0.

    Raises:
        ValueError: if ``fwhm`` is not positive, or a factor is out of its range.

    Example:
        >>> import torch
        >>> from common.degradations import GaussianProfile
        >>> thick_slices = GaussianProfile((1, 1, 4))
        >>> thick_slices(torch.rand(1, 8, 8, 24)).shape
        torch.Size([1, 8, 8, 6])
        >>> thick_slices.offset
        (0.0, 0.0, 1.5)
        >>> GaussianProfile((1.25, 1.25, 1))(torch.rand(1, 8, 8, 3)).shape
        torch.Size([1, 6, 6, 3])

    References:
        Zhao et al., SMORE: A Self-Supervised Anti-Aliasing and Super-Resolution Algorithm for MRI Using Deep Learning,
        IEEE TMI 2021, which degrades with a Gaussian slice profile of FWHM equal to the slice thickness.
        Iwamoto et al., Unsupervised MRI Super Resolution Using Deep External Learning and Guided Residual Dense Network
        with Multimodal Image Priors, IEEE TETCI 2022, section III-A, in plane.
    """

    whole_factors = False

    def __init__(self, factors: Sequence[float], fwhm: float = 1.0) -> None:
        if not (fwhm > 0 and math.isfinite(fwhm)):
            raise ValueError(f"GaussianProfile: fwhm must be a positive multiple of the LR voxel, got {fwhm}.")
        super().__init__(factors)
        self.offset = tuple((f - 1) / 2 for f in self.factors)
        self.fwhm = float(fwhm)

    def _degrade(self, hr: Tensor) -> Tensor:
        size = hr.shape[-SPATIAL_DIMS:]
        return apply_along(hr, self._matrices(self.lr_size(size), size))

    def _adjoint(self, lr: Tensor) -> Tensor:
        size = lr.shape[-SPATIAL_DIMS:]
        return apply_along(lr, self._matrices(size, self.hr_size(size)), transposed=True)

    def _matrices(self, lr_size: Sequence[int], hr_size: Sequence[int]) -> list[Tensor | None]:
        axes = zip(lr_size, hr_size, self.factors, strict=True)
        return [None if f == 1 else _profile_matrix(n, size, f, self.fwhm) for n, size, f in axes]

    def extra_repr(self) -> str:
        return f"factors={self.factors}, fwhm={self.fwhm}"


@lru_cache(maxsize=64)
def _profile_matrix(lr_size: int, hr_size: int, factor: float, fwhm: float) -> Tensor:
    """The operator along one axis, (lr_size, hr_size), a few hundred numbers on a side."""
    sigma = fwhm * factor / FWHM_PER_SIGMA
    # The trapezoidal rule, fine enough for the Gaussian and for the spline's pieces of one voxel.
    step = min(sigma, 1.0) / 4
    u = step * np.arange(-math.ceil(4.5 * sigma / step), math.ceil(4.5 * sigma / step) + 1)
    g = np.exp(-0.5 * (u / sigma) ** 2)
    centres = factor * np.arange(lr_size) + (factor - 1) / 2
    spline = spline_matrix(hr_size, (centres[:, None] + u).ravel()).reshape(lr_size, u.size, hr_size)
    return torch.from_numpy(np.einsum("q,iqj->ij", g / g.sum(), spline))
