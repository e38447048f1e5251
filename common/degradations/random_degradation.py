"""One of several degradations, drawn for each volume."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import SPATIAL_DIMS, Degradation
from .compose import ComposeDegradations
from .in_plane_kernel import InPlaneKernel
from .rician_noise import RicianNoise


class RandomDegradation(Degradation):
    """Degrade each volume by one of several protocols, drawn at random, like scans from several scanners.

    The draw depends on the seed and the volume only, like the noise of :class:`RicianNoise`. So a volume is degraded in
    the same way in any order or process, and after a resume. The choice is not linear in the volume, so there is no
    adjoint.

    Args:
        degradations: the protocols, at least one, with the same factors and offset.
        seed: of the draw.

    Raises:
        ValueError: when there is no degradation, or their factors or offsets differ.

    Example:
        >>> import torch
        >>> from common.degradations import ComposeDegradations, KSpaceTruncation, PartialFourier, RandomDegradation
        >>> truncation = KSpaceTruncation((2, 2, 2))
        >>> partial = ComposeDegradations([truncation, PartialFourier(0.75, 1)])
        >>> scanners = RandomDegradation([truncation, partial], seed=0)
        >>> scanners(torch.rand(1, 8, 8, 8)).shape
        torch.Size([1, 4, 4, 4])
    """

    linear = False

    def __init__(self, degradations: Sequence[Degradation], seed: int = 0) -> None:
        grids = sorted({(tuple(d.factors), tuple(d.offset)) for d in degradations})
        if len(grids) != 1:
            raise ValueError(
                "RandomDegradation: expected one or more degradations with the same factors and offset, got "
                + (", ".join(f"factors {factors} and offset {offset}" for factors, offset in grids) or "none")
                + ". LR voxels must lie at the same places, whichever is drawn."
            )
        super().__init__(*grids[0])
        self.degradations = nn.ModuleList(degradations)
        self.seed = seed

    def _degrade(self, hr: Tensor) -> Tensor:
        volumes = hr.reshape(-1, *hr.shape[-SPATIAL_DIMS:])
        lr = torch.stack([self.degradations[self._draw(volume)](volume) for volume in volumes])
        return lr.reshape(*hr.shape[:-SPATIAL_DIMS], *lr.shape[-SPATIAL_DIMS:])

    def _draw(self, volume: Tensor) -> int:
        fingerprint = zlib.crc32(volume.detach().cpu().contiguous().numpy(), self.seed & 0xFFFFFFFF)  # type: ignore[arg-type]
        return int(torch.randint(len(self.degradations), (), generator=torch.Generator().manual_seed(fingerprint)))

    def why_not_linear(self) -> str:
        return "which degradation acts depends on the volume."


def random_kernels(
    kernels: Tensor, factor: int, offset: float = 0.0, noise_levels: Sequence[float] | None = None, seed: int = 0
) -> RandomDegradation:
    """Degrade each volume by one of several kernels in plane, drawn at random.

    Args:
        kernels: ``(N, K, K)``.
        factor: HR pixels per LR pixel.
        offset: of the kernels' centres, as for :class:`InPlaneKernel`.
        noise_levels: standard deviations of Rician noise, assigned to the kernels in turn; None for no noise.
        seed: of the draw.
    """
    planes: list[Degradation] = [InPlaneKernel(kernel, factor, offset) for kernel in kernels]
    if noise_levels is not None:
        levels = itertools.cycle(noise_levels)
        planes = [ComposeDegradations([plane, RicianNoise(next(levels), seed=0)]) for plane in planes]
    return RandomDegradation(planes, seed)
