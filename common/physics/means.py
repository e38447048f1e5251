"""Means that are the same to the last bit for any number of threads."""

from __future__ import annotations

import torch


def mean_in_order(values: torch.Tensor) -> torch.Tensor:
    """Mean of all values, added one after the other; torch adds a part in each thread.

    Args:
        values: of any shape.

    Returns:
        Scalar in float64; NaN if there are no values.
    """
    return values.flatten().cumsum(0, dtype=torch.float64)[-1:].sum() / values.numel()
