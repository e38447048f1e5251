"""Check a network's result against the scan."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation
from ..metrics.data_consistency import disagreement


class CheckedInferer(Inferer):
    """Warns if a result disagrees with its scan more than results did in validation.

    Detail that a network adds cannot be checked, but the degraded result must agree with the scan. If it does not, the
    scan is unlike the training scans, and the result may be worse than interpolation.

    Args:
        inferer: gives the result, which is returned unchanged.
        degradations: linear operators from the result to the scan; the one that agrees best is used.
        highest: highest value of :func:`common.metrics.disagreement` in validation, with a margin; None checks nothing.
    """

    def __init__(self, inferer: Inferer, degradations: Sequence[Degradation], highest: float | None) -> None:
        super().__init__()
        self.inferer = inferer
        self.degradations = list(degradations)
        self.highest = highest

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the inferer on ``(B, 1, X, Y, Z)``, normalised so that 0 is no signal, and check its result."""
        sr = self.inferer(inputs, network, *args, **kwargs)
        if self.highest is not None:
            lr = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
            found = disagreement(sr, lr, self.degradations)
            if not found <= self.highest:  # NaN agrees with nothing
                missed = (
                    "its result cannot be compared with the scan, because one of them has no signal or voxels that "
                    "are not finite"
                    if math.isnan(found)
                    else f"degraded again, its result differs from the scan by {found:.1%} of the brightness of "
                    f"tissue, in validation by at most {self.highest:.1%}"
                )
                warnings.warn(
                    f"the network contradicts the scan; {missed}. Cubic interpolation may be nearer to the truth: "
                    "compare the two.",
                    stacklevel=2,
                )
        return sr
