"""The degradation of a scanner, by the axes along which a scan is coarser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Degradation
from .gaussian_profile import GaussianProfile
from .k_space_truncation import KSpaceTruncation


def as_scanned(factors: Sequence[Any]) -> Degradation:
    """A Gaussian profile if the scan is coarser across slices only, else truncation of k-space.

    Args:
        factors: HR voxels per LR voxel along each axis; the axis across the slices is last.
    """
    return GaussianProfile(factors) if factors[0] == 1 else KSpaceTruncation(factors)
