"""Super-resolve all contrasts of one exam at once by joint total variation, without a network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..runtime.progress import begin_part
from ..stacks.fitting import make_measurements, reconstruct
from ..stacks.joint_tv import ROUNDS, MeasuredContrast, minimise_joint_tv
from .multi_contrast import ExamInferer


class JointTVInferer(ExamInferer):
    """As :class:`ExamInferer` without networks; joint total variation decides what the stacks leave open.

    The start is the mean of the interpolated stacks, made to agree with them. A guide is a contrast that is known.

    Args:
        weight: of joint total variation, see :func:`~common.stacks.minimise_joint_tv`; 0 for the start alone.
        profile, spacing, region, register: as for :class:`~common.inferers.StacksInferer`.
    """

    at_once = True

    def __init__(
        self,
        weight: float,
        profile: float | str = "auto",
        spacing: float | None = None,
        region: str | os.PathLike | None = None,
        register: bool | str = "auto",
    ) -> None:
        super().__init__(profile=profile, spacing=spacing, region=region, register=register)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"weight is {weight!r}, expected a number of at least 0.")
        self.weight = weight

    def solve_alone(self, start: tuple, guides: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """The volume of a single contrast; ``start`` and guides are for ``reconstruct``."""
        with begin_part(0, 2):
            agreed = reconstruct(*start)
        with begin_part(1, 2):
            return self._minimise([agreed], [(agreed, *start[1:])], guides)[0]

    def reconstruct_jointly(
        self, volumes: Mapping[str, torch.Tensor], starts: Mapping[str, tuple], name: str
    ) -> dict[str, torch.Tensor]:
        """The volumes of all contrasts; the arguments are those of :class:`ExamInferer`."""
        return dict(zip(volumes, self._minimise([*volumes.values()], [*starts.values()]), strict=True))

    def estimate_joint(self, agree: float, linearise: float, apply: float) -> float:
        """Seconds of a contrast in the minimisation, as for :class:`ExamInferer`."""
        return ROUNDS * (1.1 * agree + 7 * apply) * (self.weight > 0)

    def _minimise(
        self, volumes: Sequence[torch.Tensor], starts: Sequence[tuple], guides: Sequence[torch.Tensor] = ()
    ) -> list[torch.Tensor]:
        if self.weight == 0 or not volumes:
            return list(volumes)
        measured = [
            MeasuredContrast(*make_measurements(fitted, volume.shape, grid), variances)
            for volume, grid, fitted, variances in starts
        ]
        voxel = float(np.linalg.norm(starts[0][1][:3, 0]))
        return minimise_joint_tv(volumes, measured, self.weight, voxel, guides)
