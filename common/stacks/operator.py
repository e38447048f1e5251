"""The forward model from a volume to a stack at any position, and the cubic splines by which it resamples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from ..degradations import GaussianProfile
from ..physics.gaussian import FWHM_PER_SIGMA
from ..physics.spline import apply_along_axes, make_spline_matrix
from ..runtime.memory import move_to_device

_POINTS = 300_000  # computed at a time: more take memory and save no time
_TELLING = 1.05  # below this ratio of voxel sizes, the stack's voxels count as fine as the volume's
_WHOLE = 0.99  # share of a slice's profile that must lie in the volume
WIDTH = 2.5  # standard deviations of a slice's profile on each side, which hold 98.8 % of it
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


def _split_cubic(position: torch.Tensor, size: int) -> tuple[tuple, tuple]:
    """Weights and places (-1 to 1) of the two linear interpolations that make a cubic one along an axis."""
    before = position.floor()
    t = position - before
    w = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    low, high = w[0] + w[1], w[2] + w[3]
    places = before - 1 + w[1] / low, before + 1 + w[3] / high
    return (low, high), tuple(2 * place / max(size - 1, 1) - 1 for place in places)


class SplineResampling:
    """Resamples a volume to another grid by cubic splines; 0 outside of the volume.

    Args:
        size: of the volume ``(X, Y, Z)``.
        new_size: of the other grid.
        places: matrix (4, 4) from voxels of the other grid to voxels of the volume; or (K, 4, 4), one for each of K
            blocks of planes along the last axis.
    """

    def __init__(self, size: Sequence[int], new_size: Sequence[int], places: np.ndarray) -> None:
        self.size, self.new_size = tuple(size), tuple(new_size)
        self.places = np.asarray(places, dtype=np.float64)
        rounded = self.places.round()
        same = np.abs(self.places - rounded).max() < _NEAR and self.size == self.new_size
        self.identical = bool(same and (rounded == np.eye(4)).all())
        self.matrices = None if self.identical or self.places.ndim > 2 else self._make_matrices()
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
        coefficients = compute_spline_coefficients(volume)
        parts = [sample_spline(coefficients, at) * inside for _, at, inside in self._list_parts(volume.device)]
        return torch.cat(parts).reshape(self.new_size)

    def adjoint(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the transpose, applied to a volume on the other grid."""
        if self.identical:
            return volume
        if self.matrices is not None:
            return apply_along_axes(volume, self.matrices, transposed=True)
        values = volume.reshape(-1)
        with torch.enable_grad():
            coefficients = torch.zeros(self.size, device=volume.device, requires_grad=True)
            for part, at, inside in self._list_parts(volume.device):
                sample_spline(coefficients, at).backward(values[part] * inside)
        return compute_spline_coefficients(coefficients.grad, transposed=True)  # type: ignore[arg-type]

    def find_inside(self, device: torch.device | str = "cpu", margin: float = 0.5) -> torch.Tensor:
        """Returns which voxels of the other grid lie at most ``margin`` voxels beyond the volume's outer centres."""
        return torch.cat([inside for *_, inside in self._list_parts(device, margin)]).reshape(self.new_size) > 0

    def _list_parts(
        self, device: torch.device | str, margin: float = 0.5
    ) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield parts of the other grid: indices, positions in the volume, and 1 inside of it, else 0."""
        x, y, z = (torch.arange(n, device=device, dtype=torch.float64) for n in self.new_size)
        planes = np.arange(len(z)) * len(self.places) // len(z)
        positions_of_part = move_to_device(torch.from_numpy(self.places[planes, :3]), device).permute(1, 2, 0)
        in_plane = (
            positions_of_part[:, 1, None, :] * y[:, None]
            + (positions_of_part[:, 2] * z + positions_of_part[:, 3])[:, None, :]
        )
        last = move_to_device(torch.tensor(self.size), device)[:, None] - 1 + margin + _NEAR
        each = len(y) * len(z)
        rows = max(1, _POINTS // each)
        for begin in range(0, len(x), rows):
            at = positions_of_part[:, 0, None, None, :] * x[begin : begin + rows, None, None] + in_plane[:, None]
            at = at.reshape(3, -1).float()
            inside = ((at > -margin - _NEAR) & (at < last)).all(dim=0)
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
        self.slices: GaussianProfile | _SlicePlanes
        if slice_motions is None:
            self.slices = GaussianProfile((1, 1, factors[2]), thickness)
            place = self.slices.compute_hr_affine(stack_affine)
        else:
            self.slices = _SlicePlanes(stack_size[2], sigma)
            place = slice_motions @ stack_affine @ self.slices.compute_places(factors[2])
        fine = self.in_plane.compute_hr_size(self.slices.compute_hr_size(stack_size))
        to_fine = self.in_plane.compute_hr_affine(np.eye(4))
        self.resampling = SplineResampling(size, fine, np.linalg.inv(affine) @ place @ to_fine)
        across = np.linalg.solve(affine[:3, :3], stack_affine[:3, 2])
        self.across = across / np.linalg.norm(across)
        self.sigma = sigma
        inside = self.resampling.find_inside(device, margin=0.0).float()  # beyond its centres a volume is extrapolated
        self.is_inside = (self.slices(self.in_plane(inside)) > _WHOLE).float()

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """Returns the stack that is simulated from a volume ``(X, Y, Z)``."""
        return self.is_inside * self.slices(self.in_plane(self.resampling(volume)))

    def adjoint(self, stack: torch.Tensor) -> torch.Tensor:
        """Returns the transpose of the operator, applied to a stack."""
        return self.resampling.adjoint(self.in_plane.adjoint(self.slices.adjoint(self.is_inside * stack)))


class _SlicePlanes:
    """Averages the planes of each of ``count`` slices with a Gaussian, ``sigma`` in planes; slices share no planes."""

    def __init__(self, count: int, sigma: float) -> None:
        reach = math.ceil(WIDTH * sigma)
        self.count, self.each = count, 2 * reach + 1
        self.along = np.arange(-reach, reach + 1)
        weights = np.exp(-((self.along / max(sigma, 1e-6)) ** 2) / 2)
        self.matrix = torch.from_numpy(np.kron(np.eye(count), weights / weights.sum()))

    def compute_places(self, factor: float) -> np.ndarray:
        """Matrices (Z, 4, 4) from each slice's planes to the stack's voxels; ``factor`` planes make one slice."""
        matrices = np.broadcast_to(np.diag([1.0, 1.0, 1 / factor, 1.0]), (self.count, 4, 4)).copy()
        middles = np.arange(self.count) * self.each + (self.each - 1) / 2
        matrices[:, 2, 3] = np.arange(self.count) - middles / factor
        return matrices

    def compute_hr_size(self, size: Sequence[int]) -> tuple[int, ...]:
        return (*size[:2], self.count * self.each)

    def __call__(self, planes: torch.Tensor) -> torch.Tensor:
        return apply_along_axes(planes, [None, None, self.matrix])

    def adjoint(self, slices: torch.Tensor) -> torch.Tensor:
        return apply_along_axes(slices, [None, None, self.matrix], transposed=True)
