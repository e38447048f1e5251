"""How thick the slices of a stack are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ..degradations.fitted_profile import BELIEVED_WIDTHS
from ..geometry.gaussian import FWHM_PER_SIGMA
from ..geometry.resampling import compute_spline_coefficients, sample_spline
from .slices import TISSUE

_POINTS = 40_000
_FEWEST = 100  # points that a fit needs
_ODD = 9.0  # times the median difference, above which points do not count
_WIDTH = 2.5  # standard deviations of a slice's profile on each side, which hold 98.8 % of it
_TO = 0.005  # distances of the slices' centres, how exactly a thickness is found


def estimate_thickness(
    volume: np.ndarray, affine: np.ndarray, stack: np.ndarray, stack_affine: np.ndarray
) -> float | None:
    """Find the slice thickness at which a volume, averaged over the slices, correlates best with a stack.

    Args:
        volume: ``(X, Y, Z)``, fine across the slices of the stack.
        affine: of the volume, in mm.
        stack: slices along the last axis.
        stack_affine: of the registered stack, in mm.

    Returns:
        Full width at half maximum of a Gaussian, 0.5 to 2 distances of the slices' centres. None if the two have fewer
        than 100 points in common.
    """
    distance = np.linalg.norm(stack_affine[:3, 2])
    step = np.linalg.norm(affine[:3, :3], axis=0).min() / 2
    half_width = math.ceil(_WIDTH * BELIEVED_WIDTHS[1] * distance / FWHM_PER_SIGMA / step)
    along = step * np.arange(-half_width, half_width + 1)
    values, points = _sample_tissue_points(stack, stack_affine)
    world = points[:, :, None] + along * (stack_affine[:3, 2] / distance)[:, None, None]
    at, inside = _locate(world, np.linalg.inv(affine), volume.shape)
    if inside.sum() < _FEWEST:
        return None
    positions = torch.from_numpy(at[:, inside].reshape(3, -1).astype(np.float32))
    lines = (
        sample_spline(compute_spline_coefficients(torch.from_numpy(volume.astype(np.float32))), positions)
        .reshape(-1, len(along))
        .double()
        .numpy()
    )

    values = values[inside]

    def average(thickness: float) -> np.ndarray:
        weights = np.exp(-((along * FWHM_PER_SIGMA / (thickness * distance)) ** 2) / 2)
        return lines @ (weights / weights.sum())

    # What only one of the two shows, such as a black slice, does not say how thick slices are.
    missed = np.abs(values - np.polyval(np.polyfit(average(1.0), values, 1), average(1.0)))
    agreed = missed <= _ODD * np.median(missed)

    def measure_unlikeness(thickness: float) -> float:
        return -float(np.corrcoef(average(thickness)[agreed], values[agreed])[0, 1])

    return float(
        minimize_scalar(measure_unlikeness, bounds=BELIEVED_WIDTHS, method="bounded", options={"xatol": _TO}).x
    )


def _sample_tissue_points(stack: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values ``(N,)`` of some voxels of a stack's tissue, drawn at random, and their centres ``(3, N)`` in mm."""
    bright = np.argwhere(stack > TISSUE * np.percentile(stack, 99))
    chosen = bright[np.random.default_rng(0).permutation(len(bright))[:_POINTS]]
    return stack[tuple(chosen.T)].astype(np.float32), affine[:3, :3] @ chosen.T + affine[:3, 3:]


def _locate(world: np.ndarray, into: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(3, N, n)`` at points in mm, by a matrix, and for which N all n lie in a volume of this size."""
    at = np.einsum("ij,jpn->ipn", into[:3, :3], world) + into[:3, 3][:, None, None]
    return at, ((at >= 0) & (at <= np.array(size)[:, None, None] - 1)).all(axis=(0, 2))
