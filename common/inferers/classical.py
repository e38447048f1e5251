"""Reconstructions without a network: interpolation, zero filling, total variation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from ..degradations.base import Degradation, remove_metadata
from ..degradations.interpolation import interpolate
from ..degradations.k_space import KSpaceTruncation
from ..runtime.progress import track
from ..runtime.values import check_whole_numbers


class SplineInferer(Inferer):
    """Interpolates a volume by a cubic spline, and runs no network.

    Args:
        degradation: from HR to the volume; its factors need not be whole.
    """

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.degradation = degradation

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Interpolate a batch of volumes ``(B, 1, X, Y, Z)``; ``network`` and further arguments are ignored."""
        return interpolate(remove_metadata(inputs), self.degradation).contiguous()


class ZeroFillingInferer(Inferer):
    """Zero-fills a volume's k-space, as scanners can do, and runs no network.

    Args:
        degradation: from HR to the volume, for the position of LR voxels; its factors are whole.
    """

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.offset = degradation.offset
        self.truncation = KSpaceTruncation(degradation.factors)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As for :class:`SplineInferer`."""
        volume = self.truncation.adjoint(remove_metadata(inputs)).mul_(math.prod(self.truncation.factors))
        for axis, offset in enumerate(self.offset, start=2):
            if offset:
                # Zero filling leaves LR voxel 0 on HR voxel 0; a shift of positions is a phase in k-space.
                size = volume.shape[axis]
                phase = torch.fft.rfftfreq(size, device=volume.device).mul(-2 * math.pi * offset)
                phase = torch.polar(torch.ones_like(phase), phase)
                k_space = torch.fft.rfft(volume, dim=axis).mul_(phase.reshape(-1, *[1] * (4 - axis)))
                if size % 2 == 0:
                    k_space.narrow(axis, size // 2, 1).imag.zero_()
                volume = torch.fft.irfft(k_space, n=size, dim=axis)
        return volume


class TotalVariationInferer(Inferer):
    r"""Reconstructs the volume of least total variation that agrees with the scan, and runs no network.

    .. math:: \hat x = \arg\min_x \tfrac{1}{2} \prod_i f_i \|A x - y\|^2 + \lambda\,\mathrm{TV}(x)

    TV is isotropic. FISTA starts from cubic interpolation; scikit-image computes the proximal steps.

    Args:
        degradation: the linear operator A from HR to the scan y.
        weight: :math:`\lambda`, for a scan that is normalised to [0, 1].
        iterations: of FISTA.

    Source:
        Rudin, Osher and Fatemi, Physica D 60, 1992; Beck and Teboulle, SIAM Journal on Imaging Sciences 2(1), 2009.
    """

    def __init__(self, degradation: Degradation, weight: float = 0.003, iterations: int = 30) -> None:
        super().__init__()
        if not degradation.is_linear:
            raise TypeError(f"TotalVariationInferer needs a linear degradation: {degradation.explain_nonlinearity()}")
        check_whole_numbers(iterations=iterations)
        if not weight > 0:
            raise ValueError(f"weight is {weight!r}, expected a number above 0.")
        self.degradation, self.weight, self.iterations = degradation, weight, iterations

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As for :class:`SplineInferer`."""
        from skimage.restoration import denoise_tv_chambolle  # here, because it takes long to load

        lr = remove_metadata(inputs).cpu()  # where scikit-image computes
        degradation, gain = self.degradation.to(lr.device), math.prod(self.degradation.factors)
        volume = interpolate(lr, degradation).contiguous()
        step = 1 / max(1.0, self._estimate_largest_eigenvalue(volume))
        ahead, momentum = volume, 1.0
        for _ in track(range(self.iterations)):
            before = volume
            volume = ahead - step * gain * degradation.adjoint(degradation(ahead) - lr)
            smooth = [denoise_tv_chambolle(v, step * self.weight, max_num_iter=20) for v in volume[:, 0].numpy()]
            volume = torch.stack([torch.as_tensor(v) for v in smooth])[:, None].to(volume)
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = volume + (momentum - 1) / following * (volume - before)
            momentum = following
        return volume.to(inputs.device)

    def _estimate_largest_eigenvalue(self, volume: torch.Tensor) -> float:
        """Largest eigenvalue of the scaled normal operator, by power iterations on a small volume."""
        factors = [round(f) for f in self.degradation.factors]
        size = [min(n, 8 * f) // f * f for n, f in zip(volume.shape[2:], factors, strict=True)]
        vector = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
        value, gain = 1.0, math.prod(self.degradation.factors)
        for _ in range(20):
            vector = gain * self.degradation.adjoint(self.degradation(vector / vector.norm()))
            value = vector.norm().item()
        return value
