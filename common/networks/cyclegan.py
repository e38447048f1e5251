"""Parts of CycleGAN besides generators and discriminators, for two domains with different grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..degradations import Degradation


class AtVoxels(nn.Module):
    """Sample an HR slab at the centres of LR voxels, by linear interpolation only.

    Args:
        degradation: from HR to LR. It gives the whole factors and the positions of LR voxels.
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
    """A pool of earlier images, which a discriminator sees mixed with the new ones (Zhu et al. 2017, section 4).

    Until the pool is full, it stores every image and returns it. Then a random half of the images is exchanged for
    images from the pool.

    Args:
        size: number of images in the pool; at least the batch size.
    """

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.images: torch.Tensor | None = None
        self.taken = torch.tensor(0)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map a batch ``(B, ...)`` to one of the same size, without gradient.

        Raises:
            ValueError: if the batch is larger than the pool.
        """
        count = len(images)
        if count > self.size:
            raise ValueError(f"ImagePool: a batch has {count} images, more than the pool of {self.size}; set its size.")
        if self.images is None:
            self.images = images.new_zeros(self.size, *images.shape[1:])
        self.images, self.taken = self.images.to(images), self.taken.to(images.device)
        # All is decided by tensors, because Python does not run in an iteration that is recorded as a CUDA graph.
        filling = self.taken < self.size
        next_places = (self.taken + torch.arange(count, device=images.device)) % self.size
        places = torch.where(filling, next_places, torch.randperm(self.size, device=images.device)[:count])
        exchanged = (torch.rand(count, device=images.device) < 0.5).view(-1, *[1] * (images.ndim - 1))
        before = self.images[places]
        self.images[places] = torch.where(filling | exchanged, images, before)
        self.taken.add_(count).clamp_(max=self.size)
        return torch.where(filling | ~exchanged, images, before)

    def get_extra_state(self) -> dict[str, Any]:
        """The images, and how many were stored."""
        return {"images": None if self.images is None else self.images.clone(), "taken": int(self.taken)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.images, self.taken = state["images"], torch.tensor(state["taken"])
