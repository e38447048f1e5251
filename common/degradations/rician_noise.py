"""Rician noise: the noise of magnitude MR images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import SPATIAL_DIMS, Degradation, make_generator


class RicianNoise(Degradation):
    r"""Add complex Gaussian noise and take the magnitude.

    .. math:: y = \sqrt{(x + n_1)^2 + n_2^2}, \qquad n_1, n_2 \sim \mathcal{N}(0, \sigma^2)

    The two channels of an MR receiver have independent Gaussian noise, and the scanner shows the magnitude. Without
    signal, the noise is Rayleigh distributed with mean :math:`\sigma \sqrt{\pi / 2}`; with much, nearly Gaussian.

    With a ``seed``, the noise depends on the seed and the volume only: the same in any order, batch or process, and on
    any device. Without a seed, every call draws new noise from torch's global generator.

    Args:
        sigma: standard deviation of the noise in each channel, in the units of the image (0.02 is 2 % of a volume in
            [0, 1]); at 0 only the magnitude is taken.
        seed: makes the noise of each volume reproducible.

    Example:
        >>> import torch
        >>> from common.degradations import RicianNoise
        >>> round(RicianNoise(sigma=0.02, seed=0)(torch.zeros(1, 32, 32, 32)).mean().item() / 0.02, 1)
        1.3

    References:
        Gudbjartsson and Patz, The Rician distribution of noisy MRI data, MRM 1995.
    """

    is_linear = False

    def __init__(self, sigma: float, seed: int | None = None) -> None:
        super().__init__()
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f"RicianNoise: sigma must be at least 0, in the units of the image, got {sigma}.")
        self.sigma = float(sigma)
        self.seed = seed

    def _degrade(self, hr: Tensor) -> Tensor:
        if self.seed is None:
            real, imaginary = torch.randn_like(hr), torch.randn_like(hr)
        else:
            volumes = hr.reshape(-1, *hr.shape[-SPATIAL_DIMS:])
            drawn = [torch.randn(2, *v.shape, generator=make_generator(self.seed, v)) for v in volumes]
            noise = torch.stack(drawn, dim=1).to(hr)
            real, imaginary = noise.reshape(2, *hr.shape)
        # The magnitude of a complex number has a gradient of 0, not NaN, where there is neither signal nor noise.
        return torch.complex(hr + self.sigma * real, self.sigma * imaginary).abs()

    def explain_nonlinearity(self) -> str:
        return "the magnitude of a noisy complex signal is not linear in the signal."

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, seed={self.seed}"
