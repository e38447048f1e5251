"""Bring volumes to other grids: by cubic splines, and linearly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from ..runtime.memory import move_to_device
from .spline import apply_along_axes, make_spline_matrix

_POINTS = 300_000  # computed at a time: more take memory and save no time
GRID_TOLERANCE = 1e-4  # voxels; grids that differ by less are the same
PARALLEL = 0.05  # voxels by which a stack may be oblique from end to end, and count as parallel


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


def make_tap_matrix(size: int, positions: np.ndarray) -> torch.Tensor:
    """The cubic B-spline of ``size`` coefficients at positions ``(M,)``, as a matrix (M, size); 0 outside."""
    at = torch.from_numpy(positions)
    inside = (at > -0.5 - GRID_TOLERANCE) & (at < size - 0.5 + GRID_TOLERANCE)
    matrix = torch.zeros(len(at), size, dtype=torch.float64)
    for weight, index in zip(*_list_taps(at, size), strict=True):
        matrix.scatter_add_(1, index[:, None], (weight * inside)[:, None])
    return matrix


class SplineResampling:
    """Resamples a volume to another grid by cubic splines; 0 outside of the volume.

    Args:
        size: of the volume ``(X, Y, Z)``.
        new_size: of the other grid.
        places: matrix (4, 4) from voxels of the other grid to voxels of the volume; or (K, 4, 4), one for each of K
            blocks of planes along the last axis.
        displace: function that displaces positions ``(3, N)`` in voxels of the volume; None for no such displacement.
        oblique: voxels of the volume by which the other grid may be oblique from end to end, and count as parallel.
    """

    def __init__(
        self,
        size: Sequence[int],
        new_size: Sequence[int],
        places: np.ndarray,
        displace: Callable[[torch.Tensor], torch.Tensor] | None = None,
        oblique: float = GRID_TOLERANCE,
    ) -> None:
        self.size, self.new_size = tuple(size), tuple(new_size)
        self.places = np.asarray(places, dtype=np.float64)
        rounded = self.places.round()
        same = np.abs(self.places - rounded).max() < GRID_TOLERANCE and self.size == self.new_size
        self.displace = displace
        self.identical = bool(same and (rounded == np.eye(4)).all() and displace is None)
        turned = self.identical or self.places.ndim > 2 or displace is not None
        self.matrices = None if turned else self._make_matrices(oblique)
        self.places = self.places.reshape(-1, 4, 4)

    def _make_matrices(self, oblique: float) -> list[torch.Tensor] | None:
        """The resampling as a matrix for each axis, which is far faster; None if the axes are not parallel."""
        turned = self.places[:3, :3] - np.diag(np.diag(self.places))[:3, :3]
        found, first = (np.abs(turned) @ self.new_size).max(), self.places[:3, 3]
        if found > oblique:
            return None
        if found > GRID_TOLERANCE:  # exact in the middle
            first = first + turned @ (np.array(self.new_size) - 1) / 2
        matrices = []
        for axis, (size, new_size) in enumerate(zip(self.size, self.new_size, strict=True)):
            at = self.places[axis, axis] * np.arange(new_size) + first[axis]
            inside = (at > -0.5 - GRID_TOLERANCE) & (at < size - 0.5 + GRID_TOLERANCE)
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
        margins = torch.as_tensor(margin, dtype=torch.float32).expand(3)[:, None] + GRID_TOLERANCE
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


def resample_volume(
    volume: torch.Tensor, affine: np.ndarray, size: Sequence[int], target_affine: np.ndarray
) -> torch.Tensor:
    """A volume on another grid, by cubic splines; 0 outside of the volume.

    Args:
        volume, affine: ``(X, Y, Z)``, and its affine in mm.
        size, target_affine: of the other grid.
    """
    return SplineResampling(volume.shape, size, np.linalg.inv(affine) @ target_affine)(volume)


def make_cubic_grid(size: Sequence[int], affine: np.ndarray, voxel: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Size and affine (mm) of the grid of cubic voxels over a volume's field of view, from the same first corner.

    Args:
        size, affine: of the volume ``(X, Y, Z)``, in mm.
        voxel: edge of a cube in mm.
    """
    ratios = voxel / np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(max(1, round(n / ratio)) for n, ratio in zip(size, ratios, strict=True)), scale_voxels(affine, ratios)


def scale_voxels(affine: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """The affine of voxels that are ``ratios`` (3,) times as large, from the same first corner."""
    matrix = np.diag([*ratios, 1.0])
    matrix[:3, 3] = (ratios - 1) / 2
    return affine @ matrix


def sample_linear(channels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Interpolate channels ``(C, X, Y, Z)`` linearly at positions ``(3, N)`` in voxels: ``(C, N)``. Borders repeat."""
    last = move_to_device(torch.tensor(channels.shape[1:]) - 1, positions.device).clamp_min(1)
    grid = (2 * positions / last[:, None] - 1).T.flip(1)[None, None, None].float()
    return F.grid_sample(channels[None], grid, padding_mode="border", align_corners=True)[0, :, 0, 0]
