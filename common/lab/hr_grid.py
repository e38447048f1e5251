"""Run inferers of whole exams on one scan, where others give volumes on the grid of HR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations.base import Degradation
from ..inferers.multi_stack import get_affine
from ..transforms.load_stacks import resample_to_grid


class HRGridInferer(Inferer):
    """Resamples the result of a :class:`~common.inferers.StacksInferer` from its cubes to the grid of HR.

    Args:
        inferer: gives a volume with its affine for one scan.
        degradation: from HR to the scan.
    """

    def __init__(self, inferer: Inferer, degradation: Degradation) -> None:
        super().__init__()
        self.inferer, self.degradation = inferer, degradation

    def __call__(self, inputs: Any, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve one scan ``(1, 1, X, Y, Z)`` with its affine; ``(1, 1, X', Y', Z')`` on the grid of HR."""
        result: Any = self.inferer(inputs, network, *args, **kwargs)
        volume = MetaTensor(result.as_tensor()[0], affine=torch.as_tensor(get_affine(result)))
        size = self.degradation.compute_hr_size(inputs.shape[2:])
        affine = self.degradation.compute_hr_affine(get_affine(inputs))
        return resample_to_grid(volume, size, affine, "HR").as_tensor()[None]
