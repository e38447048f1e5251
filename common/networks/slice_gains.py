"""Thick or thin slices of different brightness, as a fixed network."""

from __future__ import annotations

import torch
from torch import nn

from ..degradations import Degradation
from .interpolation import AxisInterpolation


class SliceGains(nn.Module):
    """Change the brightness of thick slices, and of thin slices by interpolated gains; no parameters.

    A network that is trained on such pairs does not sharpen features of a single thick slice.

    Args:
        degradation: from thin to thick slices, along the last axis; it gives their positions.
        dark: value of images where there is no signal.
    """

    def __init__(self, degradation: Degradation, dark: float = -1.0) -> None:
        super().__init__()
        self.factor, self.dark = degradation.factors[2], dark
        self.interpolation = AxisInterpolation(self.factor, degradation.offset[2])

    def forward(self, images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        """Multiply each slice by its gain; the gains of thin slices are interpolated from those of thick slices.

        Args:
            images: ``(B, 1, p, w)`` or ``(B, 1, p, factor w)``.
            gains: of the thick slices, ``(B, 1, 1, w)``, near 1.

        Returns:
            Images of the same shape.

        Raises:
            ValueError: if the number of slices is neither the number of gains nor ``factor`` times that.
        """
        thick, slices = gains.shape[-1], images.shape[-1]
        if slices == self.factor * thick:
            gains = self.interpolation(gains)
        elif slices != thick:
            raise ValueError(
                f"images have {slices} slices, expected {thick} slices, one per gain, or {self.factor} times that."
            )
        return images * gains + self.dark * (1 - gains)
