"""A learned degradation: a linear kernel, sampling, and the noise of a magnitude image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..geometry.gaussian import FWHM_PER_SIGMA


class LinearDegradation(nn.Module):
    """A learnable point spread function, the same everywhere, followed by sampling.

    ``lr[i] = sum_d k[d] x[s i + offset + d]``, where ``k`` is the product of one kernel per axis. Each kernel is the
    Fourier transform of a real, even window over k-space, ``k[d] = integral W(f) cos(2 pi f d) df``, scaled to sum 1.
    So contrast and position cannot drift in adversarial training. The window is 1 at zero frequency and never rises,
    because no filter of a scanner amplifies: ``W(f_n) = exp(-sum_{m <= n} p_m^2)`` with the parameters ``p``.

    Along a Fourier-encoded axis, the scanner samples k-space up to the Nyquist frequency of the LR voxels. There the
    input is HR within that band (:class:`common.degradations.BandLimit`), and the module learns the shape of the
    window: apodisation, filters and relaxation during the readout. Along a slice-selected axis (2-D multi-slice), the
    input is HR itself, and the window reaches to the Nyquist frequency of HR, because a slice profile may alias. The
    module cannot model the corners of an elliptical k-space, the phase of partial Fourier, or noise.

    The initial kernel is a generic Gaussian blur. Along a slice-selected axis its full width at half maximum is the LR
    spacing. Along a Fourier-encoded axis it is ``blur`` of that, because the end of k-space limits the resolution
    there. Without blur the window is 1 up to its end: k-space truncation. It stays so, because the gradient of the
    parameters is 0.

    Args:
        factors: factors ``(H, W, Z)`` by which each axis is sampled; an axis of factor 1 does not change.
        offset: centre of LR voxel 0 in HR voxels, per axis (``Degradation.offset``).
        fourier_encoded: whether each axis is Fourier-encoded.
        radius: of the kernel in HR voxels.
        margin: HR voxels that the input has around the slab on every side; at least the radius.
        nodes: number of learned values of the window, from frequency 0 to its end; it is linear between them.
        blur: full width at half maximum of the initial kernel along Fourier-encoded axes, in LR voxels, at least 0.

    Raises:
        ValueError: if the margin is smaller than the radius.
    """

    def __init__(
        self,
        factors: Sequence[int],
        offset: Sequence[float],
        fourier_encoded: Sequence[bool] = (True, True, True),
        radius: int = 16,
        margin: int = 16,
        nodes: int = 9,
        blur: float = 0.5,
    ) -> None:
        super().__init__()
        if margin < radius:
            raise ValueError(f"LinearDegradation: the kernel's radius {radius} needs a margin as large, got {margin}.")
        self.factors = tuple(int(f) for f in factors)
        self.margin = margin
        self.alike = len({*factors}) == len({*offset}) == len({*fourier_encoded}) == 1
        self.starts: list[int] = []
        self.decays = nn.ParameterList()
        for axis, (f, o, encoded) in enumerate(zip(factors, offset, fourier_encoded, strict=True)):
            # Taps lie on HR voxels around the centre of LR voxel 0, which may lie half-way between two of them.
            first = math.ceil(o - radius) if f > 1 else 0
            positions = torch.arange(first, math.floor(o + radius) + 1 if f > 1 else 1, dtype=torch.float64) - o
            self.starts.append(margin + first)
            end = 0.5 / f if encoded else 0.5
            frequencies = torch.linspace(0, end, nodes, dtype=torch.float64)  # in cycles per HR voxel
            fine = (torch.arange(64 * (nodes - 1), dtype=torch.float64) + 0.5) * end / (64 * (nodes - 1))
            hats = (1 - (fine[:, None] - frequencies).abs() * (nodes - 1) / end).clamp_min(0)
            transform = torch.cos(2 * math.pi * positions[:, None] * fine) @ hats * (fine[1] - fine[0])
            # Beyond its end the window stays level: a band-limited input has nothing there, and the kernel is shorter.
            level = 0.5 * torch.sinc(positions) - end * torch.sinc(2 * end * positions)
            transform[:, -1] += level
            self.register_buffer(f"transform_{axis}", transform.float(), persistent=False)
            self.register_buffer(f"frequencies_{axis}", frequencies.float(), persistent=False)
            sigma = (blur if encoded else 1.0) * f / FWHM_PER_SIGMA
            self.decays.append(nn.Parameter((2 * (math.pi * sigma * frequencies) ** 2).diff().sqrt().float()))

    def compute_windows(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per axis of the volume, frequencies in cycles per HR voxel, and the window at these."""
        windows = [torch.exp(-F.pad(decay.square(), (1, 0)).cumsum(0)) for decay in self.decays]
        return [(getattr(self, f"frequencies_{axis}"), window) for axis, window in enumerate(windows)]

    def compute_kernels(self) -> list[torch.Tensor]:
        """The point spread function's kernels along the axes of the volume, each with sum 1."""
        kernels = [
            getattr(self, f"transform_{axis}") @ window for axis, (_, window) in enumerate(self.compute_windows())
        ]
        return [k / k.sum() for k in kernels]

    def forward(self, hr: torch.Tensor, slab_orientation: torch.Tensor | None = None) -> torch.Tensor:
        """``(B, 1, H + 2 margin, W + 2 margin, Z + 2 margin)`` to ``(B, 1, H / fx, W / fy, Z / fz)``, float32.

        The slabs are band-limited along Fourier-encoded axes. ``slab_orientation``, ``(B, 3)``, says which axis of the
        volume lies along H, W and Z of each slab; None stands for 0, 1 and 2. It is read only if all axes are alike,
        because other slabs cannot be turned.
        """
        # The kernel is much smaller than the volume. Still, on a CPU, products with banded matrices are far faster than
        # strided convolutions of one channel, and exact at any size. Under autocast they would lose 16 of 24 bits.
        with torch.autocast(hr.device.type, enabled=False):
            kernels: Any = [k.expand(len(hr), -1) for k in self.compute_kernels()]
            if slab_orientation is not None and self.alike:
                kernels = torch.stack(kernels, dim=1).gather(
                    1, slab_orientation[..., None].expand(-1, -1, kernels[0].shape[1])
                )
                kernels = list(kernels.unbind(dim=1))
            x, y, z = [
                self._make_matrices(k, start, n, f)
                for k, start, n, f in zip(kernels, self.starts, hr.shape[2:], self.factors, strict=True)
            ]
            out = torch.einsum("bkz,bchwz->bchwk", z, hr.float())
            out = torch.einsum("bjw,bchwz->bchjz", y, out)
            return torch.einsum("bih,bchjz->bcijz", x, out)

    def _make_matrices(self, kernels: torch.Tensor, start: int, length: int, factor: int) -> torch.Tensor:
        """Banded matrices, one per kernel."""
        rows = (length - 2 * self.margin) // factor
        first = start + factor * torch.arange(rows, device=kernels.device)
        columns = first[:, None] + torch.arange(kernels.shape[1], device=kernels.device)
        shape = (len(kernels), rows, -1)
        zeros = kernels.new_zeros(len(kernels), rows, length)
        return zeros.scatter(2, columns.expand(shape), kernels[:, None].expand(shape))


class ReceiverNoise(nn.Module):
    r"""Add noise to both channels of a receiver and take the magnitude, as a scanner does; no parameters.

    .. math:: \sqrt{(x + n_1)^2 + n_2^2}

    Negative x, such as ringing where no magnitude was taken, is added to the noise of 0. Without noise it does not
    change.
    """

    def forward(self, lr: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Slices or slabs ``(B, 1, h, w, z)`` and noise ``(B, 2, h, w, z)`` to the shape of ``lr``, float32."""
        with torch.autocast(lr.device.type, enabled=False):
            real, imaginary = noise.float().split(1, dim=1)
            positive, negative = lr.float().clamp_min(0), lr.float().clamp_max(0)
            # The root's gradient is infinite at 0.
            return ((positive + real).square() + imaginary.square()).clamp_min(1e-12).sqrt() + negative
