"""Many deep linear generators and patch discriminators at once: one pair per degradation kernel.

A small network learns each kernel. One network at a time would leave a CPU, and even more a GPU, mostly idle. Here the
parameters of all networks are stacked along a first axis, and every operation acts on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

SOBEL_X = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


class KernelGenerator(nn.Module):
    """Deep linear networks, each equal to a convolution with one small kernel (Huang et al. 2021, fig. 2b).

    Layers without bias and activation, the last with a stride, equal one strided convolution with the composed kernel.
    So only this kernel is computed, and :class:`KernelSampling` applies it. With the paper's layers, a patch of 64x64
    needs 0.1 million multiply-adds instead of 431 million. The gradients of the layers are the same.

    The buffer ``average`` keeps a moving average of each kernel over the last iterations of training, because
    adversarial training does not converge to a fixed point.

    Args:
        kernels: number of networks.
        features: channels of every layer except the last.
        sizes: edges of the layers' kernels, odd.

    Attributes:
        memory: length of the moving average in iterations.
    """

    memory = 200

    def __init__(self, kernels: int, features: int = 64, sizes: Sequence[int] = (7, 5, 3, 1, 1, 1)) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.size = sum(sizes) - len(sizes) + 1
        widths = [1, *[features] * (len(sizes) - 1), 1]
        self.layers = nn.ParameterList(
            torch.empty(kernels, out, inputs, k, k)
            for inputs, out, k in zip(widths[:-1], widths[1:], sizes, strict=True)
        )
        for layer in self.layers:
            for weight in layer.data:
                nn.init.xavier_normal_(weight, gain=0.1)  # as the code of Bell-Kligler et al. 2019
        self.average = nn.Buffer(torch.zeros(kernels, self.size, self.size))
        self.seen = nn.Buffer(torch.zeros(kernels, 1, 1))

    def forward(self) -> torch.Tensor:
        """The composed kernels ``(kernels, K, K)``, K = 13 for the sizes of the paper."""
        kernels = self._compose_kernels()
        if self.training:
            # The plain mean until `memory` iterations are done.
            self.seen.add_(1)
            self.average.lerp_(kernels.detach(), 1 / self.seen.clamp(max=self.memory))
        return kernels

    def _compose_kernels(self) -> torch.Tensor:
        # From the last layer, which has one channel, to the first. This avoids the widest products.
        kernels = self.layers[-1][:, 0]
        for layer in list(self.layers)[-2::-1]:
            count, out, inputs, k, _ = layer.shape
            taps = kernels.shape[-1]
            products = kernels.reshape(count, out, taps**2).mT @ layer.reshape(count, out, inputs * k**2)
            # Tap a of the later layers and tap b of this one meet at a + b.
            kernels = _PatchSum.apply(products.mT, taps + k - 1, k)
        return kernels[:, 0]


def _extract_patches(images: torch.Tensor, size: int) -> torch.Tensor:
    """``F.unfold`` of images ``(n, c, H, W)`` to ``(n, c, size^2, -1)``; torch's takes one image at a time on CUDA."""
    windows = images.unfold(2, size, 1).unfold(3, size, 1).movedim((4, 5), (2, 3))
    return windows.reshape(*images.shape[:2], size**2, -1)


class _Patches(torch.autograd.Function):
    """:func:`_extract_patches`, differentiable by ``F.fold``."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, size: int) -> torch.Tensor:
        ctx.shape, ctx.size = images.shape, size
        return _extract_patches(images, size)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        _, _, height, width = ctx.shape
        return F.fold(gradient.flatten(0, 1), (height, width), ctx.size).reshape(ctx.shape), None


class _PatchSum(torch.autograd.Function):
    """The adjoint of :class:`_Patches`, differentiable: ``F.fold``, whose own backward is ``F.unfold``."""

    @staticmethod
    def forward(ctx: Any, patches: torch.Tensor, edge: int, size: int) -> torch.Tensor:
        ctx.size = size
        return F.fold(patches, (edge, edge), size)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _extract_patches(gradient, ctx.size).flatten(1, 2), None, None


class KernelSampling(nn.Module):
    """Convolve patches with their kernels and keep every ``factor``-th pixel; no parameters.

    ``lr[i] = sum_d k[d] hr[factor i + d]``, where the whole kernel lies on the patch. With a kernel of 13x13 and a
    factor of 2, 64x64 pixels give 26x26.

    Args:
        factor: HR pixels per LR pixel.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, hr: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Sample patches.

        Args:
            hr: ``(kernels, crops, H, W)``, or slices ``(kernels, 1, H, W, 1)``.
            kernels: ``(kernels, K, K)``, or ``(1, K, K)`` for one kernel for all patches.

        Returns:
            ``(kernels, crops, h, w)``, or ``(kernels, 1, h, w, 1)``; h = (H - K) // factor + 1.
        """
        if hr.ndim == 5:
            return self(hr[..., 0], kernels)[..., None]
        with torch.autocast(hr.device.type, enabled=False):
            return _Sampling.apply(hr.float(), kernels.float().expand(len(hr), -1, -1), self.factor)


class _Sampling(torch.autograd.Function):
    """Strided convolution with one kernel per image, differentiable in the kernels.

    torch differentiates a grouped strided convolution slowly on the CPU. The gradient of the kernels is the convolution
    of the images with the output's gradient, dilated by ``factor``. HR patches are data and get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, hr: torch.Tensor, kernels: torch.Tensor, factor: int) -> torch.Tensor:
        ctx.save_for_backward(hr)
        ctx.factor, ctx.size = factor, kernels.shape[-1]
        return F.conv2d(hr.transpose(0, 1), kernels[:, None], stride=factor, groups=len(hr)).transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        (hr,) = ctx.saved_tensors
        count, crops, height, width = hr.shape
        images = hr.reshape(1, count * crops, height, width)
        weights = gradient.reshape(count * crops, 1, *gradient.shape[2:])
        taps = F.conv2d(images, weights, dilation=ctx.factor, groups=count * crops)
        return None, taps.reshape(count, crops, *taps.shape[2:]).sum(1)[:, : ctx.size, : ctx.size], None


class KernelDiscriminator(nn.Module):
    """Discriminators of 7x7 patches of an LR image and its edge maps (Huang et al. 2021, fig. 2c and eq. 1).

    Each is a wide convolution and 1x1 convolutions with spectral norm (Miyato et al. 2018), batch norm and ReLU
    between them, and a sigmoid. The first layer reads the image and its two Sobel maps. These are linear in the image,
    so they are composed with the first layer: 81 taps on one channel instead of 147 on three. Batch norm uses the
    statistics of one crop, as a batch of one does. So brightness and contrast do not reveal what is real.

    Args:
        kernels: number of discriminators.
        features: channels of the hidden layers.
        layers: number of convolutions after the first; the last one gives the verdict.
        size: edge of the first convolution in pixels.
        detail: whether the image is judged without its 3x3 mean. Degradations differ in detail. If HR and LR images are
            of different subjects, the rest is what subjects differ in. False in the paper.
        batch_norm: as in the code of Bell-Kligler et al. 2019; if False, biases only. Huang et al. 2021 name none.
    """

    def __init__(
        self,
        kernels: int,
        features: int = 64,
        layers: int = 6,
        size: int = 7,
        detail: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.size = size
        self.detail = detail
        shapes = {"first": (kernels, features, 3 * size**2)}
        # Not four-dimensional, because such weights are stored in the channels-last layout.
        shapes["hidden"] = ((layers - 1) * kernels, features, features)
        shapes["last"] = (kernels, 1, features)
        for name, shape in shapes.items():
            weight = torch.randn(shape) * (2 / (shape[-1] + shape[-2])) ** 0.5
            self.register_parameter(name, nn.Parameter(weight))
            self.register_buffer(f"{name}_u", F.normalize(torch.randn(*shape[:-1], 1), dim=-2))
        self.bias = nn.Parameter(torch.zeros(kernels, 1, 1))
        self.norm_weight = nn.Parameter(torch.ones(layers, kernels * features)) if batch_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(layers, kernels * features))
        self.triplet = nn.Buffer(_make_triplet_kernel(size), persistent=False)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """Images ``(kernels, crops, h, w)`` to verdicts ``(kernels, crops, h - size - 1, w - size - 1)`` in [0, 1]."""
        kernels, crops, height, width = lr.shape
        edge = self.size + 2
        if min(height, width) <= edge:
            raise ValueError(
                f"KernelDiscriminator: LR crops have {height}x{width} pixels, expected at least {edge + 1}x{edge + 1} "
                f"to judge patches of {self.size}x{self.size} with their edge maps; use a larger crop."
            )
        if self.detail:
            lr = lr - F.avg_pool2d(F.pad(lr, (1, 1, 1, 1), mode="replicate"), 3, 1)
        first, hidden, last = (
            self._normalise_weight("first") @ self.triplet,
            self._normalise_weight("hidden"),
            self._normalise_weight("last"),
        )
        x = first @ _Patches.apply(lr, edge).transpose(1, 2).reshape(kernels, edge**2, -1)
        for i, weight in enumerate([*hidden.unflatten(0, (-1, kernels)), last]):
            if self.norm_weight is None:
                normed = x + self.norm_bias[i].reshape(kernels, -1, 1)
            else:
                # Each channel of each crop is one group.
                groups = kernels * x.shape[1] * crops
                gain, bias = (p[i].repeat_interleave(crops) for p in (self.norm_weight, self.norm_bias))
                normed = F.group_norm(x.reshape(1, groups, -1), groups, gain, bias)
            x = weight @ F.relu(normed, inplace=True).reshape(x.shape)
        verdict = torch.sigmoid(x + self.bias)
        return verdict.reshape(kernels, crops, height - edge + 1, width - edge + 1)

    def _normalise_weight(self, name: str) -> torch.Tensor:
        """A stack of layers divided by their largest singular values; each pass in training refines these."""
        weight, vector = getattr(self, name), getattr(self, f"{name}_u")
        u = vector
        with torch.no_grad():
            v = F.normalize(weight.mT @ u, dim=-2)
            if self.training:
                u = F.normalize(weight @ v, dim=-2)
                vector.copy_(u)
        return weight * (u.mT @ (weight @ v)).reciprocal()


def _make_triplet_kernel(size: int) -> torch.Tensor:
    """From taps on the image and its Sobel maps, ``3 size^2``, to taps on the image, ``(size + 2)^2``; eq. 1."""
    sobel = torch.tensor(SOBEL_X)
    maps = torch.zeros(3, 3, 3)
    maps[0, 1, 1], maps[1], maps[2] = 1.0, sobel, sobel.T
    taps = torch.zeros(3, size, size, size + 2, size + 2)
    for row in range(size):
        for column in range(size):
            taps[:, row, column, row : row + 3, column : column + 3] = maps
    return taps.reshape(3 * size**2, -1)
