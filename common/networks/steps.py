"""Small modules around networks: steps of a graph, and changes of their input."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..degradations.base import Degradation
from .slab import channels_to_slab, slab_to_channels


class SignedRange(nn.Module):
    """Apply a network for images in [-1, 1] to images in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.sizes = network, getattr(network, "sizes", {})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """An image in [0, 1] to the network's result, scaled to [0, 1]."""
        return (self.network(2 * image - 1) + 1) / 2


class ImageNetwork(nn.Module):
    """Apply a network from slabs ``(B, 1, H, W, 1)`` to slabs of one slice to 2-D images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.sizes = network, getattr(network, "sizes", {})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to an image."""
        return self.network(image.unsqueeze(-1)).squeeze(-1)


class SelfAntiAliasing(nn.Module):
    """Two networks for interpolated images, one after the other: the first removes aliasing, the second blur.

    Both keep the size of an image ``(B, 1, H, W)``. :class:`~common.inferers.AntiAliasingInferer` applies them to
    different planes of a volume.

    Args:
        network: the second, ``super_resolution``. The first, ``anti_aliasing``, is a copy that learns for itself.
        enabled: whether there is a first network; else ``anti_aliasing`` changes nothing.

    Source:
        Zhao et al. 2021, section II.
    """

    def __init__(self, network: nn.Module, enabled: bool = True) -> None:
        super().__init__()
        self.is_enabled = enabled
        self.super_resolution = network
        self.anti_aliasing = copy.deepcopy(network) if self.is_enabled else nn.Identity()
        self.sizes = {**getattr(network, "sizes", {}), "self_anti_aliasing": self.is_enabled}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to an image."""
        return self.super_resolution(self.anti_aliasing(image))


class Concatenate(nn.Module):
    """Concatenate tensors along the channels, as a step of a graph."""

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Tensors ``(B, C_i, ...)`` to ``(B, sum of C_i, ...)``."""
        return torch.cat(tensors, dim=1)


class FixedKernel(nn.Module):
    """A fixed kernel ``(K, K)``, as a step of a graph."""

    def __init__(self, kernel: torch.Tensor) -> None:
        super().__init__()
        self.kernel = nn.Buffer(kernel.float()[None], persistent=False)

    def forward(self) -> torch.Tensor:
        """``(1, K, K)``."""
        return self.kernel


class GradientReversal(nn.Module):
    """The identity with a negated gradient (Ganin and Lempitsky 2015).

    In Huang et al. 2021, eq. 2, one player's networks minimise a loss that another's maximise. This module serves both
    in one forward and one backward pass: networks after it minimise the loss, networks before it maximise it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Reversal.apply(x)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


class GeometricEnsemble(nn.Module):
    """The mean of a network's results for the eight forms of a slab, each transformed back.

    The forms are the mirror images in plane of the slab and of its transpose in plane. The network must keep the size.
    Source: the geometric ensemble loss of Maeda 2020.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W, Z)`` to the same size; H and W are equal."""
        forms = [turned.flip(axes) for turned in (slab, slab.transpose(2, 3)) for axes in ([], [2], [3], [2, 3])]
        results = self.network(torch.cat(forms)).chunk(len(forms))
        undone = [result.flip(axes) for result, axes in zip(results, 2 * [[], [2], [3], [2, 3]], strict=True)]
        undone = undone[:4] + [result.transpose(2, 3) for result in undone[4:]]
        return torch.stack(undone).mean(dim=0)


class SampleAtLRVoxels(nn.Module):
    """Sample an HR slab at the centres of the LR voxels of a degradation, by linear interpolation only."""

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

    Until the pool of ``size`` images is full, it stores every image and returns it. Then a random half of the images is
    exchanged for images from the pool.
    """

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.images: torch.Tensor | None = None
        self.taken = torch.tensor(0)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map a batch ``(B, ...)``, at most as large as the pool, to one of the same size, without gradient."""
        count = len(images)
        if count > self.size:
            raise ValueError(f"ImagePool: a batch has {count} images, more than the pool of {self.size}; set its size.")
        if self.images is None:
            self.images = images.new_zeros(self.size, *images.shape[1:])
        self.images, self.taken = self.images.to(images), self.taken.to(images.device)
        # All is decided by tensors, so that no GPU is waited for.
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


class HighBands(nn.Module):
    """The three high bands of an orthonormal Haar transform in plane (Wei et al. 2021).

    Example:
        >>> HighBands()(torch.rand(2, 1, 8, 12, 3)).shape
        torch.Size([2, 9, 4, 6])
    """

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """A slab ``(B, 1, H, W, Z)``, H and W even, to ``(B, 3 Z, H / 2, W / 2)``: horizontal, vertical, diagonal."""
        image = slab_to_channels(slab)
        a, b = image[..., ::2, ::2], image[..., ::2, 1::2]
        c, d = image[..., 1::2, ::2], image[..., 1::2, 1::2]
        return torch.cat([a + c - b - d, a + b - c - d, a + d - b - c], dim=1) / 2


class DomainDistance(nn.Module):
    """Weights of HR pixels, from a discriminator's verdicts on small patches of the generated LR image.

    Verdicts are logits for "from the target". Their probabilities are repeated up to the border of the image, which
    patches do not reach. Then they are interpolated onto the HR grid (Wei et al. 2021). No gradient passes.

    Args:
        degradation: from HR to LR, with one factor in plane.
    """

    def __init__(self, degradation: Degradation) -> None:
        super().__init__()
        self.factor = degradation.factors[0]

    def forward(self, verdicts: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        """Verdicts ``(B, 1, H', W')`` on a slab ``(B, 1, H, W, Z)`` to weights ``(B, 1, factor H, factor W, 1)``."""
        weights = verdicts.detach().float().sigmoid()
        rows, columns = ((n - m) // 2 for n, m in zip(lr.shape[2:4], weights.shape[2:], strict=True))
        weights = F.pad(weights, (columns, columns, rows, rows), mode="replicate")
        weights = F.interpolate(weights, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return channels_to_slab(weights)
