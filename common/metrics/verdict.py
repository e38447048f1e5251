"""What a result is worth after its scan, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from ..geometry.gaussian import compute_coarsening_sigma
from ..geometry.resampling import SplineResampling, resample_volume

_MOST = 192  # voxels along each axis that are compared, in the middle of the volume
_FEWEST = 100  # voxels of tissue
_ROUNDING = 1.05  # of voxel sizes
_FLAT = 1e-5  # a range, as a share of the brightness, that is rounding
# Limits from 24 crops: heads, a fetus, and LR of three people by k-space truncation and thick slices, with noise and
# without; by the shipped weights, not fine-tuned. One percent of difference was worth about 0.3 dB to the three people.
_HARDLY = 0.01
# Sharpening was 0.06 to 0.94 of the weights, 0.03 to 1.49 of HR, up to 0.005 of cubic with noise of 1 to 3 %.
_SHARPER = 0.02
# The misfit of the weights was at most 1.05 times that of cubic, of HR and of cubic with noise 1.14 times. Of cubic
# that was blurred, shifted by a voxel or replaced by linear interpolation it was 1.22 to 3.7 times.
_CONTRADICTS, _LEAST_MISFIT = 1.2, 0.015
_AS_NEAR = 0.01  # errors that differ by less are alike


@dataclass(frozen=True)
class CubicComparison:
    """A result and the cubic interpolation of its scan, in tissue, as shares of the interpolation's root mean square.

    Attributes:
        difference: root mean square difference of the two.
        sharpening: how much of the interpolation's finest detail the result adds to it: 0 for noise, below 0 for blur.
        misfit: root mean square difference of the result from the scan, as slices and pixels average it.
        cubic_misfit: that of the interpolation.
        brightness: root mean square of the interpolation in tissue, in its units.
        misfits: of each scan, if the result was made of several.
        stack: name of the interpolated scan, likewise.
    """

    difference: float
    sharpening: float
    misfit: float
    cubic_misfit: float
    brightness: float
    misfits: tuple[float, ...] = ()
    stack: str = ""

    @property
    def contradicts(self) -> bool:
        """Whether the result explains the scan worse than its interpolation does."""
        excess = math.sqrt(max(0.0, self.misfit**2 - self.cubic_misfit**2))
        return self.misfit > _CONTRADICTS * self.cubic_misfit and excess > _LEAST_MISFIT


def compare_with_cubic(
    result: torch.Tensor, affine: np.ndarray, scan: torch.Tensor, scan_affine: np.ndarray
) -> CubicComparison | None:
    """Compare the middle of a result with the cubic interpolation of its scan there.

    The scan is taken to average the result as a Gaussian as wide as its voxels does, whatever made the result.

    Args:
        result: ``(X, Y, Z)``, 0 without signal.
        affine: of the result, in mm.
        scan, scan_affine: likewise, in the same units.

    Returns:
        None if there is too little tissue.
    """
    part, place = cut_middle(result, affine)
    scan, scan_affine = scan.float().cpu(), np.asarray(scan_affine, dtype=np.float64)
    cubic = resample_volume(scan, scan_affine, part.shape, place)
    width = measure_widths(place, scan_affine)
    sigma = compute_coarsening_sigma(np.ones(3), width)
    sampling = SplineResampling(part.shape, scan.shape, np.linalg.inv(place) @ scan_affine)
    inside = sampling.find_inside(margin=(-2 * width).tolist())
    seen, seen_cubic = (
        sampling(torch.from_numpy(gaussian_filter(each.numpy(), sigma)))[inside] for each in (part, cubic)
    )
    return compare_volumes(part, cubic, width, [(seen, seen_cubic, scan[inside])])


def cut_middle(volume: torch.Tensor, affine: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """The middle of a volume ``(X, Y, Z)``, at most 192 voxels along each axis, on the CPU, and its affine."""
    first = [max(0, (n - _MOST) // 2) for n in volume.shape]
    place = np.array(affine, dtype=np.float64)
    place[:3, 3] += place[:3, :3] @ first
    return volume[tuple(slice(a, a + _MOST) for a in first)].float().cpu(), place


def measure_widths(affine: np.ndarray, scan_affine: np.ndarray) -> np.ndarray:
    """Width of a scan's voxels along each axis of a result, in voxels of the result, at least 1."""
    return np.abs(np.linalg.solve(affine[:3, :3], scan_affine[:3, :3])).max(axis=1).clip(1)


def compare_volumes(
    result: torch.Tensor, cubic: torch.Tensor, width: np.ndarray, scans: Sequence[Sequence[torch.Tensor]]
) -> CubicComparison | None:
    """Compare a result with an interpolation of its scan.

    Args:
        result, cubic: ``(X, Y, Z)``, on one grid.
        width: of the scan's voxels, from :func:`measure_widths`.
        scans: what a scanner would see of both, and the scan, ``(N,)`` voxels each; of each scan.

    Returns:
        None if there is too little tissue.
    """
    values = cubic.numpy()
    shown = values.clip(0, np.quantile(values, 0.999))
    is_flat = np.ptp(shown) <= _FLAT * np.abs(shown).max()
    threshold = math.inf if is_flat else threshold_otsu(shown.ravel())
    tissue = values > threshold
    inside = [each[scan > threshold].double() for *views, scan in scans for each in (*views, scan)]
    if min(tissue.sum(), *map(len, inside)) < _FEWEST:
        return None
    brightness = math.sqrt(np.square(values[tissue], dtype=np.float64).mean())
    smooth = gaussian_filter(values, np.where(width > _ROUNDING, width / 2, 0))
    detail = (values - smooth)[tissue].astype(np.float64)
    difference = (result.numpy() - values)[tissue].astype(np.float64)
    power = detail.var()
    sharpening = float((difference * (detail - detail.mean())).mean() / power) if power > 0 else 0.0
    seen, seen_cubic, scan = inside[::3], inside[1::3], inside[2::3]
    misfit, cubic_misfit = (
        _measure_difference(map(torch.cat, pair)) / brightness for pair in ((seen, scan), (seen_cubic, scan))
    )
    misfits = [_measure_difference(pair) / brightness for pair in zip(seen, scan, strict=True)]
    share = math.sqrt(np.square(difference).mean()) / brightness
    return CubicComparison(share, sharpening, misfit, cubic_misfit, brightness, tuple(misfits))


def _measure_difference(pair: Iterable[torch.Tensor]) -> float:
    """The root mean square difference of two tensors."""
    first, second = pair
    return float((first - second).square().mean().sqrt())


def describe_verdict(comparison: CubicComparison, outside: str | None = None, warned: bool = False) -> str:
    """Say in a sentence what a result is worth, and why.

    Args:
        comparison: of the result with cubic interpolation.
        outside: what of the scan is outside of the weights' training range, empty for nothing; None if not known.
        warned: whether the network's result disagreed with the scan more than in validation.
    """
    away = f"by {comparison.difference:.1%} of tissue brightness"
    cubic, scan = (f"cubic of {comparison.stack}", "its stacks") if comparison.stack else ("cubic", "the scan")
    missed = f"misses {scan} by {comparison.misfit:.1%} of tissue brightness, cubic by {comparison.cubic_misfit:.1%}"
    if comparison.contradicts:
        return f"contradicts {scan}: keep {cubic}; degraded again, it {missed}"
    if warned:
        return "contradicts the scan: keep cubic; the network's result disagreed with it more than in validation"
    if comparison.difference < _HARDLY:
        return f"hardly differs from {cubic}: {away}" + (f"; {outside}" if outside else "")
    if abs(comparison.sharpening) < _SHARPER:
        return (
            f"neither finer nor smoother than {cubic}, differs {away}: noise added, or as much removed as detail added"
        )
    known = "" if outside is None else f", but {outside}" if outside else ", within what the weights know"
    finer = "finer" if comparison.sharpening > 0 else "smoother"
    return f"{finer} than {cubic}, differs {away}, {missed if comparison.stack else 'agrees with the scan'}{known}"


def describe_errors(error: float, cubic: float) -> str:
    """Say whether a result is nearer to HR than cubic interpolation.

    Args:
        error, cubic: of both in tissue, by :func:`common.metrics.volume.compute_nrmse`.
    """
    near = "nearer to HR than cubic" if error < cubic else "farther from HR than cubic: keep cubic"
    near = "as near to HR as cubic" if abs(error - cubic) < _AS_NEAR * cubic else near
    return f"{near}; nrmse in tissue {error:.3f}, cubic {cubic:.3f}"
