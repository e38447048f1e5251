"""Combine several volumes of one head: brightness, contrast, and weights by accuracy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter

_BLUR = 6.0  # mm, standard deviation
_TISSUE = 0.3  # of the brightest, above which blurred voxels are compared
_VOXELS = 40_000
_STEPS = 10
_OUTLYING = 2.0  # standard deviations of a logarithm; above, a voxel counts less
_POWERS = [powers for powers in itertools.product(range(3), repeat=3) if sum(powers) <= 2]
_SHOWN = 0.1  # of the brightest, above which voxels are tissue
_DETAIL = 4.0  # pixels, standard deviation of the blur that is subtracted to get the detail
_BORDER = 3  # pixels of tissue next to air, which are an edge in any contrast
_FEWEST = 200  # voxels
_LEAST = 0.001  # error at frequencies that the slices keep whole, relative to the power of the head
_FAINTEST = 1e-12  # least power of a shell, relative to the brightest: else all weights could be 0
_SHELLS = 100  # shells per cycle/voxel, in which the head's power is averaged


class BrightnessField:
    r"""A stack's brightness relative to the volume: the exponential of a polynomial of degree 2.

    .. math:: g(u) = \exp \sum_{|p| \le 2} c_p\, u_0^{p_0} u_1^{p_1} u_2^{p_2}

    The coordinates u run from -1 to 1 from edge to edge of the field of view. Stack and volume are blurred before they
    are compared, because the volume's detail may be wrong. The fit is by least squares in tissue, where outliers count
    less. Elsewhere the field is clipped to its range in tissue.

    Args:
        stack: ``(X, Y, Z)``.
        simulated: the volume's values in the same voxels.
        is_inside: 1 in voxels that lie in the volume, else 0.
        spacing: of the voxels in mm.

    Attributes:
        mean: geometric mean of the field over the compared voxels.
        range: lowest and highest logarithm of the field in these voxels.
    """

    def __init__(
        self, stack: torch.Tensor, simulated: torch.Tensor, is_inside: torch.Tensor, spacing: Sequence[float]
    ) -> None:
        sigmas = [_BLUR / mm for mm in spacing]
        y, s = (gaussian_filter((v * is_inside).double().cpu().numpy(), sigmas) for v in (stack, simulated))
        tissue = (s > _TISSUE * s.max()) & (y > _TISSUE * y.max())
        chosen = np.argwhere(tissue)
        chosen = chosen[np.random.default_rng(0).permutation(len(chosen))[:_VOXELS]]
        axes = [_make_coordinates(n)[index] for n, index in zip(stack.shape, chosen.T, strict=True)]
        columns = np.stack([math.prod(u**p for u, p in zip(axes, powers, strict=True)) for powers in _POWERS], axis=1)
        dark, bright = (v[tuple(chosen.T)] for v in (y, s))
        logs = np.log(dark / bright)
        counts = bright
        for _ in range(_STEPS):
            self.coefficients = np.linalg.lstsq(columns * counts[:, None], logs * counts, rcond=None)[0]
            missed = np.abs(logs - columns @ self.coefficients)
            counts = bright / np.sqrt(1 + (missed / (_OUTLYING * 1.4826 * np.median(missed) + 1e-12)) ** 2)
        fitted = columns @ self.coefficients
        self.mean, self.range = float(np.exp(fitted.mean())), (float(fitted.min()), float(fitted.max()))

    def evaluate(self, size: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """The field, as a volume of this many voxels over the same field of view."""
        axes = [torch.from_numpy(_make_coordinates(n)).float().to(device) for n in size]
        x, y, z = axes[0][:, None, None], axes[1][:, None], axes[2]
        terms = zip(self.coefficients.tolist(), _POWERS, strict=True)
        return sum(c * x**i * y**j * z**k for c, (i, j, k) in terms).clamp(*self.range).exp()


def _make_coordinates(n: int) -> np.ndarray:
    """Coordinates of the centres of n voxels, from -1 to 1."""
    return (2 * np.arange(n) + 1) / n - 1


def measure_likeness(stack: torch.Tensor, simulated: torch.Tensor, is_inside: torch.Tensor) -> float:
    """The correlation of detail in tissue: near 1 for the same contrast, near 0 or below for another.

    Args:
        stack: ``(X, Y, Z)``, slices along the last axis.
        simulated: a volume's values in the same voxels.
        is_inside: 1 in voxels that lie in the volume, else 0.

    Returns:
        The correlation; 0 if there are fewer than 200 voxels to compare.
    """
    y, s, inside = (v.double().cpu().numpy() for v in (stack, simulated, is_inside))
    tissue = (y > _SHOWN * np.percentile(y, 99)) & (s > _SHOWN * np.percentile(s, 99)) & (inside > 0)
    tissue = binary_erosion(tissue, np.ones((3, 3, 1)), iterations=_BORDER)
    if tissue.sum() < _FEWEST:
        return 0.0
    details = [(v - gaussian_filter(v, (_DETAIL, _DETAIL, 0)))[tissue] for v in (y, s)]
    return float(np.corrcoef(*details)[0, 1])


def combine_in_k_space(
    volumes: Sequence[torch.Tensor],
    inside: Sequence[torch.Tensor],
    across: Sequence[np.ndarray],
    sigmas: Sequence[float],
    noise: Sequence[float],
) -> torch.Tensor:
    r"""Average thin volumes that were made from thick slices, weighted in k-space by the inverse of their error.

    .. math:: w_k(f) = 1 \Big/ \Big( (1 - H_k(f))^2 + \frac{\nu_k^2}{P(|f|)} + 0.001 \Big), \qquad
        H_k(f) = e^{-2 (\pi \sigma_k\, n_k \cdot f)^2}

    A network has guessed the share 1 - H that its slices did not let through. Noise has the same power at all
    frequencies, but the power P of the head is lower at high ones. Where a volume has no voxels, the mean of the
    others is used.

    Args:
        volumes: on one grid ``(X, Y, Z)``.
        inside: masks of the voxels that each volume covers.
        across: direction across the slices of each volume, :math:`n_k`, in voxels, of length 1.
        sigmas: standard deviation of each slice profile, :math:`\sigma_k`, in voxels.
        noise: standard deviation of the noise of each volume, :math:`\nu_k`.

    Returns:
        The volume; 0 where no volume has voxels.
    """
    size, device = volumes[0].shape, volumes[0].device
    mean = sum(v * m for v, m in zip(volumes, inside, strict=True)) / sum(m.float() for m in inside).clamp_min(1)  # type: ignore[union-attr]
    x, y = (torch.fft.fftfreq(n, device=device) for n in size[:2])
    frequencies = x[:, None, None], y[:, None], torch.fft.rfftfreq(size[2], device=device)
    power = _average_power(torch.fft.rfftn(mean), sum(f.square() for f in frequencies).sqrt()) / mean.numel()
    total: Any = 0.0
    weights: Any = 0.0
    for volume, there, normal, sigma, nu in zip(volumes, inside, across, sigmas, noise, strict=True):
        along = sum(float(n) * f for n, f in zip(normal, frequencies, strict=True))
        hidden = 1 - torch.exp(-2 * (torch.pi * sigma * along) ** 2)
        weight = 1 / (hidden**2 + nu**2 / power + _LEAST)
        total = total + weight * torch.fft.rfftn(torch.where(there, volume, mean))
        weights = weights + weight
    return torch.fft.irfftn(total / weights, s=size)


def _average_power(spectrum: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The mean power of a spectrum in the shell to which each of its frequencies belongs."""
    shell = (radius * _SHELLS).long().flatten()
    totals, counts = (torch.zeros(int(shell.max()) + 1, device=radius.device) for _ in range(2))
    totals.scatter_add_(0, shell, spectrum.abs().square().flatten())
    counts.scatter_add_(0, shell, torch.ones_like(shell, dtype=counts.dtype))
    power = totals / counts.clamp_min(1)
    return power.clamp_min(_FAINTEST * float(power.max()) + torch.finfo(power.dtype).tiny)[shell].reshape(radius.shape)
