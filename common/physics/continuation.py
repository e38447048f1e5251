"""How volumes go on beyond their field of view."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def append_ramp(volume: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Append voxels along each axis that lead linearly from its end to its beginning.

    Args:
        volume: ``(B, C, X, Y, Z)``.
        lengths: voxels to append along X, Y and Z.

    Returns:
        A copy, ``(B, C, X + lengths[0], Y + lengths[1], Z + lengths[2])``.
    """
    volume = volume.clone()
    for axis, length in enumerate(lengths, start=2):
        if length:
            end, beginning = volume.narrow(axis, -1, 1), volume.narrow(axis, 0, 1)
            way = torch.arange(1, length + 1, dtype=volume.dtype, device=volume.device) / (length + 1)
            way = way.reshape([-1 if other == axis else 1 for other in range(volume.ndim)])
            volume = torch.cat([volume, torch.lerp(end, beginning, way)], dim=axis)
    return volume
