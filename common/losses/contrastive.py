"""A loss between features of corresponding places of two images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PatchContrastiveLoss(nn.Module):
    r"""Cross-entropy of finding a query's own place among all places of the same image (Park et al. 2020, eq. 2 to 4).

    .. math:: -\log\frac{\exp(q_s \cdot k_s / \tau)}{\sum_t \exp(q_s \cdot k_t / \tau)}

    for each image, layer and place s, with queries q and keys k of length 1. No gradient passes to the keys. The mean
    over images, layers and places is taken; the paper sums over layers and places.

    Args:
        temperature: tau, above 0.

    Raises:
        ValueError: if the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"PatchContrastiveLoss: temperature is {temperature}, expected a number above 0.")
        self.temperature = temperature

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Features ``(B, layers, places, width)`` of the generated image, and of its input, to a scalar."""
        queries, keys = F.normalize(queries, dim=-1), F.normalize(keys.detach(), dim=-1)
        similarities = queries @ keys.transpose(-1, -2) / self.temperature
        return -similarities.log_softmax(dim=-1).diagonal(dim1=-2, dim2=-1).mean()
