"""The interval that holds the error of a voxel: calibrated on people with known HR, and measured on others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from ..physics.noise import estimate_noise_in_tissue
from .brightness_classes import REGIONS, divide_by_brightness

_FINE, _WINDOW = 1.0, 2.0  # voxels, of Gaussians: detail is what the first removes, its power is a mean in the second
_FINER = 1.01  # voxels per voxel of the scan; along an axis with fewer, nothing was made finer
_DRAWN = 50_000  # voxels of a region; more add nothing
_SHARES = np.linspace(0, 0.95, 20)  # of the voxels, those with the widest intervals, that are left out in turn


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
        """The interval of an overlay.

        Raises:
            ValueError: when it is not what :meth:`describe` gives.
        """
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

        Raises:
            ValueError: as :func:`divide_by_brightness`.
        """
        width = estimate_error_scale(result, scan, factors)
        for name, mask in divide_by_brightness(result).items():
            width[mask] *= self.factors[name]
        return width


def calibrate_interval(people: Iterable[Mapping[str, np.ndarray]], level: float = 0.9) -> Interval:
    r"""Find the factors of an interval by split conformal prediction, with a person as the unit.

    A score is the error of a voxel over :func:`estimate_error_scale`. Voxels of one person are alike, so each person
    counts as one, whatever the number of voxels: the factor of a region is the quantile of the mean of the people's
    distributions. Over exchangeable people, a new one has a mean coverage of at least :math:`level\, n / (n + 1)` with
    n people, and close to the level.

    Args:
        people: scores by region, of each person.
        level: share of the voxels that the interval shall hold, 0 to 1.

    Raises:
        ValueError: when nobody has scores of a region.

    Source:
        Dunn et al., Distribution-free prediction sets for two-layer hierarchical models, JASA 118, 2023 (pooling of
        distributions). The bound: Lee et al., Distribution-free inference with hierarchical data, arXiv 2306.06342.
    """
    scores: dict[str, list[np.ndarray]] = {}
    number = 0
    for person in people:
        number += 1
        for name, values in person.items():
            if len(values):
                scores.setdefault(name, []).append(values)
    factors = {}
    for name in REGIONS:
        if name not in scores:
            raise ValueError(f"no person has voxels of the region {name}; calibrate on volumes that have them.")
        pooled = np.concatenate(scores[name])
        shares = np.concatenate([np.full(len(values), 1 / len(values)) for values in scores[name]])
        order = np.argsort(pooled)
        reached = np.cumsum(shares[order]) / len(scores[name])
        factors[name] = float(f"{pooled[order][np.searchsorted(reached, level - 1e-9)]:.4g}")
    return Interval(level, factors, number)


def draw_scores(
    result: np.ndarray, hr: np.ndarray, scan: np.ndarray, factors: Sequence[float]
) -> dict[str, np.ndarray]:
    """Scores for :func:`calibrate_interval`, at most 50,000 of a region.

    Args:
        hr: ``(X, Y, Z)``, on the grid of the result, in the same units.
        result, scan, factors: as for :func:`estimate_error_scale`.
    """
    score = np.abs(result - hr) / estimate_error_scale(result, scan, factors)
    rng = np.random.default_rng(0)
    return {name: rng.permutation(score[mask])[:_DRAWN] for name, mask in divide_by_brightness(result).items()}


def measure_coverage(error: np.ndarray, half_width: np.ndarray) -> float:
    """Share of the errors that are at most the half width, 0 to 1; both of one shape, in the same units."""
    return float(np.mean(np.abs(error) <= half_width))


def measure_sparsification(error: np.ndarray, half_width: np.ndarray) -> dict[str, Any]:
    """How well the widths of intervals tell where errors are large.

    Args:
        error, half_width: 1-D arrays of one length, in the same units.

    Returns:
        ``curve`` and ``oracle``: mean absolute error of the voxels that are left, over that of all, when those with the
        widest intervals, or with the largest errors, are left out, at each of ``shares``. ``gain``: how far the curve
        lies below 1, on average, over how far the oracle does: 1 is the oracle, and 0 is chance or a constant width.
        ``rank``: Spearman's correlation of the absolute error and the width; NaN if one is constant.

    Source:
        Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow, ECCV 2018.
    """
    size = np.abs(error).astype(np.float64)
    mean = size.mean() or 1.0
    # Voxels with the same width are left out at random.
    tie = np.random.default_rng(0).permutation(len(size))

    def leave_out(by: np.ndarray) -> np.ndarray:
        ordered = size[np.lexsort((tie, -by))] / mean
        left = np.cumsum(ordered[::-1])[::-1] / np.arange(len(ordered), 0, -1)
        return left[(_SHARES * len(ordered)).astype(int)]

    curve, oracle = leave_out(half_width), leave_out(size)
    from scipy.stats import rankdata  # here, because it takes long to load, and inference needs none

    rank = np.nan
    if np.ptp(half_width) and np.ptp(size):
        rank = float(np.corrcoef(rankdata(size), rankdata(half_width))[0, 1])
    possible = 1 - oracle.mean()
    gain = float((1 - curve.mean()) / possible) if possible > 0 and np.ptp(half_width) else 0.0
    return {"shares": _SHARES, "curve": curve, "oracle": oracle, "gain": gain, "rank": rank}
