"""Super-resolution in plane by a cascade of networks (Iwamoto et al. 2022, section II-D)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer

from ..degradations.base import Degradation, remove_metadata
from ..degradations.profiles import GaussianProfile
from ..geometry.spline import apply_along_axes, make_upsampling_matrix
from ..runtime.progress import track
from .images import run_in_pieces


def back_project(sr: torch.Tensor, lr: torch.Tensor, degradation: Degradation, iterations: int) -> torch.Tensor:
    r"""Iterative back projection: correct an SR volume by the difference between LR scan and degraded volume.

    .. math:: x_{t+1} = x_t + f_0 f_1 f_2\, A^T (y - A x_t)

    Iwamoto et al. 2022, eq. 6, after Irani and Peleg 1991. The factors compensate for the adjoint, which spreads an LR
    voxel over HR voxels.

    Args:
        sr: estimate x ``(..., X, Y, Z)``.
        lr: scan y ``(..., X / f0, Y / f1, Z / f2)``.
        degradation: the linear operator A.
        iterations: 0 leaves the estimate as it is.
    """
    gain = math.prod(degradation.factors)
    for _ in range(iterations):
        sr = sr + gain * degradation.adjoint(lr - degradation(sr))
    return sr


class CascadeInferer(Inferer):
    """Runs the stages of a cascade over whole volumes. Each stage interpolates, then applies its network.

    Each stage makes the plane ``factor`` times as fine. All grids share the edge of the scan's field of view. After t
    stages, n LR voxels have become n factor^t voxels (rounded), each exactly 1 / factor^t of the size. The guide is
    brought from its own grid to that of each stage by :class:`~common.degradations.GaussianProfile`.

    Args:
        factor: of one stage in plane, more than 1, whole or not.
        stages: number of stages to run, from the first; or a list of stages, counted from 1. 0 leaves the input as it
            is.
        degradation: from the result to the input, for the back projection after the last stage; needed with iterations.
        iterations: of the back projection (:func:`back_project`).
    """

    def __init__(
        self,
        factor: float,
        stages: int | Sequence[int] = 1,
        degradation: Degradation | None = None,
        iterations: int = 0,
    ) -> None:
        super().__init__()
        if iterations and degradation is None:
            raise ValueError("CascadeInferer: back projection needs the degradation.")
        self.factor = factor
        self.stages = tuple(range(1, stages + 1) if isinstance(stages, int) else stages)
        # The guide is as fine as the result. Rounding: by the last bit, the factor of three stages is not whole.
        self.guide_factor = round(factor ** len(self.stages), 12)
        self.degradation = degradation
        self.iterations = iterations

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], guide: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Super-resolve a batch of volumes.

        Args:
            inputs: ``(B, 1, X, Y, Z)``, Z the slices.
            network: :class:`~common.networks.Cascade`, called with the image and the stage counted from 0.
            guide: ``(B, 1, guide_factor X, guide_factor Y, Z)``, or None for networks that take none.

        Returns:
            ``(B, 1, factor^t X, factor^t Y, Z)`` for t stages, float32.
        """
        image = lr = remove_metadata(inputs).float()
        slices = 8 if image.is_cuda else 1
        for done, stage in track([*enumerate(self.stages, start=1)], growth=self.factor**2):
            matrices = [self._interpolate(image.shape[axis], lr.shape[axis], done) for axis in (2, 3)]
            image = apply_along_axes(image, [*matrices, None]).contiguous()
            if guide is not None:
                image = torch.cat([image, self.resample_guide(guide, lr.shape, done)], dim=1)
            image = torch.cat([*run_in_pieces(network, image.split(slices, dim=-1), stage - 1)], dim=-1)
        if self.iterations:
            image = back_project(image, lr, self.degradation, self.iterations)  # type: ignore[arg-type]
        return image

    def select_earlier_stages(self, stage: int) -> CascadeInferer:
        """The stages before this stage, with the same guide and no back projection."""
        earlier = CascadeInferer(self.factor, stage - 1)
        earlier.guide_factor = self.guide_factor
        return earlier

    def select_stage(self, stage: int) -> CascadeInferer:
        """One stage, with a guide as fine as its result and no back projection."""
        return CascadeInferer(self.factor, [stage])

    def compute_guide_shape(self, lr_shape: Sequence[int]) -> tuple[int, int, int]:
        """Number of voxels of the guide for an LR volume of ``(X, Y, Z)``."""
        x, y, z = lr_shape
        return math.floor(x * self.guide_factor + 0.5), math.floor(y * self.guide_factor + 0.5), z

    def resample_guide(self, guide: torch.Tensor, lr_shape: Sequence[int], done: int) -> torch.Tensor:
        """The guide on the grid that ``done`` stages lead to from an input of ``(B, 1, X, Y, Z)``."""
        expected = self.compute_guide_shape(lr_shape[2:])
        if tuple(guide.shape[2:]) != expected:
            raise ValueError(
                f"the guide has {tuple(guide.shape[2:])} voxels, expected {expected}: {self.guide_factor:g} times "
                "those of the LR volume in plane, with the same slices. Resample it with ResampleGuided."
            )
        # Rounding: by the last bit, 2 / (2 ** (1 / 2)) ** 2 is less than 1.
        factor = round(self.guide_factor / self.factor**done, 12)
        return GaussianProfile((factor, factor, 1))(remove_metadata(guide).float())

    def _interpolate(self, size: int, lr_size: int, done: int) -> torch.Tensor:
        new_size = math.floor(lr_size * round(self.factor**done, 12) + 0.5)
        return make_upsampling_matrix(size, new_size, self.factor, (self.factor - 1) / 2)
