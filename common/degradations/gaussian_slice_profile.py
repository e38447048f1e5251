"""Thick slices with a Gaussian profile."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import SPATIAL_DIMS, Degradation

__all__ = ["GaussianSliceProfile"]


class GaussianSliceProfile(Degradation):
    r"""Average along one axis with a Gaussian slice profile, once for each thick slice.

    With f the factor and n = N / f thick slices,

    .. math:: (A x)_i = \sum_j W_{ij}\, x_j, \qquad
              W_{ij} \propto \exp\!\left(-4 \ln 2\,\frac{(j - c_i)^2}{(\mathrm{fwhm} \cdot f)^2}\right), \qquad
              c_i = f\,i + \frac{f - 1}{2}, \qquad \sum_j W_{ij} = 1

    A 2-D scan excites one slice at a time, and the profile of a short selective pulse is close to a Gaussian whose full
    width at half maximum is the nominal slice thickness. With ``fwhm=1`` slices of that thickness touch; more is
    overlap (or an imperfect pulse), less is a gap. The stack covers the field of view of the HR volume: thick slice 0
    is centred on the centre of the first block of f thin ones (offset (f - 1) / 2), not on thin slice 0. At both ends
    of the stack the profile is cut off and its weights are normalised again, so a constant volume stays constant.

    Args:
        factor: thin (HR) slices per thick (LR) slice, a positive integer.
        axis: the spatial axis (0, 1, 2) along which slices are stacked.
        fwhm: full width at half maximum of the profile, as a multiple of the spacing of the thick slices; more than 0.

    Raises:
        ValueError: when ``fwhm`` is not positive, or ``factor`` or ``axis`` is out of its range.

    Example:
        >>> import torch
        >>> from common.degradations import GaussianSliceProfile
        >>> thick_slices = GaussianSliceProfile(factor=4, axis=2)
        >>> thick_slices(torch.rand(1, 8, 8, 24)).shape
        torch.Size([1, 8, 8, 6])
        >>> thick_slices.offset
        (0.0, 0.0, 1.5)

    References:
        Zhao et al., SMORE: A Self-Supervised Anti-Aliasing and Super-Resolution Algorithm for MRI Using Deep Learning,
        IEEE TMI 2021, which degrades with a Gaussian slice profile of FWHM equal to the slice thickness.
    """

    def __init__(self, factor: int, axis: int, fwhm: float = 1.0) -> None:
        if axis not in range(SPATIAL_DIMS):
            raise ValueError(f"GaussianSliceProfile: axis must be one of the spatial axes 0, 1, 2, got {axis}.")
        if not (fwhm > 0 and math.isfinite(fwhm)):
            raise ValueError(
                f"GaussianSliceProfile: fwhm must be a positive multiple of the slice spacing, got {fwhm}."
            )
        super().__init__(tuple(factor if a == axis else 1 for a in range(SPATIAL_DIMS)))
        self.offset = tuple((f - 1) / 2 for f in self.factors)
        self.axis = axis
        self.fwhm = float(fwhm)

    def _degrade(self, hr: Tensor) -> Tensor:
        dim = self.axis - SPATIAL_DIMS
        weights = self._weights(hr.shape[dim] // self.factors[self.axis], hr)
        return (hr.movedim(dim, -1) @ weights.T).movedim(-1, dim)

    def _adjoint(self, lr: Tensor) -> Tensor:
        dim = self.axis - SPATIAL_DIMS
        weights = self._weights(lr.shape[dim], lr)
        return (lr.movedim(dim, -1) @ weights).movedim(-1, dim)

    def _weights(self, thick_slices: int, like: Tensor) -> Tensor:
        """The matrix W, (thick slices, thin slices), a few hundred numbers on a side."""
        factor = self.factors[self.axis]
        centres = factor * torch.arange(thick_slices, dtype=torch.float64) + self.offset[self.axis]
        distance = torch.arange(thick_slices * factor, dtype=torch.float64) - centres[:, None]
        # softmax is the normalised Gaussian, and stays finite for profiles much thinner than a slice.
        weights = torch.softmax(-4 * math.log(2) * (distance / (self.fwhm * factor)) ** 2, dim=1)
        return weights.to(like)

    def extra_repr(self) -> str:
        return f"factor={self.factors[self.axis]}, axis={self.axis}, fwhm={self.fwhm}"
