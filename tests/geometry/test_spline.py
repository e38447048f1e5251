import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile
from common.geometry.spline import _copy_matrix_to_device, apply_along_axes, make_spline_matrix, make_upsampling_matrix
from common.networks import SplineInterpolation


def test_a_matrix_is_the_spline_through_any_samples():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 8, 40):
        samples, positions = rng.normal(size=size), rng.uniform(-3, size + 2, 50)
        matrix = make_spline_matrix(size, positions)
        assert matrix.shape == (50, size) and matrix.dtype == np.float64
        expected = map_coordinates(samples, [positions], order=3, mode="nearest")
        assert np.allclose(matrix @ samples, expected, atol=1e-12)
        assert np.allclose(make_spline_matrix(size, np.arange(size)), np.eye(size), atol=1e-12)
        assert np.allclose(matrix.sum(axis=1), 1, atol=1e-12)
    inner = (positions > 15) & (positions < 24)  # where a spline does not know what was assumed of its ends
    assert inner.sum() > 5
    assert np.allclose((matrix @ samples)[inner], CubicSpline(np.arange(40), samples)(positions[inner]), atol=1e-6)


@pytest.mark.parametrize("factor", [1, 1.26, 2, 3.5])
def test_upsampling_puts_a_ramp_where_it_is(factor):
    offset, size = (factor - 1) / 2, round(30 * factor)
    positions = (torch.arange(size, dtype=torch.float64) - offset) / factor
    inner = (positions > 11) & (positions < 18)
    ramp = make_upsampling_matrix(30, size, factor, offset) @ torch.arange(30, dtype=torch.float64)
    assert torch.allclose(ramp[inner], positions[inner], atol=1e-5)


def test_each_axis_is_multiplied_by_its_own_matrix():
    """Under autocast too, to the last bit: positions and intensities are data, of whose bits bfloat16 keeps 8 of 24."""
    volume = torch.randn(2, 1, 4, 5, 6)
    a, b, c = (torch.randn(m, n, dtype=torch.float64) for m, n in ((7, 4), (3, 5), (2, 6)))
    result = apply_along_axes(volume, [a, b, c])
    expected = torch.einsum("ai,bj,ck,...ijk->...abc", a, b, c, volume.double())
    assert result.dtype == torch.float32 and torch.allclose(result.double(), expected, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = apply_along_axes(volume, [a, b, c])
    assert under_autocast.dtype == torch.float32 and torch.equal(under_autocast, result)
    expected = torch.einsum("bj,...ijk->...ibk", b, volume.double())
    assert torch.allclose(apply_along_axes(volume.double(), [None, b, None]), expected)
    assert torch.equal(apply_along_axes(volume, [None, None, None]), volume)


def test_matrices_are_copied_once():
    """What comes again, also cut to a margin or transposed. One first used without autograd may be trained through."""
    matrix, volume = make_upsampling_matrix(8, 9, 1.5, 0.25), torch.rand(1, 1, 8, 8, 2, requires_grad=True)
    with torch.inference_mode():
        apply_along_axes(volume, [matrix, None, None])
    apply_along_axes(volume, [matrix, None, None]).square().sum().backward()
    assert volume.grad.norm() > 0
    spline = SplineInterpolation((1.5, 1.5, 1), (0.25, 0.25, 0), (12, 12, 2), (2, 2, 0))
    for module in (spline, GaussianProfile((2, 2, 1)), GaussianProfile((2, 2, 1)).adjoint):
        first, misses = module(volume), _copy_matrix_to_device.cache_info().misses
        assert torch.equal(module(volume), first) and _copy_matrix_to_device.cache_info().misses == misses
