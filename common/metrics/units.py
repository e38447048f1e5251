"""HR in the units of a scan."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from ..geometry.tissue import find_tissue

_BINS = 10_000  # of HR's range
_EXTREME = 1e-3  # share of the voxels at each end that do not count
_FEWEST = 100  # voxels of tissue
# Of tissue brightness, at the 5th and the 95th percentile of tissue. Of scans made of four heads (2x2x2, 1x1x4 and
# 1x1x8) it was at most 0.04 with noise of 0 to 3 %, and 0.06 with 10 %, whose magnitude lifts dark tissue.
_LIMIT = 0.08
_WORSE = 1.2  # times what a line leaves, that equal units may leave
_LEAST_CORRELATION = 0.5  # of the same scans it was at least 0.87
_EQUAL = 1e-6  # of the range: one value differs less from itself, in rounding
_FILLED = 0.05  # share of the voxels, and of those at the border, with the value that a mask was filled with
_SIMPLER = 2.0  # times the error of a line, that a factor or an offset alone may have


def match_units(
    hr: np.ndarray, cubic: np.ndarray, width: Sequence[float], place: str, known: np.ndarray | None = None
) -> tuple[np.ndarray, str | None]:
    """HR in the units of a scan, by the line between the two in tissue; a warning says so if the units differ.

    Both are smoothed by the width of the scan's voxels, so that blur and noise hardly change the line. Where a factor
    or an offset alone does as well, that is taken. What a mask has filled is 0, or as dark as the scan.

    Args:
        hr: ``(X, Y, Z)``.
        cubic: interpolation of the scan on its grid.
        width: of the scan's voxels along each axis, in voxels of HR, at least 1.
        place: where HR was named, for messages, for example ``judge: --hr hr.nii.gz``.
        known: mask of what HR shows; None for all.

    Returns:
        HR, unchanged if it has the units of the scan; and how these differ, in words, None if they do not.

    Raises:
        ValueError: when there is no such line, as between two contrasts.
    """
    there = ~_find_fill(hr, cubic)
    there &= True if known is None else known
    weight = gaussian_filter(there.astype(np.float32), width, truncate=2.0)
    mask = weight > 0.5
    if mask.sum() < _FEWEST:
        return hr, None
    all_hr, all_values = (
        gaussian_filter(np.where(there, each, 0).astype(np.float32), width, truncate=2.0)[mask] / weight[mask]
        for each in (hr, cubic)
    )
    tissue = _find_tissue(all_hr) & _find_tissue(all_values)
    if tissue.sum() < _FEWEST:
        tissue[:] = True
    hr_values, values = (each[tissue].astype(np.float64) for each in (all_hr, all_values))
    mean, hr_mean, ends = values.mean(), hr_values.mean(), np.quantile(values, [0.05, 0.95])
    lowest = float(np.quantile(cubic, 0.05))
    lowest = lowest if lowest < -_LIMIT * mean else 0.0  # of scans without negative values, interpolation undershoots
    limit = _LIMIT * (mean - lowest)
    (variance, covariance), (_, hr_variance) = np.cov(values, hr_values)
    slope = covariance / variance if variance else 1.0
    expected = hr_mean + slope * (ends - mean)
    unexplained = float(np.std(hr_values - slope * values))
    same = float(np.sqrt(np.square(hr_values - values).mean()))
    if np.abs(expected - ends).max() <= limit or same <= _WORSE * unexplained:
        return hr, None
    correlation = covariance / np.sqrt(variance * hr_variance) if variance and hr_variance else 0.0
    if correlation < _LEAST_CORRELATION:
        raise ValueError(
            f"{place}: its tissue has other values than that of the scan, and a correlation of {correlation:.2f} with "
            f"it, expected at least {_LEAST_CORRELATION:g}. Is it another contrast, or inverted? Name HR of this scan."
        )
    errors = {}
    for gain, offset in ((hr_mean / mean, 0.0), (1.0, hr_mean - mean), (slope, hr_mean - slope * mean)):
        if gain > 0 and np.abs(gain * ends + offset - expected).max() <= slope * limit:
            # The dark voxels tell a factor from an offset.
            error = float(np.median(np.abs(gain * all_values + offset - all_hr)))
            errors[gain, offset] = error * (1 if gain == slope else 1 / _SIMPLER)
    gain, offset = min(errors, key=lambda line: errors[line])
    text = f"HR has other units than the scan, gain {gain:.4g} and offset {offset:.4g} by a line through tissue"
    warnings.warn(f"{place}: {text}; it was brought to the units of the scan.", stacklevel=2)
    return np.where(there, (hr - offset) / gain, lowest).astype(hr.dtype), text


def _find_fill(hr: np.ndarray, cubic: np.ndarray) -> np.ndarray:
    """Where HR has the one value that a mask leaves around what it shows; nowhere if there is none."""
    counts, edges = np.histogram(hr, _BINS)
    fullest = int(counts.argmax())
    value = np.median(hr[(hr >= edges[fullest]) & (hr <= edges[fullest + 1])])
    fill = np.abs(hr - value) <= _EQUAL * (edges[-1] - edges[0])
    border = np.concatenate([fill.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])
    is_dark = not fill.all() and cubic[fill].mean() < cubic[~fill].mean()
    return fill if is_dark and min(fill.mean(), border.mean()) > _FILLED else np.zeros_like(fill)


def _find_tissue(values: np.ndarray) -> np.ndarray:
    """Which voxels are tissue; all, if they are alike."""
    shown = values.clip(*np.quantile(values, [_EXTREME, 1 - _EXTREME]))
    return find_tissue(shown) if np.ptp(shown) else np.ones(values.shape, bool)
