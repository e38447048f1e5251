"""The slice thickness of a stack, measured by another stack that is fine across its slices."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ..physics.gaussian import FWHM_PER_SIGMA
from .operator import WIDTH
from .points import tissue_points
from .resampling import sampled, spline_coefficients

_RANGE = (0.5, 2.0)  # distances of the slices' centres
_TO = 0.005
_FEWEST = 100  # points that the search needs


def found_thickness(
    volume: np.ndarray, affine: np.ndarray, stack: np.ndarray, stack_affine: np.ndarray
) -> float | None:
    """Find the slice thickness at which a volume, averaged over the slices, correlates best with a stack.

    Args:
        volume: ``(X, Y, Z)``, fine across the slices of the stack.
        affine: of the volume (mm).
        stack: slices along the last axis.
        stack_affine: of the registered stack (mm).

    Returns:
        Full width at half maximum of a Gaussian, 0.5 to 2 distances of the slices' centres. None if the two have fewer
        than 100 points in common.
    """
    distance = np.linalg.norm(stack_affine[:3, 2])
    step = np.linalg.norm(affine[:3, :3], axis=0).min() / 2
    reach = math.ceil(WIDTH * _RANGE[1] * distance / FWHM_PER_SIGMA / step)
    along = step * np.arange(-reach, reach + 1)
    values, points = tissue_points(stack, stack_affine)
    world = points[:, :, None] + along * (stack_affine[:3, 2] / distance)[:, None, None]
    into = np.linalg.inv(affine)
    at = np.einsum("ij,jpn->ipn", into[:3, :3], world) + into[:3, 3][:, None, None]
    inside = ((at >= 0) & (at <= np.array(volume.shape)[:, None, None] - 1)).all(axis=(0, 2))
    if inside.sum() < _FEWEST:
        return None
    positions = torch.from_numpy(at[:, inside].reshape(3, -1).astype(np.float32))
    coefficients = spline_coefficients(torch.from_numpy(volume.astype(np.float32)))
    lines = sampled(coefficients, positions).reshape(-1, len(along)).double().numpy()

    def unlike(thickness: float) -> float:
        weights = np.exp(-((along * FWHM_PER_SIGMA / (thickness * distance)) ** 2) / 2)
        return -float(np.corrcoef(lines @ weights, values[inside])[0, 1])

    return float(minimize_scalar(unlike, bounds=_RANGE, method="bounded", options={"xatol": _TO}).x)
