"""Interpolation of a slab puts polynomials where they belong; that of a patch is scipy's."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile
from common.networks import (
    EDSR,
    RDN,
    SRCNN,
    AxisInterpolation,
    OnInterpolated,
    SlabEncoder,
    SlabInterpolation,
    SlabSuperResolver,
    SplineInterpolation,
    TSRCANDecoder,
)

SCALES = [(2, 2, 2), (2, 2, 1), (3, 3, 2), (4, 4, 3), (1, 1, 3)]


def no_offset(scale):
    return (0.0, 0.0, 0.0)


def block_offset(scale):
    return tuple((s - 1) / 2 for s in scale)


def grids(scale, offset, size):
    """World coordinates (in HR voxels) of LR and of HR voxels."""
    lr = [s * torch.arange(n, dtype=torch.float64) + o for s, o, n in zip(scale, offset, size, strict=True)]
    hr = [torch.arange(s * n, dtype=torch.float64) for s, n in zip(scale, size, strict=True)]
    return torch.meshgrid(*lr, indexing="ij"), torch.meshgrid(*hr, indexing="ij")


def inside(scale, offset, size):
    """HR voxels that are two LR pixels from the border, and between the outermost slices."""
    where = [slice(2 * s, s * (n - 2)) for s, n in zip(scale[:2], size[:2], strict=True)]
    positions = [(o - offset[2]) / scale[2] for o in range(scale[2] * size[2])]
    return (*where, torch.tensor([0 <= p <= size[2] - 1 for p in positions]))


def quadratic(x, y, z):
    return 0.01 * x * x - 0.02 * y * y + 0.03 * z * z + 0.01 * x * y - 0.02 * y * z + 0.1 * x - 0.2 * z + 0.5


@pytest.mark.parametrize("offset", [no_offset, block_offset])
@pytest.mark.parametrize("scale", SCALES)
def test_polynomials_to_the_second_degree_stay_in_place(scale, offset):
    for slices in (3, 5):
        size = (8, 9, slices)
        lr, hr = grids(scale, offset(scale), size)
        out = SlabInterpolation(slices, scale, offset(scale))(quadratic(*lr)[None, None].float())[0, 0]
        assert out.shape == hr[0].shape
        where = inside(scale, offset(scale), size)
        assert torch.allclose(out[where].double(), quadratic(*hr)[where], atol=1e-4)


@pytest.mark.parametrize("offset", [no_offset, block_offset])
@pytest.mark.parametrize("scale", SCALES)
def test_constants_stay_at_the_borders_too(scale, offset):
    out = SlabInterpolation(3, scale, offset(scale))(torch.full((2, 1, 5, 6, 3), 0.7))
    assert torch.allclose(out, torch.tensor(0.7), atol=1e-6)


def test_without_an_offset_lr_voxels_are_kept_exactly():
    lr = torch.rand(1, 1, 6, 7, 3)
    out = SlabInterpolation(3, (2, 2, 2), (0, 0, 0))(lr)
    assert torch.allclose(out[:, :, ::2, ::2, ::2], lr, atol=1e-6)
    # Beyond the last slice its values are repeated.
    assert torch.allclose(out[..., 5], out[..., 4], atol=1e-6)


def test_at_the_border_the_outermost_pixels_go_on():
    lr = torch.rand(1, 1, 5, 6, 3)
    wider = torch.nn.functional.pad(lr[0], (0, 0, 3, 3, 3, 3), mode="replicate")[None]
    for offset in (0.0, 0.5):
        network = SlabInterpolation(3, (2, 2, 2), (offset,) * 3)
        assert torch.allclose(network(lr), network(wider)[:, :, 6:-6, 6:-6], atol=1e-6)


def test_it_has_nothing_to_train_and_travels_with_the_weights():
    trained_with, other = SlabInterpolation(3, (2, 2, 2), (0, 0, 0)), SlabInterpolation(3, (2, 2, 2), (0.5, 0.5, 0.5))
    assert not list(other.parameters())
    lr = torch.rand(1, 1, 6, 7, 3)
    assert not torch.allclose(other(lr), trained_with(lr), atol=1e-3)
    other.load_state_dict(trained_with.state_dict())
    assert torch.equal(other(lr), trained_with(lr))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_single_slice_is_interpolated_as_each_of_a_slab_is(offset):
    lr = torch.rand(2, 1, 6, 7, 3)
    slab = SlabInterpolation(3, (2, 2, 1), (offset, offset, 0))(lr)
    network = SlabInterpolation(1, (2, 2, 1), (offset, offset, 0))
    for z in range(3):
        torch.testing.assert_close(network(lr[..., z : z + 1]), slab[..., z : z + 1])


def test_what_it_cannot_do_is_said():
    for slices, across in ((1, 2), (2, 1), (2, 2)):
        with pytest.raises(ValueError, match=f"at least 3 slices, got {slices}"):
            SlabInterpolation(slices, (2, 2, across), (0, 0, 0))
    with pytest.raises(ValueError, match="same in-plane factors"):
        SlabInterpolation(3, (2, 1, 2), (0, 0, 0))
    with pytest.raises(ValueError, match="same in-plane factors"):
        SlabInterpolation(3, (2, 2, 2), (0, 0.5, 0))


@pytest.mark.parametrize("factors", [(2, 2, 1), (1.26, 1.26, 1), (2.5, 1, 3)], ids=str)
def test_spline_interpolation_is_scipys_less_the_margin(factors):
    lr, margin, offset = torch.rand(2, 1, 9, 10, 4), (3, 2, 1), (0.5, 0.13, 0.0)
    size = [math.floor(n * f + 0.5) for n, f in zip(lr.shape[2:], factors, strict=True)]
    network = SplineInterpolation(factors, offset, size, margin)
    where = np.meshgrid(*[(np.arange(n) - o) / f for n, o, f in zip(size, offset, factors, strict=True)], indexing="ij")
    inner = tuple(slice(m, n - m) for m, n in zip(margin, size, strict=True))
    result = network(lr)
    for volume, found in zip(lr[:, 0].double().numpy(), result[:, 0], strict=True):
        expected = map_coordinates(volume, where, order=3, mode="nearest")[inner]
        assert np.allclose(found, expected, atol=1e-5)
    assert not network.state_dict()


@pytest.mark.parametrize("factor", [2, 3])
def test_behind_the_margin_a_patch_is_degraded_and_interpolated_as_the_whole_slice(factor):
    """With the margin that the bundle has: 4 LR voxels, and the interpolation's size that of the HR context."""
    degradation, patch, margin = GaussianProfile((factor, factor, 1)), 12, 4 * factor
    hr = torch.rand(1, 1, 96, 84, 1)

    def interpolated(volume, margin):
        network = SplineInterpolation(degradation.factors, degradation.offset, volume.shape[2:], (margin, margin, 0))
        return network(degradation(volume))

    start = 6 * factor
    context = hr[:, :, start : start + patch + 2 * margin, start : start + patch + 2 * margin]
    place = slice(start + margin, start + margin + patch)
    whole, one = interpolated(hr, 0)[:, :, place, place], interpolated(context, margin)
    assert one.shape[2:] == (patch, patch, 1) and (one - whole).abs().max() < 0.01
    without = interpolated(hr[:, :, place, place], 0)
    assert (without - whole).abs().max() > 0.05


NETWORKS = {
    "ts_rcan": (
        lambda: SlabSuperResolver(
            SlabEncoder(3, 8, 2), TSRCANDecoder(6, 8, 1, 1, 2, (2, 2), SlabInterpolation(3, (2, 2, 2), (0, 0, 0)))
        ),
        (2, 1, 12, 12, 3),
    ),
    "edsr": (lambda: EDSR(8, 1, base=SlabInterpolation(1, (2, 2, 1), (0.5, 0.5, 0))), (2, 1, 12, 12, 1)),
    "rdn": (lambda: RDN(8, 4, 1, 1, 4, base=AxisInterpolation(4, 1.5)), (2, 1, 12, 12)),
    "srcnn": (
        lambda: OnInterpolated(SlabInterpolation(1, (2, 2, 1), (0, 0, 0)), SRCNN([3, 3], [8]), True),
        (2, 1, 12, 12, 1),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_under_autocast_it_is_added_unrounded(name):
    """A network that has learned nothing gives the interpolation; what has been learned is rounded, not the sum."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network, lr = make(), torch.rand(shape)
    with torch.no_grad():
        plain = network(lr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(network(lr), plain)
        tail = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        torch.nn.init.normal_(tail.weight, std=0.01)
        learned = network(lr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounding = (network(lr) - learned).std()
    assert (learned - plain).std() > 1e-3  # else there is nothing to round
    assert rounding < 0.02 * (learned - plain).std()
