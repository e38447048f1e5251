"""Averages over voxels: slice profiles, and kernels in plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry.gaussian import FWHM_PER_SIGMA
from ..geometry.spline import apply_along_axes, make_spline_matrix
from .base import SPATIAL_DIMS, Degradation


class GaussianProfile(Degradation):
    r"""Average along each axis with a Gaussian profile as wide as the LR voxels, at each LR voxel.

    With f the factor of an axis, and x(p) the cubic spline through its voxels,

    .. math:: (A x)_i = \int g(u)\, x(c_i + u)\, du, \qquad
              g(u) \propto \exp\!\left(-4 \ln 2\,\frac{u^2}{(\mathrm{fwhm} \cdot f)^2}\right), \qquad
              c_i = f\,i + \frac{f - 1}{2}

    The profile of a short selective pulse is close to a Gaussian with the nominal slice thickness as full width at half
    maximum: factors (1, 1, f). Many papers blur a plane in this way before sampling: factors (f, f, 1). The edge of the
    field of view does not move, unless another ``offset`` takes the place of (f - 1) / 2. Beyond the edges of a volume,
    its outermost voxels are repeated. If factors are not whole, the number of voxels is rounded, and the far edge of
    the field of view moves by up to half a voxel.

    Args:
        factors: HR voxels per LR voxel along each spatial axis, three numbers of at least 1; an axis of factor 1 does
            not change.
        fwhm: full width at half maximum of the profile in LR voxels; with 1 they touch, less is a gap.
        offset: centre of LR voxel 0 along each spatial axis, in HR voxels, 0 along an axis of factor 1; None for
            (f - 1) / 2. With that of another degradation, both have the same grid.

    Example:
        >>> import torch
        >>> from common.degradations import GaussianProfile
        >>> GaussianProfile((1, 1, 4)).offset
        (0.0, 0.0, 1.5)
        >>> GaussianProfile((1.25, 1.25, 1))(torch.rand(1, 8, 8, 3)).shape
        torch.Size([1, 6, 6, 3])

    References:
        Zhao et al. 2021, whose slice profile has the slice thickness as FWHM; Iwamoto et al. 2022, section III-A, in
        plane.
    """

    whole_factors = False

    def __init__(self, factors: Sequence[float], fwhm: float = 1.0, offset: Sequence[float] | None = None) -> None:
        if not (fwhm > 0 and math.isfinite(fwhm)):
            raise ValueError(f"GaussianProfile: fwhm must be a positive multiple of the LR voxel, got {fwhm}.")
        super().__init__(factors)
        self.offset = tuple((f - 1) / 2 for f in self.factors)
        if offset is not None:
            self.offset = tuple(float(o) for o in offset)
            if [o for o, f in zip(self.offset, self.factors, strict=True) if o and f == 1]:
                raise ValueError(f"GaussianProfile: offset is {self.offset}, expected 0 along axes of factor 1.")
        self.fwhm = float(fwhm)

    def _degrade(self, hr: Tensor) -> Tensor:
        size = hr.shape[-SPATIAL_DIMS:]
        return apply_along_axes(hr, self._make_matrices(self.compute_lr_size(size), size))

    def _adjoint(self, lr: Tensor) -> Tensor:
        size = lr.shape[-SPATIAL_DIMS:]
        return apply_along_axes(lr, self._make_matrices(size, self.compute_hr_size(size)), transposed=True)

    def blur(self, hr: Tensor) -> Tensor:
        """Average with the profile at every HR voxel, so without aliasing: ``(..., X, Y, Z)`` to the same size."""
        axes = zip(hr.shape[-SPATIAL_DIMS:], self.factors, strict=True)
        matrices = [None if f == 1 else _make_profile_matrix(n, n, 1, self.fwhm * f, 0.0) for n, f in axes]
        return self._apply_operator(lambda volume: apply_along_axes(volume, matrices), hr, lambda affine: affine)

    def _make_matrices(self, lr_size: Sequence[int], hr_size: Sequence[int]) -> list[Tensor | None]:
        axes = zip(lr_size, hr_size, self.factors, self.offset, strict=True)
        return [None if f == 1 else _make_profile_matrix(n, size, f, self.fwhm, o) for n, size, f, o in axes]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fwhm={self.fwhm}"


@lru_cache(maxsize=64)
def _make_profile_matrix(lr_size: int, hr_size: int, factor: float, fwhm: float, offset: float) -> Tensor:
    """The operator along one axis, (lr_size, hr_size), a few hundred numbers on a side."""
    sigma = fwhm * factor / FWHM_PER_SIGMA
    # The trapezoidal rule, fine enough for the Gaussian and for the spline's pieces of one voxel.
    step = min(sigma, 1.0) / 4
    u = step * np.arange(-math.ceil(4.5 * sigma / step), math.ceil(4.5 * sigma / step) + 1)
    g = np.exp(-0.5 * (u / sigma) ** 2)
    centres = factor * np.arange(lr_size) + offset
    spline = make_spline_matrix(hr_size, (centres[:, None] + u).ravel()).reshape(lr_size, u.size, hr_size)
    return torch.from_numpy(np.einsum("q,iqj->ij", g / g.sum(), spline))


class InPlaneKernel(Degradation):
    r"""Convolve each slice with a kernel and keep every ``factor``-th pixel along both of its axes.

    .. math:: (A x)_{ij} = \sum_{d, e} k_{de}\, x_{\,f i + d - K // 2,\; f j + e - K // 2}

    The slices are along the third axis. Beyond the edges of a slice, its outermost pixels are repeated.

    Args:
        kernel: ``(K, K)``, K odd, with sum 1.
        factor: HR pixels per LR pixel, along both axes.
        offset: of the kernel's centre from its middle, in HR pixels, the same along both axes.

    References:
        Huang et al. 2021.
    """

    def __init__(self, kernel: Tensor, factor: int, offset: float = 0.0) -> None:
        super().__init__((factor, factor, 1), (offset, offset, 0.0))
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) % 2 == 0:
            raise ValueError(f"InPlaneKernel: the kernel has the shape {tuple(kernel.shape)}, expected an odd square.")
        self.kernel = nn.Buffer(kernel.clone(), persistent=False)

    def _degrade(self, hr: Tensor) -> Tensor:
        margin = len(self.kernel) // 2
        slices = hr.movedim(-1, 0)
        images = slices.reshape(-1, 1, *hr.shape[-3:-1])
        images = F.pad(images, (margin,) * 4, mode="replicate")
        images = F.conv2d(images, self.kernel.to(hr)[None, None], stride=self.factors[0])
        return images.reshape(*slices.shape[:-2], *images.shape[-2:]).movedim(0, -1)

    def _adjoint(self, lr: Tensor) -> Tensor:
        # The transpose of a linear operator is its gradient, edges included.
        with torch.enable_grad():
            hr = lr.new_zeros(*lr.shape[:-3], *self.compute_hr_size(lr.shape[-3:])).requires_grad_()
            return torch.autograd.grad(self._degrade(hr), hr, lr, create_graph=lr.requires_grad)[0]
