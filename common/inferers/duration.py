"""How long an inferer will take on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..runtime.progress import measure_time

_SIDE, _SHARE = 32, 6  # least voxels along an axis of the part that is measured, and the part of the axis


def estimate_seconds(
    inferer: Any, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[float, float] | None:
    """Estimate how long an inferer will take for a volume on this machine, by work on the middle of the volume.

    An inferer that does more than to run over the volume has a method of this name, with these arguments. The
    arguments are those of the inferer.

    Returns:
        Seconds, at least and at most; None if that is not known.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # they belong to the volume, not to its middle
        if hasattr(inferer, "estimate_seconds"):
            return inferer.estimate_seconds(inputs, network, *args, **kwargs)
        if getattr(getattr(inferer, "inferer", None), "is_self_trained", False):
            return None
        size = inputs.shape[2:]
        part = [min(n, max(_SIDE, n // _SHARE)) for n in size]
        crop = partial(_crop_middle, size=size, part=part)
        seconds = measure_time(partial(inferer, crop(inputs), network, *map(crop, args), **kwargs))
        return (seconds * size.numel() / torch.Size(part).numel(),) * 2


def _crop_middle(volume: Any, size: torch.Size, part: list[int]) -> Any:
    """The middle of a volume, such as a guide, whose grid is as fine as one of this size, or finer by whole numbers."""
    starts = [(whole - some) // 2 for whole, some in zip(size, part, strict=True)]
    factors = [n // whole for n, whole in zip(volume.shape[2:], size, strict=True)]
    x, y, z = (slice(f * a, f * (a + n)) for f, a, n in zip(factors, starts, part, strict=True))
    return volume[..., x, y, z]
