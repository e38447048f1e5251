"""What CycleGAN needs besides generators and discriminators, where its two domains have different grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..degradations import Degradation


class AtVoxels(nn.Module):
    """An HR slab at the centres of LR voxels: by linear interpolation, which is all that is done to it.

    Args:
        degradation: from HR to LR: whole factors, and where LR voxels lie.
    """

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.axes = [(int(f), float(o)) for f, o in zip(degradation.factors, degradation.offset, strict=True)]

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """``(B, 1, sH, sW, sZ)`` to ``(B, 1, H, W, Z)``."""
        for axis, (factor, offset) in enumerate(self.axes, start=2):
            first, share = int(offset), offset % 1
            voxels = slab.unflatten(axis, (-1, factor))
            slab = voxels.select(axis + 1, first)
            if share:
                slab = torch.lerp(slab, voxels.select(axis + 1, first + 1), share)
        return slab


class ImagePool(nn.Module):
    """Images that were made before, with which a discriminator is shown those of now (Zhu et al. 2017, section 4).

    Until the pool is full it takes in every image, and gives it back. Then half of the images, at random, are exchanged
    for one from the pool.

    Args:
        size: of the pool, in images; at least that of a batch.
    """

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.images: torch.Tensor | None = None
        self.taken = 0

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """A batch ``(B, ...)`` to one of the same size, without gradient.

        Raises:
            ValueError: when the batch is larger than the pool.
        """
        count = len(images)
        if count > self.size:
            raise ValueError(f"ImagePool: a batch has {count} images, more than the pool of {self.size}; set its size.")
        if self.images is None:
            self.images = images.new_zeros(self.size, *images.shape[1:])
        self.images = self.images.to(images)
        if self.taken < self.size:
            places = torch.arange(self.taken, self.taken + count, device=images.device) % self.size
            self.images[places] = images
            self.taken += count
            return images
        places = torch.randperm(self.size, device=images.device)[:count]
        exchanged = (torch.rand(count, device=images.device) < 0.5).view(-1, *[1] * (images.ndim - 1))
        before = self.images[places]
        self.images[places] = torch.where(exchanged, images, before)
        return torch.where(exchanged, before, images)

    def get_extra_state(self) -> dict[str, Any]:
        """The images, and how many were taken in."""
        return {"images": None if self.images is None else self.images.clone(), "taken": self.taken}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.images, self.taken = state["images"], state["taken"]
