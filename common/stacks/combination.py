"""Average several volumes of one head, with weights by accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

_LEAST = 0.001  # error at frequencies that the slices keep whole, relative to the power of the head
_FAINTEST = 1e-12  # least power of a shell, relative to the brightest: else all weights could be 0
_SHELLS = 100  # shells per cycle/voxel, in which the head's power is averaged


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
    if len(volumes) == 1:
        return torch.where(inside[0], volumes[0], 0.0)
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
