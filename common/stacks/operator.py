"""The forward model from a volume to a stack of thick slices at any position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..degradations import GaussianProfile
from ..physics.gaussian import FWHM_PER_SIGMA
from ..physics.spline import apply_along
from .resampling import Resampling

_TELLING = 1.05  # below this ratio of voxel sizes, the stack's voxels count as fine as the volume's
_WHOLE = 0.99  # share of a slice's profile that must lie in the volume
WIDTH = 2.5  # standard deviations of a slice's profile on each side, which hold 98.8 % of it


class StackOperator:
    """Simulates a stack from a volume: resamples to the stack's position and averages over its voxels.

    Cubic splines resample the volume to the stack's grid, at the volume's voxel size. There it is averaged with a
    Gaussian as wide as the slices, and in plane as wide as the pixels. If slices have moved separately, each slice has
    its own planes. Voxels of the stack that reach beyond the volume are 0.

    Args:
        size, affine: of the volume ``(X, Y, Z)``, whose voxels are cubes, in mm.
        stack_size, stack_affine: of the stack, slices along its last axis, in mm, with the patient's motion.
        thickness: of the slices in distances of their centres; less than 1 is a gap.
        slice_motions: (Z, 4, 4), additional motion of each slice (mm); None for no such motion.
        device: of the volume.

    Attributes:
        seen: ``(X, Y, Z)``, 1 in voxels of the stack that lie in the volume over the whole slice profile, else 0.
        across: the direction across the slices in the volume's voxels, of length 1.
        sigma: standard deviation of the slice profile, in the volume's voxels.
    """

    def __init__(
        self,
        size: Sequence[int],
        affine: np.ndarray,
        stack_size: Sequence[int],
        stack_affine: np.ndarray,
        thickness: float = 1.0,
        slice_motions: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        voxel = np.linalg.norm(affine[:3, 0])
        factors = [n if n > _TELLING else 1.0 for n in np.linalg.norm(stack_affine[:3, :3], axis=0) / voxel]
        sigma = thickness * factors[2] / FWHM_PER_SIGMA if factors[2] > 1 else 0.0
        self.in_plane = GaussianProfile((*factors[:2], 1))
        self.slices: GaussianProfile | _OwnPlanes
        if slice_motions is None:
            self.slices = GaussianProfile((1, 1, factors[2]), thickness)
            place = self.slices.hr_affine(stack_affine)
        else:
            self.slices = _OwnPlanes(stack_size[2], sigma)
            place = slice_motions @ stack_affine @ self.slices.places(factors[2])
        fine = self.in_plane.hr_size(self.slices.hr_size(stack_size))
        to_fine = self.in_plane.hr_affine(np.eye(4))
        self.resampling = Resampling(size, fine, np.linalg.inv(affine) @ place @ to_fine)
        across = np.linalg.solve(affine[:3, :3], stack_affine[:3, 2])
        self.across = across / np.linalg.norm(across)
        self.sigma = sigma
        inside = self.resampling.inside(device, margin=0.0).float()  # beyond its centres a volume is extrapolated
        self.seen = (self.slices(self.in_plane(inside)) > _WHOLE).float()

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the stack that is simulated from a volume ``(X, Y, Z)``."""
        return self.seen * self.slices(self.in_plane(self.resampling(volume)))

    def adjoint(self, stack: torch.Tensor) -> torch.Tensor:
        """Returns the transpose of the operator, applied to a stack."""
        return self.resampling.adjoint(self.in_plane.adjoint(self.slices.adjoint(self.seen * stack)))


class _OwnPlanes:
    """Averages the planes of each of ``count`` slices with a Gaussian, ``sigma`` in planes; slices share no planes."""

    def __init__(self, count: int, sigma: float) -> None:
        reach = math.ceil(WIDTH * sigma)
        self.count, self.each = count, 2 * reach + 1
        self.along = np.arange(-reach, reach + 1)
        weights = np.exp(-((self.along / max(sigma, 1e-6)) ** 2) / 2)
        self.matrix = torch.from_numpy(np.kron(np.eye(count), weights / weights.sum()))

    def places(self, factor: float) -> np.ndarray:
        """Matrices (Z, 4, 4) from each slice's planes to the stack's voxels; ``factor`` planes make one slice."""
        found = np.broadcast_to(np.diag([1.0, 1.0, 1 / factor, 1.0]), (self.count, 4, 4)).copy()
        middles = np.arange(self.count) * self.each + (self.each - 1) / 2
        found[:, 2, 3] = np.arange(self.count) - middles / factor
        return found

    def hr_size(self, size: Sequence[int]) -> tuple[int, ...]:
        return (*size[:2], self.count * self.each)

    def __call__(self, planes: torch.Tensor) -> torch.Tensor:
        return apply_along(planes, [None, None, self.matrix])

    def adjoint(self, slices: torch.Tensor) -> torch.Tensor:
        return apply_along(slices, [None, None, self.matrix], transposed=True)
