"""What two results of one person have in common, within the band of their scans and beyond it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft


def select_band(volume: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """The part of a volume that its scan's voxels can hold: waves up to half a cycle per voxel of the scan.

    The volume is mirrored at its borders, so that these do not ring.

    Args:
        volume: ``(X, Y, Z)``.
        factors: its voxels per voxel of the scan along each axis, at least 1.

    Returns:
        The part; volume minus part is the detail that was added.
    """
    waves = fft.dctn(np.asarray(volume, dtype=np.float32), norm="ortho")
    for axis, (size, factor) in enumerate(zip(volume.shape, factors, strict=True)):
        np.moveaxis(waves, axis, 0)[round(size / factor) :] = 0
    return fft.idctn(waves, norm="ortho")


def correlate_within(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Pearson's correlation of two volumes within a mask; NaN if one is constant there."""
    a, b = first[mask].astype(np.float64), second[mask].astype(np.float64)
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and np.ptp(a) and np.ptp(b) else float("nan")


def measure_difference(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """The root mean square difference of two volumes within a mask."""
    return float(np.sqrt(np.mean(np.square(first[mask].astype(np.float64) - second[mask]))))
