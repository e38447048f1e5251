"""What a scanner does where a scan is coarser along some axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Degradation
from .gaussian_profile import GaussianProfile
from .k_space_truncation import KSpaceTruncation


def as_scanned(factors: Sequence[Any]) -> Degradation:
    """A Gaussian profile across slices alone, else fewer lines of k-space.

    Args:
        factors: HR voxels per LR voxel along each axis, that across the slices last.
    """
    return GaussianProfile(factors) if factors[0] == 1 else KSpaceTruncation(factors)
