"""Any kernel in plane, with sampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Degradation


class InPlaneKernel(Degradation):
    r"""Convolve each slice with a kernel and keep every ``factor``-th pixel along both of its axes.

    .. math:: (A x)_{ij} = \sum_{d, e} k_{de}\, x_{\,f i + d - K // 2,\; f j + e - K // 2}

    The slices are along the third axis. Beyond the edges of a slice, its outermost pixels are repeated.

    Args:
        kernel: ``(K, K)``, K odd, with sum 1.
        factor: HR pixels per LR pixel, along both axes.
        offset: of the kernel's centre from its middle, in HR pixels, the same along both axes.

    Raises:
        ValueError: when the kernel is not square with an odd edge.

    Example:
        >>> import torch
        >>> from common.degradations import InPlaneKernel
        >>> from common.physics.blur_kernels import gaussian_kernel
        >>> InPlaneKernel(gaussian_kernel((2.0, 1.0), angle=30), factor=2)(torch.rand(1, 32, 32, 5)).shape
        torch.Size([1, 16, 16, 5])

    References:
        Huang et al., MRI Super-Resolution via Realistic Downsampling with Adversarial Learning, PMB 2021.
    """

    def __init__(self, kernel: Tensor, factor: int, offset: float = 0.0) -> None:
        super().__init__((factor, factor, 1), (offset, offset, 0.0))
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) % 2 == 0:
            raise ValueError(f"InPlaneKernel: the kernel has the shape {tuple(kernel.shape)}, expected an odd square.")
        self.register_buffer("kernel", kernel.clone(), persistent=False)
        self.kernel: Tensor

    def _degrade(self, hr: Tensor) -> Tensor:
        margin = len(self.kernel) // 2
        slices = hr.movedim(-1, 0)
        images = slices.reshape(-1, 1, *hr.shape[-3:-1])
        images = F.pad(images, (margin,) * 4, mode="replicate")
        images = F.conv2d(images, self.kernel.to(hr)[None, None], stride=self.factors[0])
        return images.reshape(*slices.shape[:-2], *images.shape[-2:]).movedim(0, -1)

    def _adjoint(self, lr: Tensor) -> Tensor:
        # The transpose of a linear operator is its gradient, edges included.
        with torch.enable_grad():
            hr = lr.new_zeros(*lr.shape[:-3], *self.hr_size(lr.shape[-3:])).requires_grad_()
            return torch.autograd.grad(self._degrade(hr), hr, lr, create_graph=lr.requires_grad)[0]
