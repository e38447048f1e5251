"""The forward model from a volume to a stack at any position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..geometry.deformation import Deformation
from ..geometry.gaussian import FWHM_PER_SIGMA, make_gaussian_spectrum
from ..geometry.resampling import PARALLEL, SplineResampling, make_tap_matrix
from ..runtime.memory import move_to_device

_TELLING = 1.05  # below this ratio of voxel sizes, the stack's voxels count as fine as the volume's
_COVERED = 0.98  # least share of a voxel's profile in which a volume has data
_WHOLE = 2.3  # standard deviations of a profile that must lie in the volume on each side
_NOTHING = 1e-12  # of a matrix: far below float32, and processors are slow with numbers near the smallest


class StackOperator:
    r"""Simulates a stack from a volume: averages it over the stack's voxels, and samples it where these lie.

    .. math:: A = M\, S\, G

    G averages the volume with a Gaussian as wide as the slices, and in plane as wide as pixels that are larger than the
    volume's voxels. It is a product in k-space, as is the filter of the cubic splines by which S samples. M is 0 in
    voxels of the stack that reach beyond the volume. Slices may be thinner than their distance, or move separately.

    If the stack's axes are parallel to the volume's in any order and direction, S G is a matrix for each axis. This is
    the same, and twenty times as fast.

    Args:
        size, affine: of the volume ``(X, Y, Z)``, whose voxels are cubes, in mm.
        stack_size, stack_affine: of the stack, slices along its last axis, in mm, with the patient's motion.
        thickness: of the slices in distances of their centres; less than 1 is a gap.
        slice_motions: (Z, 4, 4), additional motion of each slice (mm); None for no such motion. The average is the same
            for all slices.
        deformation: of the stack, after these motions.
        device: of the volume.

    Attributes:
        weights: M, ``(X, Y, Z)``, 1 in voxels of the stack that lie in the volume over the whole slice profile, else 0.
            May be lowered for voxels that count less.
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
        deformation: Deformation | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        linear = np.linalg.solve(affine[:3, :3], stack_affine[:3, :3])  # columns: one voxel of the stack
        lengths = np.linalg.norm(linear, axis=0)
        widths = np.where(lengths > _TELLING, lengths, 0.0) * [1, 1, thickness]
        self.across = linear[:, 2] / lengths[2]
        self.sigma = float(widths[2]) / FWHM_PER_SIGMA
        along = linear / lengths * widths / FWHM_PER_SIGMA
        self.covariance, self.size = along @ along.T, tuple(size)
        places = np.linalg.inv(affine) @ (stack_affine if slice_motions is None else slice_motions @ stack_affine)
        displace = None if deformation is None else deformation.convert_to_voxels(affine)
        self.sampling = SplineResampling(size, stack_size, places, displace)
        # Beyond its outer centres a volume is extrapolated.
        half_width = _WHOLE * np.sqrt(np.diag(self.covariance))
        self.weights = self.sampling.find_inside(device, margin=tuple(-half_width)).float()
        self._axes: tuple[int, ...] = ()  # of the volume, for each of the stack
        self._matrices: list[torch.Tensor] = []
        if slice_motions is None and deformation is None:
            self._separate(places, tuple(stack_size))

    def _separate(self, places: np.ndarray, stack_size: Sequence[int]) -> None:
        """Make a matrix for each axis of the stack, unless it is oblique to the volume."""
        axes = np.abs(places[:3, :3]).argmax(axis=0)
        along = places[axes, range(3)]
        oblique = places[:3, :3].copy()
        oblique[axes, range(3)] = 0
        if len({*axes}) < 3 or (np.abs(oblique) @ stack_size).max() > PARALLEL:
            return
        middle = oblique @ (np.array(stack_size) - 1) / 2 + places[:3, 3]
        for axis, step, count in zip(axes.tolist(), along, stack_size, strict=True):
            size = self.size[axis]
            taps = make_tap_matrix(size, step * np.arange(count) + middle[axis])
            f = torch.fft.rfftfreq(size, dtype=torch.float64)
            spectrum = torch.exp(
                -2 * math.pi**2 * float(self.covariance[axis, axis]) * f**2
            ) / _compute_spline_spectrum(f)
            matrix = torch.fft.irfft(torch.fft.rfft(taps) * spectrum, n=size)
            matrix[matrix.abs() < _NOTHING] = 0
            self._matrices.append(move_to_device(matrix.float(), self.weights.device))
        self._axes = tuple(axes.tolist())

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the stack that is simulated from a volume ``(X, Y, Z)``."""
        return self.weights * self.simulate(volume)

    def simulate(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the same without M."""
        if self._axes:
            return self._apply_matrices(volume).permute(self._axes).contiguous()
        return self.sampling.sample_coefficients(self._filter(volume, splines=True))

    def find_covered(self, there: torch.Tensor) -> torch.Tensor:
        """Returns the voxels of the stack whose slice profile lies in a mask ``(X, Y, Z)``, but for 2 %."""
        return self.simulate(there.float()) > _COVERED

    def average(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the average of the volume, G, at its own voxels."""
        return self._filter(volume, splines=False)

    def adjoint(self, stack: torch.Tensor) -> torch.Tensor:
        """Returns the transpose of the operator, applied to a stack."""
        stack = self.weights * stack
        if self._axes:
            order = [self._axes.index(axis) for axis in range(3)]
            return self._apply_matrices(stack.permute(order).contiguous(), transposed=True)
        return self._filter(self.sampling.spread_values(stack), splines=True)

    def _apply_matrices(self, volume: torch.Tensor, transposed: bool = False) -> torch.Tensor:
        """Multiply the axes of ``(X, Y, Z)`` by their matrices, or by the transposes."""
        held = [matrix.T if transposed else matrix for matrix in self._matrices]
        pairs = sorted(zip(self._axes, held, strict=True), key=lambda pair: pair[1].shape[0] / pair[1].shape[1])
        # Under autocast the products would lose 16 of 24 bits.
        with torch.autocast(volume.device.type, enabled=False):
            for axis, matrix in pairs:  # that which leaves the fewest voxels first
                if axis == 0:
                    volume = (matrix @ volume.flatten(1)).unflatten(1, volume.shape[1:])
                else:
                    volume = matrix @ volume if axis == 1 else volume @ matrix.T
        return volume

    def _filter(self, volume: torch.Tensor, splines: bool) -> torch.Tensor:
        """Average, and make spline coefficients; this is its own transpose. The volume is periodic."""
        spectrum = torch.fft.rfftn(volume)
        spectrum *= make_gaussian_spectrum(self.size, self.covariance, volume.device)
        for axis, size in enumerate(self.size) if splines else ():
            f = (torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq)(size, device=volume.device)
            spectrum /= _compute_spline_spectrum(f).reshape([-1 if i == axis else 1 for i in range(3)])
        return torch.fft.irfftn(spectrum, s=self.size)


def _compute_spline_spectrum(f: torch.Tensor) -> torch.Tensor:
    """The spectrum of the cubic B-spline at the samples, for frequencies per sample."""
    return (2 + torch.cos(2 * math.pi * f)) / 3
