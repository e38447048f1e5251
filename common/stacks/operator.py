"""The forward model from a volume to a stack at any position, and the cubic splines by which it resamples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from ..physics.gaussian import FWHM_PER_SIGMA, make_gaussian_spectrum
from ..physics.spline import apply_along_axes, make_spline_matrix
from ..runtime.memory import move_to_device
from .deformation import Deformation

_POINTS = 300_000  # computed at a time: more take memory and save no time
_TELLING = 1.05  # below this ratio of voxel sizes, the stack's voxels count as fine as the volume's
_WHOLE = 2.3  # standard deviations of a profile that must lie in the volume on each side
_NEAR = 1e-4  # voxels; grids that differ by less are the same


@lru_cache(maxsize=16)
def _make_prefilter(size: int) -> torch.Tensor:
    """Matrix from samples to the coefficients of the cubic B-spline through them; borders repeat."""
    matrix = np.diag(np.full(size, 4.0)) + np.diag(np.ones(size - 1), 1) + np.diag(np.ones(size - 1), -1)
    matrix[0, 0] += 1
    matrix[-1, -1] += 1
    return torch.from_numpy(np.linalg.inv(matrix / 6))


def compute_spline_coefficients(volume: torch.Tensor, transposed: bool = False) -> torch.Tensor:
    """The coefficients of the cubic B-spline through the voxels of ``(X, Y, Z)``, or the transpose of this."""
    return apply_along_axes(volume, [_make_prefilter(size) for size in volume.shape], transposed)


def sample_spline(coefficients: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Sample a cubic B-spline at positions, as the sum of eight linear interpolations between weighted coefficients.

    Args:
        coefficients: ``(X, Y, Z)``, from :func:`compute_spline_coefficients`.
        positions: ``(3, N)`` in voxels; beyond the volume its border repeats.

    Returns:
        Values ``(N,)``; gradients flow to coefficients and positions.

    Source:
        Sigg and Hadwiger, Fast third-order texture filtering, GPU Gems 2, 2005, chapter 20.
    """
    weights, places = zip(
        *(_split_cubic(along, size) for along, size in zip(positions, coefficients.shape, strict=True)), strict=True
    )
    values = torch.zeros((), device=coefficients.device)
    for which in itertools.product((0, 1), repeat=3):
        (x, y, z), (a, b, c) = ([of[axis][i] for axis, i in enumerate(which)] for of in (places, weights))
        grid = torch.stack([z, y, x], dim=-1)[None, None, None]
        linear = F.grid_sample(coefficients[None, None], grid, padding_mode="border", align_corners=True)
        values = values + a * b * c * linear[0, 0, 0, 0]
    return values


def _weigh_cubic(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Weights of the four coefficients around a position, which lies at t, 0 to 1, between the inner two."""
    return (1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6


def _split_cubic(position: torch.Tensor, size: int) -> tuple[tuple, tuple]:
    """Weights and places (-1 to 1) of the two linear interpolations that make a cubic one along an axis."""
    before = position.floor()
    w = _weigh_cubic(position - before)
    low, high = w[0] + w[1], w[2] + w[3]
    places = before - 1 + w[1] / low, before + 1 + w[3] / high
    return (low, high), tuple(2 * place / max(size - 1, 1) - 1 for place in places)


def _list_taps(position: torch.Tensor, size: int) -> tuple[tuple[torch.Tensor, ...], list[torch.Tensor]]:
    """Weights and indices of the four coefficients around positions along an axis; its border repeats."""
    before = position.floor()
    return _weigh_cubic(position - before), [(before.long() + i).clamp(0, size - 1) for i in range(-1, 3)]


class SplineResampling:
    """Resamples a volume to another grid by cubic splines; 0 outside of the volume.

    Args:
        size: of the volume ``(X, Y, Z)``.
        new_size: of the other grid.
        places: matrix (4, 4) from voxels of the other grid to voxels of the volume; or (K, 4, 4), one for each of K
            blocks of planes along the last axis.
        displace: function that displaces positions ``(3, N)`` in voxels of the volume; None for no such displacement.
    """

    def __init__(
        self,
        size: Sequence[int],
        new_size: Sequence[int],
        places: np.ndarray,
        displace: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.size, self.new_size = tuple(size), tuple(new_size)
        self.places = np.asarray(places, dtype=np.float64)
        rounded = self.places.round()
        same = np.abs(self.places - rounded).max() < _NEAR and self.size == self.new_size
        self.displace = displace
        self.identical = bool(same and (rounded == np.eye(4)).all() and displace is None)
        turned = self.identical or self.places.ndim > 2 or displace is not None
        self.matrices = None if turned else self._make_matrices()
        self.places = self.places.reshape(-1, 4, 4)

    def _make_matrices(self) -> list[torch.Tensor] | None:
        """The resampling as a matrix for each axis, which is far faster; None if the axes are not parallel."""
        turned = self.places[:3, :3] - np.diag(np.diag(self.places))[:3, :3]
        if (np.abs(turned) @ self.new_size).max() > _NEAR:
            return None
        matrices = []
        for axis, (size, new_size) in enumerate(zip(self.size, self.new_size, strict=True)):
            at = self.places[axis, axis] * np.arange(new_size) + self.places[axis, 3]
            inside = (at > -0.5 - _NEAR) & (at < size - 0.5 + _NEAR)
            matrices.append(torch.from_numpy(make_spline_matrix(size, at) * inside[:, None]))
        return matrices

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the volume on the other grid."""
        if self.identical:
            return volume
        if self.matrices is not None:
            return apply_along_axes(volume, self.matrices)
        return self.sample_coefficients(compute_spline_coefficients(volume))

    def sample_coefficients(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Returns the spline of these coefficients on the other grid."""
        parts = [sample_spline(coefficients, at) * inside for _, at, inside in self._list_parts(coefficients.device)]
        return torch.cat(parts).reshape(self.new_size)

    def adjoint(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the transpose, applied to a volume on the other grid."""
        if self.identical:
            return volume
        if self.matrices is not None:
            return apply_along_axes(volume, self.matrices, transposed=True)
        return compute_spline_coefficients(self.spread_values(volume), transposed=True)

    def spread_values(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the transpose of :meth:`sample_coefficients`, applied to a volume on the other grid."""
        values = volume.reshape(-1)
        spread = torch.zeros(math.prod(self.size), device=volume.device)
        for part, at, inside in self._list_parts(volume.device):
            weights, index = zip(*(_list_taps(a, n) for a, n in zip(at, self.size, strict=True)), strict=True)
            inside = inside * values[part]
            for i, j in itertools.product(range(4), repeat=2):
                weighed = inside * weights[0][i] * weights[1][j]
                row = (index[0][i] * self.size[1] + index[1][j]) * self.size[2]
                for k in range(4):
                    spread.scatter_add_(0, row + index[2][k], weighed * weights[2][k])
        return spread.reshape(self.size)

    def find_inside(self, device: torch.device | str = "cpu", margin: float | Sequence[float] = 0.5) -> torch.Tensor:
        """Returns which voxels of the other grid lie at most ``margin`` voxels beyond the volume's outer centres.

        ``margin`` may have a number for each axis of the volume. Negative numbers are within.
        """
        return torch.cat([inside for *_, inside in self._list_parts(device, margin)]).reshape(self.new_size) > 0

    def find_positions(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Returns where in the volume the voxels of the other grid lie, ``(3, N)`` in voxels of the volume."""
        return torch.cat([at for _, at, _ in self._list_parts(device)], dim=1)

    def _list_parts(
        self, device: torch.device | str, margin: float | Sequence[float] = 0.5
    ) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield parts of the other grid: indices, positions in the volume, and 1 inside of it, else 0."""
        x, y, z = (torch.arange(n, device=device, dtype=torch.float64) for n in self.new_size)
        planes = np.arange(len(z)) * len(self.places) // len(z)
        positions_of_part = move_to_device(torch.from_numpy(self.places[planes, :3]), device).permute(1, 2, 0)
        in_plane = (
            positions_of_part[:, 1, None, :] * y[:, None]
            + (positions_of_part[:, 2] * z + positions_of_part[:, 3])[:, None, :]
        )
        margins = torch.as_tensor(margin, dtype=torch.float32).expand(3)[:, None] + _NEAR
        first = move_to_device(-margins, device)
        last = move_to_device(torch.tensor(self.size)[:, None] - 1 + margins, device)
        each = len(y) * len(z)
        rows = max(1, _POINTS // each)
        for begin in range(0, len(x), rows):
            at = positions_of_part[:, 0, None, None, :] * x[begin : begin + rows, None, None] + in_plane[:, None]
            at = at.reshape(3, -1).float()
            if self.displace is not None:
                at = self.displace(at)
            inside = ((at > first) & (at < last)).all(dim=0)
            yield slice(begin * each, begin * each + at.shape[1]), at, inside.float()


def make_cubic_grid(size: Sequence[int], affine: np.ndarray, voxel: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Size and affine (mm) of the grid of cubic voxels over a volume's field of view, from the same first corner.

    Args:
        size, affine: of the volume ``(X, Y, Z)``, in mm.
        voxel: edge of a cube in mm.
    """
    ratios = voxel / np.linalg.norm(affine[:3, :3], axis=0)
    matrix = np.diag([*ratios, 1.0])
    matrix[:3, 3] = (ratios - 1) / 2
    return tuple(max(1, round(n / ratio)) for n, ratio in zip(size, ratios, strict=True)), affine @ matrix


class StackOperator:
    r"""Simulates a stack from a volume: averages it over the stack's voxels, and samples it where these lie.

    .. math:: A = M\, S\, G

    G averages the volume with a Gaussian as wide as the slices, and in plane as wide as pixels that are larger than the
    volume's voxels. It is a product in k-space, as is the filter of the cubic splines by which S samples. M is 0 in
    voxels of the stack that reach beyond the volume. Slices may be thinner than their distance, or move separately.

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
        reach = _WHOLE * np.sqrt(np.diag(self.covariance))
        self.weights = self.sampling.find_inside(device, margin=tuple(-reach)).float()

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the stack that is simulated from a volume ``(X, Y, Z)``."""
        return self.weights * self.simulate(volume)

    def simulate(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the same without M."""
        return self.sampling.sample_coefficients(self._filter(volume, splines=True))

    def average(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the average of the volume, G, at its own voxels."""
        return self._filter(volume, splines=False)

    def adjoint(self, stack: torch.Tensor) -> torch.Tensor:
        """Returns the transpose of the operator, applied to a stack."""
        return self._filter(self.sampling.spread_values(self.weights * stack), splines=True)

    def _filter(self, volume: torch.Tensor, splines: bool) -> torch.Tensor:
        """Average, and make spline coefficients; this is its own transpose. The volume is periodic."""
        spectrum = torch.fft.rfftn(volume)
        spectrum *= make_gaussian_spectrum(self.size, self.covariance, volume.device)
        for axis, size in enumerate(self.size) if splines else ():
            f = (torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq)(size, device=volume.device)
            spectrum /= ((2 + torch.cos(2 * math.pi * f)) / 3).reshape([-1 if i == axis else 1 for i in range(3)])
        return torch.fft.irfftn(spectrum, s=self.size)
