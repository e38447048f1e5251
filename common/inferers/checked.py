"""A network's results held against the scan."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation
from ..metrics.agreement import disagreement


class CheckedInferer(Inferer):
    """Warns of a scan whose result disagrees with it more than results did in validation.

    What a network adds beyond the scan nobody can check; that it leaves standing what the scan says, anybody can.
    A network that does not, works on something that it was not trained for, and may be worse than interpolation.

    Args:
        inferer: gives the result, which is returned as it is.
        degradations: linear operators from the result to the scan, of which that counts which agrees best.
        highest: of :func:`common.metrics.disagreement` in validation, with a margin; None checks nothing.
    """

    def __init__(self, inferer: Inferer, degradations: Sequence[Degradation], highest: float | None) -> None:
        super().__init__()
        self.inferer = inferer
        self.degradations = list(degradations)
        self.highest = highest

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the inferer, of ``(B, 1, X, Y, Z)``, normalised so that 0 is no signal."""
        sr = self.inferer(inputs, network, *args, **kwargs)
        if self.highest is not None:
            lr = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
            found = disagreement(sr, lr, self.degradations)
            if not found <= self.highest:  # NaN agrees with nothing
                missed = (
                    "what it made cannot be compared with the scan, because one of them has no signal or voxels that "
                    "are not finite"
                    if math.isnan(found)
                    else f"degraded again, what it made differs from the scan by {found:.1%} of the brightness of "
                    f"tissue, in validation by at most {self.highest:.1%}"
                )
                warnings.warn(
                    f"the network contradicts the scan; {missed}. Cubic interpolation may be nearer to the truth: "
                    "compare the two.",
                    stacklevel=2,
                )
        return sr
