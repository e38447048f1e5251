"""Standard deviations by medians, and weights of points by their residuals."""

from __future__ import annotations

import torch

#: Standard deviation of normal noise over the median of its absolute values.
SIGMA_PER_MAD = 1.4826
_OUTLYING = 3.0  # standard deviations of the residual; above, a point counts less


def estimate_sigma(residuals: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Standard deviation ``(..., 1)`` of residuals ``(..., N)`` by the median of those that count; 1 if none does.

    Args:
        residuals: of points.
        counts: how much each point counts; only more than half does.
    """
    known = torch.where(counts > 0.5, residuals.abs(), torch.nan)
    return (SIGMA_PER_MAD * known.nanmedian(dim=-1, keepdim=True).values).nan_to_num(1.0).clamp_min(1e-9)


def weigh_by_residual(counts: torch.Tensor, residuals: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """How much points count whose residuals have a standard deviation: at three of them half as much as before."""
    return counts / (1 + (residuals / (_OUTLYING * sigma)).square())
