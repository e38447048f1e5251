"""HR in the units of a scan."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..geometry.nearest import sample_nearest
from ..geometry.resampling import resample_volume
from ..geometry.tissue import find_tissue
from .verdict import measure_widths

_BINS = 10_000  # of HR's range
_EXTREME = 1e-3  # share of the voxels at each end that do not count
_FEWEST = 100  # voxels of tissue
# Of tissue brightness at its 5th percentile, and of the 95th percentile. Of scans made of six heads (2x2x2, 1x1x4 and
# 1x1x8) with noise of 0 to 10 %, whose magnitude lifts dark tissue, it was at most 0.07, and 0.013 at the 95th.
_DARK, _BRIGHT = 0.08, 0.03
_WORSE = 1.2  # times what a line leaves, that equal units may leave
_LEAST_CORRELATION = 0.5  # of the same scans it was at least 0.87
_EQUAL = 1e-6  # of the range: one value differs less from itself, in rounding
_FILLED = 0.05  # share of the voxels, and of those at the border, with the value that a mask was filled with
_MASKED = 0.2  # share of the tissue of one volume, beyond which the other has another mask
# Times the error of a line that a factor alone and an offset alone may have: scanners and converters multiply.
_SIMPLER = (4.0, 2.0, 1.0)


def match_units(
    hr: np.ndarray,
    hr_affine: np.ndarray,
    scan: np.ndarray,
    scan_affine: np.ndarray,
    place: str,
    known: np.ndarray | None = None,
) -> tuple[np.ndarray, str | None]:
    """HR in the units of a scan, by the line between the two in tissue.

    Both are smoothed by the width of the scan's voxels, so that blur and noise hardly change the line. Where a factor
    or an offset alone does as well, that is taken. What a mask has filled in HR becomes 0, or as dark as the scan. HR
    is that of its file: a mask is known by its one value, which resampling blurs.

    Args:
        hr, hr_affine: ``(X, Y, Z)``, and its affine in mm.
        scan, scan_affine: likewise, on any grid.
        place: where HR was named, for messages, for example ``judge: --hr hr.nii.gz``.
        known: mask of what HR shows; None for all.

    Returns:
        HR, unchanged if it has the units of the scan; and how these differ, in words, None if they do not.

    Raises:
        ValueError: when there is no such line, as between two contrasts, or when only one of the two is masked.
    """
    on_grid = hr.shape, hr_affine
    cubic = resample_volume(torch.from_numpy(scan), scan_affine, *on_grid).numpy()
    inside = sample_nearest(np.ones(scan.shape, bool), scan_affine, *on_grid)
    inside &= True if known is None else known
    fill, scan_fill = _find_fill(hr), sample_nearest(_find_fill(scan), scan_affine, *on_grid)
    there = inside & ~fill & ~scan_fill
    if there.sum() < _FEWEST:
        return hr, None
    _check_masks({"HR": (hr, inside & fill), "the scan": (cubic, inside & scan_fill)}, inside, place)
    width = measure_widths(hr_affine, scan_affine).tolist()
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
    lowest = float(np.quantile(scan, 0.05))
    lowest = lowest if lowest < -_DARK * mean else 0.0  # of scans without negative values
    limits = np.array([_DARK * (mean - lowest), _BRIGHT * (ends[1] - lowest)])
    (variance, covariance), (_, hr_variance) = np.cov(values, hr_values)
    slope = covariance / variance if variance else 1.0
    expected = hr_mean + slope * (ends - mean)
    unexplained = float(np.std(hr_values - slope * values))
    same = float(np.sqrt(np.square(hr_values - values).mean()))
    if (np.abs(expected - ends) <= limits).all() or same <= _WORSE * unexplained:
        return hr, None
    correlation = covariance / np.sqrt(variance * hr_variance) if variance and hr_variance else 0.0
    if correlation < _LEAST_CORRELATION:
        raise ValueError(
            f"{place}: its tissue has other values than that of the scan, and a correlation of {correlation:.2f} with "
            f"it, expected at least {_LEAST_CORRELATION:g}. Is it another contrast, or inverted? Name HR of this scan."
        )
    errors = {}
    lines = (hr_mean / mean, 0.0), (1.0, hr_mean - mean), (slope, hr_mean - slope * mean)
    for (gain, offset), simpler in zip(lines, _SIMPLER, strict=True):
        if gain > 0 and (np.abs(gain * ends + offset - expected) <= slope * limits).all():
            # The dark voxels tell a factor from an offset.
            errors[gain, offset] = float(np.median(np.abs(gain * all_values + offset - all_hr))) / simpler
    gain, offset = min(errors, key=lambda line: errors[line])
    text = f"HR has other units than the scan, gain {gain:.4g} and offset {offset:.4g} by a line through tissue"
    unknown = fill if known is None else fill | ~known
    return np.where(unknown, lowest, (hr - offset) / gain).astype(hr.dtype), text


def _check_masks(volumes: dict[str, tuple[np.ndarray, np.ndarray]], inside: np.ndarray, place: str) -> None:
    """Refuse a mask of one volume over tissue of the other, as where only one is stripped of its skull."""
    pairs = [*volumes.items()]
    for (name, (_, fill)), (other, (shown, other_fill)) in (pairs, pairs[::-1]):
        tissue = inside & ~other_fill
        tissue[tissue] = _find_tissue(shown[tissue])
        if (share := fill[tissue].mean()) > _MASKED:
            raise ValueError(
                f"{place}: {name} has one and the same value in {share:.0%} of the tissue of {other}, as after skull "
                f"stripping, expected at most {_MASKED:.0%}. Mask both alike, or neither."
            )


def _find_fill(volume: np.ndarray) -> np.ndarray:
    """Where a volume has the one value that a mask leaves around what it shows; nowhere if there is none."""
    counts, edges = np.histogram(volume, _BINS)
    fullest = int(counts.argmax())
    within = volume[(volume >= edges[fullest]) & (volume <= edges[fullest + 1])]
    value, limit = np.quantile(within, 0.5, method="nearest"), _EQUAL * (edges[-1] - edges[0])
    fill = np.abs(volume - value) <= limit
    border = np.concatenate([fill.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])
    is_saturated = value >= edges[-1] - limit
    return np.zeros_like(fill) if is_saturated or min(fill.mean(), border.mean()) <= _FILLED else fill


def _find_tissue(values: np.ndarray) -> np.ndarray:
    """Which voxels are tissue; all, if they are alike."""
    shown = values.clip(*np.quantile(values, [_EXTREME, 1 - _EXTREME]))
    return find_tissue(shown) if np.ptp(shown) else np.ones(values.shape, bool)
