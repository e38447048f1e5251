"""Means that are the same to the last bit for any number of threads."""

from __future__ import annotations

import torch


def compute_mean_in_order(values: torch.Tensor) -> torch.Tensor:
    """Mean of all values in float64, added one after the other (torch adds a part in each thread); NaN if none."""
    return values.flatten().cumsum(0, dtype=torch.float64)[-1:].sum() / values.numel()
