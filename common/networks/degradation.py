"""A degradation that is learned but can only blur: one linear kernel, sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class LinearDegradation(nn.Module):
    """A learnable point spread function, the same everywhere, followed by sampling.

    ``lr[i] = sum_d k[d] x[s i + offset + d]``, where ``k`` is the product of one kernel an axis. Each is the Fourier
    transform of a real, even window over k-space, ``k[d] = integral W(f) cos(2 pi f d) df``, scaled to sum 1. So the
    mean is kept and the phase is zero, and contrast and position cannot drift however long the adversarial training
    goes on. The window is 1 at zero frequency and never rises, ``W(f_n) = exp(-sum_{m <= n} p_m^2)`` with the
    parameters ``p`` and linear between the ``f_n``: no filter of a scanner amplifies.

    Along a Fourier-encoded axis (both axes in plane, and the third in a 3-D acquisition) the scanner samples k-space up
    to the Nyquist frequency of the LR voxels and no further. There the input is HR within that band
    (:class:`common.degradations.BandLimit`), and what is learned is the shape of the window: apodisation, filters,
    relaxation during the readout. Along a slice-selected axis (2-D multi-slice) the input is HR itself and the window
    reaches to the Nyquist frequency of HR, as a slice profile may alias. The corners of an elliptical k-space, the
    phase of partial Fourier, and noise that HR does not have are outside its reach.

    It starts as a Gaussian whose full width at half maximum is the LR spacing, a generic blur.

    Args:
        factors: factors ``(H, W, Z)`` by which each axis is sampled; an axis of factor 1 is left as it is.
        offset: centre of LR voxel 0 in HR voxels an axis (``Degradation.offset``).
        fourier_encoded: whether each axis is Fourier-encoded.
        radius: of the kernel in HR voxels.
        margin: HR voxels around the slab that the input has on every side; at least the radius.
        nodes: frequencies from 0 to the window's end at which it is learned, linear between.

    Raises:
        ValueError: when the margin is smaller than the radius.
    """

    def __init__(
        self,
        factors: Sequence[int],
        offset: Sequence[float],
        fourier_encoded: Sequence[bool] = (True, True, True),
        radius: int = 8,
        margin: int = 8,
        nodes: int = 9,
    ) -> None:
        super().__init__()
        if margin < radius:
            raise ValueError(f"LinearDegradation: the kernel's radius {radius} needs a margin as large, got {margin}.")
        self.factors = tuple(int(f) for f in factors)
        self.margin = margin
        self.starts: list[int] = []
        self.decays = nn.ParameterList()
        for axis, (f, o, encoded) in enumerate(zip(factors, offset, fourier_encoded, strict=True)):
            # Taps lie on HR voxels: around the centre of LR voxel 0, which may be half-way between two of them.
            first = math.ceil(o - radius) if f > 1 else 0
            positions = torch.arange(first, math.floor(o + radius) + 1 if f > 1 else 1, dtype=torch.float64) - o
            self.starts.append(margin + first)
            end = 0.5 / f if encoded else 0.5
            frequencies = torch.linspace(0, end, nodes, dtype=torch.float64)
            fine = (torch.arange(64 * (nodes - 1), dtype=torch.float64) + 0.5) * end / (64 * (nodes - 1))
            hats = (1 - (fine[:, None] - frequencies).abs() * (nodes - 1) / end).clamp_min(0)
            transform = torch.cos(2 * math.pi * positions[:, None] * fine) @ hats * (fine[1] - fine[0])
            # Beyond its end, where a band-limited input has nothing, the window stays level, for a short kernel.
            level = 0.5 * torch.sinc(positions) - end * torch.sinc(2 * end * positions)
            transform[:, -1] += level
            self.register_buffer(f"transform_{axis}", transform.float(), persistent=False)
            sigma = f / (2 * math.sqrt(2 * math.log(2)))
            self.decays.append(nn.Parameter((2 * (math.pi * sigma * frequencies) ** 2).diff().sqrt().float()))

    def kernels(self) -> list[torch.Tensor]:
        """The point spread function's factors along H, W and Z, with sum 1."""
        windows = [torch.exp(-F.pad(decay.square(), (1, 0)).cumsum(0)) for decay in self.decays]
        kernels = [getattr(self, f"transform_{axis}") @ window for axis, window in enumerate(windows)]
        return [k / k.sum() for k in kernels]

    def forward(self, hr: torch.Tensor) -> torch.Tensor:
        """Degrade slabs with a margin on every side.

        Args:
            hr: ``(B, 1, H + 2 margin, W + 2 margin, Z + 2 margin)``, band-limited along Fourier-encoded axes.

        Returns:
            ``(B, 1, H / fx, W / fy, Z / fz)``, float32.
        """
        # The kernel is small against the volume, but products with banded matrices beat strided convolutions of one
        # channel on a CPU by far, and are exact at any size. Under autocast they would lose 16 of 24 bits.
        with torch.autocast(hr.device.type, enabled=False):
            x, y, z = [
                self._matrix(k, start, n, f)
                for k, start, n, f in zip(self.kernels(), self.starts, hr.shape[2:], self.factors, strict=True)
            ]
            out = hr.float() @ z.T
            out = torch.einsum("jw,bchwz->bchjz", y, out)
            return torch.einsum("ih,bchjz->bcijz", x, out)

    def _matrix(self, kernel: torch.Tensor, start: int, length: int, factor: int) -> torch.Tensor:
        rows = (length - 2 * self.margin) // factor
        first = start + factor * torch.arange(rows, device=kernel.device)
        columns = first[:, None] + torch.arange(len(kernel), device=kernel.device)
        return kernel.new_zeros(rows, length).scatter(1, columns, kernel.expand(rows, -1))
