"""Slabs across each of several axes of a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..progress import part


class AxesInferer(Inferer):
    """Runs an inferer with each of several axes of a volume as the last, and averages the results.

    A slab network sees little along its last axis. Where the factor is the same along every axis, each may be the one
    across the slabs, and the mean of three results has seen every direction in plane.

    Args:
        inferer: runs the network over a volume, slab by slab along the last axis.
        axes: axes (0, 1, 2) of the volume that run across the slabs in turn.
        told: whether the network takes the axis as its second argument.

    Raises:
        ValueError: when ``axes`` are not distinct spatial axes.
    """

    def __init__(self, inferer: Inferer, axes: Sequence[int] = (0, 1, 2), told: bool = False) -> None:
        super().__init__()
        self.axes = tuple(axes)
        if not self.axes or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= {0, 1, 2}:
            raise ValueError(f"AxesInferer: axes must be distinct spatial axes out of 0, 1, 2, got {axes}.")
        self.inferer = inferer
        self.told = told

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve a batch of volumes.

        Args:
            inputs: ``(B, 1, X, Y, Z)``.
            network: as the inferer takes it.
            args: further arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            The mean of the results, as the inferer gives one.
        """
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        total: torch.Tensor | None = None
        for i, axis in enumerate(self.axes):
            order = [0, 1, *(2 + a for a in range(3) if a != axis), 2 + axis]
            inverse = [order.index(i) for i in range(5)]
            told = (axis,) if self.told else ()
            with part(i, len(self.axes)):
                result = self.inferer(volume.permute(order).contiguous(), network, *told, *args, **kwargs)
            result = result.permute(inverse)
            if len(self.axes) == 1:
                return result.contiguous()
            total = result.contiguous() if total is None else total.add_(result)
            del result  # else it would stand beside the next one
        return total.div_(len(self.axes))
