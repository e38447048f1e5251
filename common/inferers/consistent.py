"""Results that agree with the scan that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation
from .cascade import back_project


class ConsistentInferer(Inferer):
    r"""Corrects a result until, degraded again, it is the scan, and nowhere negative.

    Projections onto the two sets in turn: what the scanner measured, by :func:`back_project`, and images that are
    magnitudes. With k-space truncation the first puts the measured part of k-space back as it was (half-way each time
    at the Nyquist frequency of even sizes), so that all that a network has added lies beyond it.

    Args:
        inferer: gives the result to correct.
        degradation: the linear operator from the result to the scan.
        iterations: of the two projections, the last being the one onto magnitudes.

    Raises:
        TypeError: when the degradation is not linear.

    Source:
        Youla and Webb, Image restoration by the method of convex projections, IEEE TMI 1(2), 1982.
    """

    def __init__(self, inferer: Inferer, degradation: Degradation, iterations: int = 8) -> None:
        super().__init__()
        if not degradation.linear:
            raise TypeError(
                "ConsistentInferer needs a linear degradation, for its adjoint. Give the linear part, which says what "
                f"of the object the scan holds: {degradation._why_not_linear()}"
            )
        self.inferer = inferer
        self.degradation = degradation
        self.iterations = iterations

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve a batch of volumes.

        Args:
            inputs: ``(B, 1, X, Y, Z)``, normalised so that 0 is no signal.
            network: as the inferer takes it.
            args: further arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            The corrected result, as large as the inferer's, nowhere negative.
        """
        lr = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        sr = self.inferer(lr, network, *args, **kwargs)
        degradation = self.degradation.to(lr.device)
        for _ in range(self.iterations):
            sr = back_project(sr, lr, degradation, 1).clamp_min(0)
        return sr
