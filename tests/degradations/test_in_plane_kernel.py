"""Kernels in plane against scipy, and what they refuse."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from common.blur_kernels import gaussian_kernel
from common.degradations import InPlaneKernel
from common.networks import KernelSampling


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 5, 13])
def test_it_is_scipys_correlation_sampled(size, factor):
    """Tap by tap, edges included; a kernel without any symmetry tells axes and directions apart."""
    kernel = torch.rand(size, size, dtype=torch.float64)
    hr = torch.rand(2, 12, 18, 3, dtype=torch.float64)
    lr = InPlaneKernel(kernel, factor)(hr)
    for volume, found in zip(hr, lr, strict=True):
        for z in range(3):
            expected = correlate(volume[..., z].numpy(), kernel.numpy(), mode="nearest")[::factor, ::factor]
            np.testing.assert_allclose(found[..., z], expected, atol=1e-12)


def test_it_is_what_the_generator_does_to_the_inside():
    """The kernel that was learned by KernelSampling degrades a volume the same way."""
    kernel, hr = gaussian_kernel((2.0, 1.0), 30), torch.rand(1, 40, 36, 1)
    lr = InPlaneKernel(kernel, 2)(hr)[0, ..., 0]
    sampled = KernelSampling(2)(hr[None, ..., 0], kernel[None])[0, 0]
    torch.testing.assert_close(lr[3 : 3 + len(sampled), 3 : 3 + sampled.shape[1]], sampled)


def test_kernels_that_are_none_are_refused_and_the_given_one_is_copied():
    for shape in ((4, 4), (5, 3), (5,), (1, 5, 5)):
        with pytest.raises(ValueError, match="expected an odd square"):
            InPlaneKernel(torch.ones(shape), 2)
    kernel = gaussian_kernel(1.0, size=5)
    operator = InPlaneKernel(kernel, 2, 0.5)
    kernel.zero_()
    assert operator.kernel.sum().item() == pytest.approx(1)
    assert operator.factors == (2, 2, 1) and operator.offset == (0.5, 0.5, 0.0)
