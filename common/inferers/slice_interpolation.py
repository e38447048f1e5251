"""Thin slices by repeatedly halving the distance between slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation
from ..networks.slab import batch_to_slices, slices_to_batch
from ..physics.spline import apply_along, spline_matrix
from ..runtime.progress import part
from .pieces import over_pieces


class BetweenInferer(Inferer):
    """Inserts slices half-way between neighbours until they are half a thin slice apart, and selects the thin slices.

    Thin slices are not at the positions of thick ones: for a factor of 2, they are at -1/4 and 1/4 of the distance. So
    the distance is halved once more than their number needs. If the factor is not a power of 2, a cubic spline samples
    the thin slices. The outermost slices are repeated outwards. The network maps two images ``(b, 2, X, Y)`` to the one
    between them, ``(b, 1, X, Y)``.

    Args:
        degradation: from HR to LR, along the last axis only; gives the positions of thin slices.
        batch: pairs of slices at once; None for 16 on a GPU, and 1 elsewhere.
    """

    def __init__(self, degradation: Degradation, batch: int | None = None) -> None:
        super().__init__()
        self.factor, self.offset = degradation.factors[2], degradation.offset[2]
        self.halvings = math.ceil(math.log2(self.factor)) + 1
        self.batch = batch

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, X, Y, Z)`` to ``(B, 1, X, Y, factor Z)``, float32."""
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        count = round(volume.shape[-1] * self.factor)
        volume = torch.cat([volume[..., :1], volume, volume[..., -1:]], dim=-1)
        for i in range(self.halvings):
            with part(i, self.halvings, growth=2):
                volume = self._halved(volume, network, args, kwargs)
        places = ((np.arange(count) - self.offset) / self.factor + 1) * 2**self.halvings
        if np.array_equal(places, places.round()):
            return volume[..., torch.from_numpy(places.astype(int))]
        return apply_along(volume, [torch.from_numpy(spline_matrix(volume.shape[-1], places))])

    def _halved(self, volume: torch.Tensor, network: Callable[..., Any], args: Any, kwargs: Any) -> torch.Tensor:
        sides = torch.cat([volume[..., :-1], volume[..., 1:]], dim=1)
        pairs = slices_to_batch(sides)
        batch = self.batch or (16 if pairs.is_cuda else 1)
        between = torch.cat([*over_pieces(network, pairs.split(batch), *args, **kwargs)])
        woven = torch.stack([volume[..., :-1].float(), batch_to_slices(between, volume.shape[0])], dim=-1).flatten(-2)
        return torch.cat([woven, volume[..., -1:].float()], dim=-1)
