"""Kernels in plane against scipy, and what they refuse."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from common.degradations import InPlaneKernel
from common.physics.blur_kernels import gaussian_kernel
from tests.refused import refused


@pytest.mark.parametrize(("size", "factor"), [(1, 2), (5, 1), (5, 3), (13, 2)])
def test_it_is_scipys_correlation_sampled(size, factor):
    """Tap by tap, edges included; a kernel without any symmetry tells axes and directions apart."""
    kernel, hr = torch.rand(size, size, dtype=torch.float64), torch.rand(2, 12, 18, 3, dtype=torch.float64)
    expected = correlate(hr.numpy(), kernel.numpy()[None, ..., None], mode="nearest")[:, ::factor, ::factor]
    np.testing.assert_allclose(InPlaneKernel(kernel, factor)(hr), expected, atol=1e-12)


def test_kernels_that_are_none_are_refused_and_the_given_one_is_copied():
    for shape in ((4, 4), (5, 3), (5,), (1, 5, 5)):
        refused(lambda shape=shape: InPlaneKernel(torch.ones(shape), 2), ValueError, shape, "odd square")
    kernel = gaussian_kernel(1.0, size=5)
    operator = InPlaneKernel(kernel, 2, 0.5)
    kernel.zero_()
    assert operator.kernel.sum().item() == pytest.approx(1)
    assert operator.factors == (2, 2, 1) and operator.offset == (0.5, 0.5, 0.0)
