"""Gaussians: their widths, and averages with one of any direction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def compute_coarsening_sigma(spacing: np.ndarray, coarser: float | np.ndarray) -> np.ndarray:
    """Standard deviations in mm of the Gaussian that makes voxels of a spacing as wide as coarser ones, 0 if they are
    not coarser."""
    return np.sqrt(np.maximum(coarser**2 - spacing**2, 0)) / FWHM_PER_SIGMA


def make_gaussian_spectrum(
    size: Sequence[int], covariance: np.ndarray, device: torch.device | str = "cpu"
) -> torch.Tensor:
    r"""The Fourier transform of a Gaussian on the frequencies of ``torch.fft.rfftn``.

    .. math:: G(f) = \exp(-2 \pi^2 f^\top C f)

    Args:
        size: of the volume ``(X, Y, Z)``.
        covariance: C, (3, 3), in voxels squared.
        device: of the result.

    Returns:
        ``(X, Y, Z // 2 + 1)``, 1 at frequency 0.
    """
    x, y = (torch.fft.fftfreq(n, device=device) for n in size[:2])
    f = x[:, None, None], y[:, None], torch.fft.rfftfreq(size[2], device=device)
    form = sum(float(covariance[i, j]) * f[i] * f[j] for i in range(3) for j in range(3))
    return torch.exp(-2 * math.pi**2 * form)  # type: ignore[arg-type]


def average_gaussian(
    volume: torch.Tensor, covariance: np.ndarray, margins: Sequence[int] | None = None
) -> torch.Tensor:
    """A volume ``(..., X, Y, Z)``, averaged with a Gaussian of any direction; beyond the volume it is 0.

    Args:
        volume: any units.
        covariance: of the Gaussian, (3, 3), in voxels squared.
        margins: voxels that keep the ends of each axis apart; None for three standard deviations.
    """
    shape, axes = volume.shape[-3:], (-3, -2, -1)
    margins = margins or [math.ceil(3 * math.sqrt(v)) for v in np.diag(covariance)]
    size = [n + margin for n, margin in zip(shape, margins, strict=True)]
    spectrum = torch.fft.rfftn(volume, s=size, dim=axes) * make_gaussian_spectrum(size, covariance, volume.device)
    inner = (..., *map(slice, shape))
    return torch.fft.irfftn(spectrum, s=size, dim=axes)[inner]
