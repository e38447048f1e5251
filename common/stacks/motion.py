"""How stacks of a patient lie on a volume, and how thick their slices are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from ..physics.gaussian import FWHM_PER_SIGMA
from .operator import WIDTH, compute_spline_coefficients, sample_spline

_POINTS = 40_000
_TISSUE = 0.05  # of the brightest, above which points are compared
_COARSE = (4.0, 2.0, 1.0)  # mm, blur of both volumes in each coarse stage
_FEWEST = 100  # points that a fit needs
_STEPS = 20
_SMALL = 1e-3  # mm and degrees: the fit stops after a smaller step
_LIKELY = 2.0  # mm and degrees, standard deviation of a slice's motion
_OUTLYING = 3.0  # standard deviations of the residual; above, a point counts less
_RANGE, _TO = (0.5, 2.0), 0.005  # of a thickness in distances of the slices' centres, and how exactly it is found


@dataclass(frozen=True)
class Motion:
    """How a stack lies on a volume.

    Attributes:
        numbers: translation along the axes of the world in mm, and rotation vector about the stack's centre in degrees.
        matrix: (4, 4) in mm; multiply the stack's affine by it from the left.
        correlation: between stack and volume at the compared points, before and after registration.
        overlap: share of the stack's tissue that lies in the volume.
    """

    numbers: np.ndarray
    matrix: np.ndarray
    correlation: tuple[float, float]
    overlap: float


def make_rigid_matrix(motion: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The matrix (4, 4) of a motion: a translation in mm, and a rotation vector about a centre in degrees."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(motion[3:], degrees=True).as_matrix()
    matrix[:3, 3] = centre + motion[:3] - matrix[:3, :3] @ centre
    return matrix


def estimate_motion(
    volume: np.ndarray,
    affine: np.ndarray,
    thin: tuple[np.ndarray, np.ndarray],
    stack: tuple[np.ndarray, np.ndarray],
    thickness: float = 1.0,
) -> Motion:
    """Find where a stack lies on a volume by least squares, from coarse to fine.

    The coarse stages compare the volume with the thin volume that a network made from the stack, both blurred. The last
    stage compares the stack itself with the volume, averaged over the slice profile. Points with large residuals count
    less, such as those that only one of the two shows.

    Args:
        volume: ``(X, Y, Z)``.
        affine: of the volume, whose voxels are cubes (mm).
        thin: the thin volume that a network made from the stack, and its affine.
        stack: voxels with slices along the last axis, and its affine.
        thickness: of the slices in distances of their centres.
    """
    centre = (stack[1] @ [*(np.array(stack[0].shape) - 1) / 2, 1])[:3]
    motion = np.zeros(6)
    for sigma in _COARSE:
        blurred = [gaussian_filter(v, sigma / np.linalg.norm(a[:3, :3], axis=0)) for v, a in ((volume, affine), thin)]
        motion = _MotionFit(_compute_coefficients(blurred[0]), affine, blurred[1], thin[1], 0.0, centre).fit_motion(
            motion
        )
    fit = _MotionFit(_compute_coefficients(volume), affine, *stack, thickness, centre)
    before, _ = fit.measure_likeness(np.zeros(6))
    motion = fit.fit_motion(motion)
    after, overlap = fit.measure_likeness(motion)
    return Motion(motion, make_rigid_matrix(motion, centre), (before, after), overlap)


def estimate_slice_motions(
    volume: np.ndarray, affine: np.ndarray, stack: np.ndarray, stack_affine: np.ndarray, thickness: float = 1.0
) -> np.ndarray:
    """Find the motion of each slice of a stack relative to a volume.

    Motions are penalised by a standard deviation of 2 mm and degrees, so a slice that shows little hardly moves.

    Args:
        volume, affine: as for :func:`estimate_motion`.
        stack: slices along the last axis.
        stack_affine: 4x4, of the registered stack (mm).
        thickness: of the slices in distances of their centres.

    Returns:
        (Z, 4, 4) in mm; multiply the affine by it from the left for each slice.
    """
    motions, coefficients = [], _compute_coefficients(volume)
    for i in range(stack.shape[2]):
        centre = (stack_affine @ [*(np.array(stack.shape[:2]) - 1) / 2, i, 1])[:3]
        place = stack_affine.copy()
        place[:3, 3] += i * place[:3, 2]
        fit = _MotionFit(coefficients, affine, stack[:, :, i : i + 1], place, thickness, centre)
        motions.append(make_rigid_matrix(fit.fit_motion(np.zeros(6), likely=_LIKELY), centre))
    return np.stack(motions)


def _compute_coefficients(volume: np.ndarray) -> torch.Tensor:
    return compute_spline_coefficients(torch.from_numpy(volume.astype(np.float32)))


def _draw_tissue_points(stack: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values ``(N,)`` of some voxels of a stack's tissue, drawn at random, and their centres ``(3, N)`` in mm."""
    bright = np.argwhere(stack > _TISSUE * np.percentile(stack, 99))
    chosen = bright[np.random.default_rng(0).permutation(len(bright))[:_POINTS]]
    return stack[tuple(chosen.T)].astype(np.float32), affine[:3, :3] @ chosen.T + affine[:3, 3:]


def _locate(world: np.ndarray, into: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(3, N, n)`` at points in mm, by a matrix, and for which N all n lie in a volume of this size."""
    at = np.einsum("ij,jpn->ipn", into[:3, :3], world) + into[:3, 3][:, None, None]
    return at, ((at >= 0) & (at <= np.array(size)[:, None, None] - 1)).all(axis=(0, 2))


class _MotionFit:
    """Fits the motion of a stack's points to a volume, given by its spline coefficients."""

    def __init__(
        self,
        coefficients: torch.Tensor,
        affine: np.ndarray,
        stack: np.ndarray,
        stack_affine: np.ndarray,
        thickness: float,
        centre: np.ndarray,
    ) -> None:
        spacing, voxel = np.linalg.norm(stack_affine[:3, :3], axis=0), np.linalg.norm(affine[:3, 0])
        values, points = _draw_tissue_points(stack, stack_affine)
        self.values = torch.from_numpy(values)
        sigma = thickness * spacing[2] / FWHM_PER_SIGMA
        nodes = max(1, 2 * math.ceil(WIDTH * sigma / voxel) + 1)
        along = np.linspace(-WIDTH, WIDTH, nodes) if nodes > 1 else np.zeros(1)
        weights = np.exp(-(along**2) / 2)
        self.weights = torch.from_numpy((weights / weights.sum()).astype(np.float32))
        across = stack_affine[:3, 2] / spacing[2]
        # (3, points, nodes) in mm
        self.points = (points[:, :, None] + sigma * along * across[:, None, None]).astype(np.float64)
        self.coefficients, self.into, self.centre = coefficients, np.linalg.inv(affine), centre

    def fit_motion(self, motion: np.ndarray, likely: float = np.inf) -> np.ndarray:
        """Fit motion and brightness of the stack by least squares, from a given motion.

        ``likely`` is the standard deviation of the motion in mm and degrees; larger motions are penalised.
        """
        for _ in range(_STEPS):
            sampled_values, slopes, inside = self._sample_points(motion)
            if inside.sum() < _FEWEST:
                break
            values = self.values.double().numpy()
            gain = float(values[inside] @ sampled_values[inside] / (sampled_values[inside] @ sampled_values[inside]))
            missed = values - gain * sampled_values
            scale = 1.4826 * np.median(np.abs(missed[inside])) + 1e-12
            counts = inside / (1 + (missed / (_OUTLYING * scale)) ** 2)
            slopes = np.concatenate([gain * slopes, sampled_values[:, None]], axis=1)
            weighed = slopes * counts[:, None]
            stiff = np.append(np.full(6, (scale / likely) ** 2), 0.0)
            normal, right = weighed.T @ slopes + np.diag(stiff), weighed.T @ missed - stiff * np.append(motion, 0.0)
            move = np.linalg.lstsq(normal, right, rcond=None)[0][:6]
            motion = motion + move
            if np.abs(move).max() < _SMALL:
                break
        return motion

    def measure_likeness(self, motion: np.ndarray) -> tuple[float, float]:
        """Correlation between the stack's points and the volume, and the share of points that lies in the volume."""
        sampled_values, _, inside = self._sample_points(motion)
        if inside.sum() < _FEWEST:
            return 0.0, float(inside.mean())
        return float(np.corrcoef(self.values.numpy()[inside], sampled_values[inside])[0, 1]), float(inside.mean())

    def _sample_points(self, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The volume's values at the points, their derivatives by the six numbers, and which points lie inside."""
        rotation = Rotation.from_rotvec(motion[3:], degrees=True).as_matrix()
        arms = np.einsum("ij,jpn->ipn", rotation, self.points - self.centre[:, None, None])
        world = arms + (self.centre + motion[:3])[:, None, None]
        at, inside = _locate(world, self.into, self.coefficients.shape)
        positions = torch.from_numpy(at.reshape(3, -1).astype(np.float32)).requires_grad_()
        with torch.enable_grad():
            sampled_values: Any = sample_spline(self.coefficients, positions)
            (slope,) = torch.autograd.grad(sampled_values.sum(), positions)
        sampled_values = (sampled_values.detach().reshape(at.shape[1:]) @ self.weights).double().numpy()
        # per mm along the axes of the world, times the weight of the profile
        slope = np.einsum("ji,jpn->ipn", self.into[:3, :3], slope.double().numpy().reshape(at.shape))
        slope = slope * self.weights.double().numpy()
        # A rotation by a small vector w moves an arm r by w x r, so the slope along w is r x slope. After a rotation
        # this is only approximate; the next step corrects it.
        rotation_derivatives = np.cross(arms, slope, axis=0).sum(axis=2) * math.pi / 180
        return sampled_values, np.concatenate([slope.sum(axis=2), rotation_derivatives]).T, inside


def estimate_thickness(
    volume: np.ndarray, affine: np.ndarray, stack: np.ndarray, stack_affine: np.ndarray
) -> float | None:
    """Find the slice thickness at which a volume, averaged over the slices, correlates best with a stack.

    Args:
        volume: ``(X, Y, Z)``, fine across the slices of the stack.
        affine, stack, stack_affine: as for :func:`estimate_slice_motions`.

    Returns:
        Full width at half maximum of a Gaussian, 0.5 to 2 distances of the slices' centres. None if the two have fewer
        than 100 points in common.
    """
    distance = np.linalg.norm(stack_affine[:3, 2])
    step = np.linalg.norm(affine[:3, :3], axis=0).min() / 2
    reach = math.ceil(WIDTH * _RANGE[1] * distance / FWHM_PER_SIGMA / step)
    along = step * np.arange(-reach, reach + 1)
    values, points = _draw_tissue_points(stack, stack_affine)
    world = points[:, :, None] + along * (stack_affine[:3, 2] / distance)[:, None, None]
    at, inside = _locate(world, np.linalg.inv(affine), volume.shape)
    if inside.sum() < _FEWEST:
        return None
    positions = torch.from_numpy(at[:, inside].reshape(3, -1).astype(np.float32))
    lines = sample_spline(_compute_coefficients(volume), positions).reshape(-1, len(along)).double().numpy()

    def measure_unlikeness(thickness: float) -> float:
        weights = np.exp(-((along * FWHM_PER_SIGMA / (thickness * distance)) ** 2) / 2)
        return -float(np.corrcoef(lines @ weights, values[inside])[0, 1])

    return float(minimize_scalar(measure_unlikeness, bounds=_RANGE, method="bounded", options={"xatol": _TO}).x)
