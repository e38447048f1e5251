"""A stack of slices, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .deformation import Deformation
from .gaussian import FWHM_PER_SIGMA
from .resampling import PARALLEL, SplineResampling, scale_voxels


@dataclass(frozen=True)
class Stack:
    """A stack of slices of one exam.

    Attributes:
        voxels: ``(X, Y, Z)``, slices along the last axis.
        affine: (4, 4) in mm.
        thickness: of the slices in distances of their centres; less than 1 is a gap.
        name: its file.
        is_measured: ``(X, Y, Z)``, false in voxels without a measured value.
        deformation: of the points where the affine puts the voxels; None for none.
    """

    voxels: torch.Tensor
    affine: np.ndarray
    thickness: float
    name: str
    is_measured: torch.Tensor
    deformation: Deformation | None = None

    @property
    def spacing(self) -> np.ndarray:
        """Distances of the voxels' centres in mm, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def normal(self) -> np.ndarray:
        """Direction across the slices, of length 1."""
        return self.affine[:3, 2] / self.spacing[2]

    @property
    def sigma(self) -> float:
        """Standard deviation of the slice profile in mm."""
        return float(self.thickness * self.spacing[2] / FWHM_PER_SIGMA)

    @property
    def centre(self) -> np.ndarray:
        """Middle of the field of view in mm, (3,)."""
        return (self.affine @ [*(np.array(self.voxels.shape) - 1) / 2, 1])[:3]

    def make_resampling(self, thin: Sequence[int], size: Sequence[int], affine: np.ndarray) -> SplineResampling:
        """The resampling of a volume of size ``thin`` over the stack's field of view to a grid of this affine."""
        own = scale_voxels(self.affine, 1 / np.divide(thin, self.voxels.shape))
        displace = None if self.deformation is None else self.deformation.convert_to_voxels(own, inverse=True)
        return SplineResampling(thin, size, np.linalg.inv(own) @ affine, displace, PARALLEL)
