"""Slices of different brightness, thick or thin, as a fixed network."""

from __future__ import annotations

import torch
from torch import nn

from ..degradations import Degradation
from .interpolation import AxisInterpolation


class SliceGains(nn.Module):
    """Slices that differ in brightness: thick ones, and thin ones that are as smooth as interpolation; no parameters.

    A network that is trained on such pairs does not sharpen what one thick slice alone has.

    Args:
        degradation: that makes slices thick, along the last axis; says where they lie.
        dark: what images have where there is no signal.
    """

    def __init__(self, degradation: Degradation, dark: float = -1.0) -> None:
        super().__init__()
        self.factor, self.dark = degradation.factors[2], dark
        self.interpolation = AxisInterpolation(self.factor, degradation.offset[2])

    def forward(self, images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        """Multiply each slice by its gain, thin slices by the gains of thick ones, interpolated.

        Args:
            images: ``(B, 1, p, w)`` or ``(B, 1, p, factor w)``.
            gains: of the thick slices, ``(B, 1, 1, w)``, about 1.

        Returns:
            Images of the same shape.

        Raises:
            ValueError: when the images have neither as many slices as there are gains, nor ``factor`` times as many.
        """
        thick, slices = gains.shape[-1], images.shape[-1]
        if slices == self.factor * thick:
            gains = self.interpolation(gains)
        elif slices != thick:
            raise ValueError(
                f"Images of {slices} slices and gains of {thick}: expected {thick} slices, or {self.factor} times that."
            )
        return images * gains + self.dark * (1 - gains)
