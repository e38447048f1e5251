"""What a scan measured of a volume, and what was added to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.special import diric

from ..degradations.base import Degradation
from ..geometry.spline import apply_along_axes
from ..physics.continuation import append_ramp

_RAMP = 8  # LR voxels
_SEPARABLE = 1e-4  # relative difference of an operator from one that acts along each axis in turn
_TRIAL = (6, 5, 4)  # LR voxels, to compare the two


def split_measured(volume: torch.Tensor, degradation: Degradation) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Split a volume into the part that its scan has measured, and the part that was added.

    With A the degradation and Z the trigonometric interpolation from the scan's grid, the measured part has no
    frequencies beyond the scan's, and the scan does not differ:

    .. math:: v = Z u, \qquad A v = A x, \qquad u = (A Z)^{-1} A x

    A acts along each axis in turn, so v is a product with one matrix for each axis. With k-space truncation, v is the
    sampled part of k-space.

    Volumes are periodic. If the field of view ends in tissue, the jump to the other side would count as added, so a
    ramp of 8 LR voxels leads there. Of the two continuations, with and without a ramp, the one is taken with less added
    power, compared with what it would be of white noise.

    Args:
        volume: x ``(..., X, Y, Z)``, floats in any units; the volumes of a batch are continued alike.
        degradation: A, from the volume to its scan.

    Returns:
        v and x - v, as the volume.

    Raises:
        ValueError: when A is not linear, or does not act along each axis in turn.

    Example:
        >>> import torch
        >>> from common.degradations import KSpaceTruncation
        >>> from common.metrics import split_measured
        >>> truncation = KSpaceTruncation((2, 2, 2))
        >>> measured, added = split_measured(truncation.adjoint(torch.rand(8, 8, 8)), truncation)
        >>> bool(added.abs().max() < 1e-6 * measured.max())
        True
    """
    _check_separable(degradation)
    least, best = math.inf, (volume, volume)
    for ramp in (0, _RAMP):
        matrices = [_project_axis(degradation, axis, size, ramp) for axis, size in enumerate(volume.shape[-3:])]
        measured = apply_along_axes(volume, matrices)
        added = volume - measured
        power = float(added.square().sum(dtype=torch.float64)) / _count_added(matrices, volume.shape[-3:])
        if power < least:
            least, best = power, (measured, added)
    return best


def measure_added_share(volume: np.ndarray, added: np.ndarray, regions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Measure the root mean square of the added part in regions, as shares of their brightness.

    Args:
        volume: ``(X, Y, Z)``, 0 without signal; its root mean square is the brightness.
        added: from :func:`split_measured`.
        regions: masks by name.

    Returns:
        Shares by name; NaN for an empty or dark region.
    """
    shares = {}
    for name, mask in regions.items():
        power, all_power = (
            float(np.square(each[mask], dtype=np.float64).mean()) if mask.any() else 0.0 for each in (added, volume)
        )
        shares[name] = math.sqrt(power / all_power) if all_power > 0 else math.nan
    return shares


def _count_added(matrices: Sequence[torch.Tensor | None], sizes: Sequence[int]) -> float:
    """The expected added power of white noise of variance 1."""
    known = [matrix for matrix in matrices if matrix is not None]
    trace = math.prod(float(m.trace()) / len(m) for m in known)
    square = math.prod(float(m.square().sum()) / len(m) for m in known)
    return max(math.prod(sizes) * (1 - 2 * trace + square), 1.0)


def _project_axis(degradation: Degradation, axis: int, size: int, ramp: int) -> torch.Tensor | None:
    """The projection onto the measured part along one axis, (size, size); None for an axis that is not degraded."""
    factor, offset = degradation.factors[axis], degradation.offset[axis]
    if factor == 1:
        return None
    scanned = max(1, math.floor(size / factor + 0.5)) + ramp
    length = max(size, math.floor(scanned * factor + 0.5)) if ramp else size
    ends = [length - size if other == axis else 0 for other in range(3)]
    columns = torch.eye(size, dtype=torch.float64).reshape(1, size, *(size if a == axis else 1 for a in range(3)))
    extended = append_ramp(columns, ends).reshape(size, length)
    places = (np.arange(length)[:, None] - offset) / factor - np.arange(scanned)
    band = diric(2 * np.pi * places / scanned, scanned)
    # At the Nyquist frequency of even sizes there is a cosine, but no sine.
    band = torch.from_numpy(band if scanned % 2 else band * np.cos(np.pi * places / scanned))
    seen = _degrade_along(degradation, axis, extended)
    return (band[:size] @ torch.linalg.solve(_degrade_along(degradation, axis, band.T).T, seen.T)).contiguous()


def _degrade_along(degradation: Degradation, axis: int, lines: torch.Tensor) -> torch.Tensor:
    """Degrade lines (N, size) along one axis, of volumes that are constant along the others: (N, LR size)."""
    sizes = [math.ceil(factor) for factor in degradation.factors]
    sizes[axis] = lines.shape[1]
    line = lines.reshape(len(lines), *(-1 if other == axis else 1 for other in range(3)))
    seen = degradation(line.expand(-1, *sizes).contiguous())
    return seen.movedim(axis + 1, 1)[:, :, 0, 0]


def _check_separable(degradation: Degradation) -> None:
    """Refuse an operator that is not a product of one matrix for each axis."""
    name = type(degradation).__name__
    if not degradation.is_linear:
        raise ValueError(f"{name}: what it sees cannot be split off: {degradation.explain_nonlinearity()}")
    sizes = degradation.compute_hr_size(_TRIAL)
    trial = torch.rand(1, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = [
        _degrade_along(degradation, axis, torch.eye(n, dtype=torch.float64)).T.contiguous()
        for axis, n in enumerate(sizes)
    ]
    expected = degradation(trial)
    if (apply_along_axes(trial, matrices) - expected).norm() > _SEPARABLE * expected.norm():
        raise ValueError(f"{name}: what it sees cannot be split off, because it does not act along each axis in turn.")
