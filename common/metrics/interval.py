"""The interval that holds the error of a voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from ..physics.noise import estimate_noise_in_tissue
from .brightness_classes import REGIONS, divide_by_brightness

_FINE, _WINDOW = 1.0, 2.0  # voxels, of Gaussians: detail is what the first removes, its power is a mean in the second
_FINER = 1.01  # voxels per voxel of the scan; along an axis with fewer, nothing was made finer


def estimate_error_scale(result: np.ndarray, scan: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    r"""How large the error of each voxel may be, up to a factor, from the detail around it and the scan's noise.

    .. math:: u = \sqrt{G * (x - g * x)^2 + \sigma^2}

    Here x is the result, g a Gaussian of one voxel along the axes that were made finer, G one of two voxels along all
    axes, and :math:`\sigma` the noise by :func:`common.physics.noise.estimate_noise_in_tissue`. Errors are largest
    where a result has edges.

    Args:
        result: ``(X, Y, Z)``, any units.
        scan: ``(X, Y, Z)``, in the same units.
        factors: voxels of the result per voxel of the scan, along each axis.

    Returns:
        Volume of the size and units of the result, float32.
    """
    result = result.astype(np.float32, copy=False)
    detail = result - gaussian_filter(result, [_FINE * (factor > _FINER) for factor in factors])
    noise = np.nan_to_num(estimate_noise_in_tissue(scan))
    return np.sqrt(gaussian_filter(detail * detail, _WINDOW).clip(0) + np.float32(noise**2 + np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class Interval:
    """Half width of the interval over :func:`estimate_error_scale`, by region.

    Attributes:
        level: share of the voxels of a region that the interval holds, 0 to 1.
        factors: by the names of :func:`divide_by_brightness`.
        people: number of people behind the factors.
    """

    level: float
    factors: Mapping[str, float]
    people: int

    @classmethod
    def read(cls, value: Any) -> Interval:
        """The interval of an overlay."""
        try:
            return cls(float(value["level"]), {k: float(value["factors"][k]) for k in REGIONS}, int(value["people"]))
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"interval is {value!r}, expected what --calibrate of judge writes.") from None

    def describe(self) -> dict[str, Any]:
        """What an overlay holds."""
        return asdict(self)

    def compute_half_width(self, result: np.ndarray, scan: np.ndarray, factors: Sequence[float]) -> np.ndarray:
        """Half widths of the interval around each voxel, of the size and units of the result ``(X, Y, Z)``.

        Args:
            result, scan, factors: as for :func:`estimate_error_scale`.
        """
        width = estimate_error_scale(result, scan, factors)
        for name, mask in divide_by_brightness(result).items():
            width[mask] *= self.factors[name]
        return width
