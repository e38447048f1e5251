"""Super-resolution by networks that work on interpolated volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation, interpolated


class InterpolatedInferer(Inferer):
    """Interpolates a volume onto the HR grid by a cubic spline, and runs an inferer there.

    Args:
        inferer: runs the network over a volume, whose size it keeps.
        degradation: from HR to the volume; its factors need not be whole.
    """

    def __init__(self, inferer: Inferer, degradation: Degradation) -> None:
        super().__init__()
        self.inferer, self.degradation = inferer, degradation

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, X, Y, Z)`` to ``(B, 1, *hr)``, with the voxels that ``degradation.hr_size`` gives."""
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        return self.inferer(interpolated(volume, self.degradation).contiguous(), network, *args, **kwargs)
