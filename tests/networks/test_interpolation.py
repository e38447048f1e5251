"""Interpolation of a slab puts polynomials where they belong; that of a patch is scipy's."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common import networks
from common.degradations import GaussianProfile
from common.networks import AxisInterpolation, SlabInterpolation, SliceGains, SplineInterpolation

from ..refused import refused


@pytest.mark.parametrize("slices", [3, 5])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("scale", [(2, 2, 2), (2, 2, 1), (3, 3, 2), (4, 4, 3), (1, 1, 3)], ids=str)
def test_polynomials_to_the_second_degree_stay_in_place_and_constants_everywhere(scale, centred, slices):
    def quadratic(axes):
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        return 0.01 * x * x - 0.02 * y * y + 0.03 * z * z + 0.01 * x * y - 0.02 * y * z + 0.1 * x - 0.2 * z + 0.5

    offset, size = [(s - 1) / 2 if centred else 0.0 for s in scale], (8, 9, slices)
    lr = [s * torch.arange(n).double() + o for s, n, o in zip(scale, size, offset, strict=True)]  # in HR voxels
    hr = [torch.arange(s * n).double() for s, n in zip(scale, size, strict=True)]
    network = SlabInterpolation(slices, scale, offset)
    out, expected = network(quadratic(lr)[None, None].float())[0, 0].double(), quadratic(hr)
    assert out.shape == expected.shape
    between = (lr[2][0] <= hr[2]) & (hr[2] <= lr[2][-1])  # the outermost slices, and two pixels from the border
    where = (slice(2 * scale[0], -2 * scale[0]), slice(2 * scale[1], -2 * scale[1]), between)
    assert torch.allclose(out[where], expected[where], atol=1e-4)
    assert torch.allclose(network(torch.full((2, 1, 5, 6, slices), 0.7)), torch.tensor(0.7), atol=1e-6)


def test_lr_voxels_are_kept_without_an_offset_which_travels_with_the_weights():
    trained_with, other = SlabInterpolation(3, (2, 2, 2), (0, 0, 0)), SlabInterpolation(3, (2, 2, 2), (0.5, 0.5, 0.5))
    out = trained_with(lr := torch.rand(1, 1, 6, 7, 3))
    assert torch.allclose(out[:, :, ::2, ::2, ::2], lr, atol=1e-6)
    assert torch.allclose(out[..., 5], out[..., 4], atol=1e-6), "beyond the last slice its values are repeated"
    assert not list(other.parameters()) and not torch.allclose(other(lr), out, atol=1e-3)
    other.load_state_dict(trained_with.state_dict())
    assert torch.equal(other(lr), out)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_outermost_pixels_go_on_at_the_border_and_a_single_slice_is_interpolated_as_each_of_a_slab(offset):
    lr = torch.rand(1, 1, 5, 6, 3)
    wider = torch.nn.functional.pad(lr[0], (0, 0, 3, 3, 3, 3), mode="replicate")[None]
    network = SlabInterpolation(3, (2, 2, 2), (offset,) * 3)
    assert torch.allclose(network(lr), network(wider)[:, :, 6:-6, 6:-6], atol=1e-6)
    slab = SlabInterpolation(3, (2, 2, 1), (offset, offset, 0))(lr)
    single = SlabInterpolation(1, (2, 2, 1), (offset, offset, 0))
    torch.testing.assert_close(torch.cat([single(lr[..., z : z + 1]) for z in range(3)], dim=-1), slab)


def test_refused():
    for slices, scale in ((1, (2, 2, 2)), (2, (2, 2, 1)), (2, (2, 2, 2))):
        refused(partial(SlabInterpolation, slices, scale, (0, 0, 0)), ValueError, "at least 3 slices", f"got {slices}")
    refused(lambda: SlabInterpolation(3, (2, 1, 2), (0, 0, 0)), ValueError, "in-plane", "(2, 1, 2)")
    refused(lambda: SlabInterpolation(3, (2, 2, 2), (0, 0.5, 0)), ValueError, "in-plane", "(0, 0.5, 0)")


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("factor", [2, 3, 4, 6])
def test_along_an_axis_it_is_keys_cubic_convolution(factor, place):
    """With a = -1/2 (Keys 1981). LR columns lie on the first, amid the, or on the last of their HR columns."""
    offset, lr, around = place * (factor - 1), torch.rand(2, 1, 3, 7, dtype=torch.float64), np.arange(-3, 10)
    x = np.abs((np.arange(7 * factor)[:, None] - offset) / factor - around)
    outer = np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0)
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, outer)
    expected = lr.numpy()[..., around.clip(0, 6)] @ weights.T
    np.testing.assert_allclose(networks.AxisInterpolation(factor, offset)(lr), expected, atol=1e-6)


@pytest.mark.parametrize(("factor", "columns"), [(3, 1), (2.5, 1), (3.3, 4), (1.2, 2)])
def test_by_any_factor_columns_are_in_their_places(factor, columns):
    """A parabola of the position stays one, of LR columns and of the columns into which they are divided."""
    offset, width = (factor - 1) / 2, 40
    lr_positions = (torch.arange(width * columns, dtype=torch.float64) - (columns - 1) / 2) / columns
    hr_positions = (torch.arange(math.floor(width * factor + 0.5), dtype=torch.float64) - offset) / factor
    expected, lr = (0.01 * x**2 - 0.2 * x for x in (hr_positions, lr_positions))
    network = networks.AxisResampling(factor, offset, columns)
    found = network(lr.repeat(2, 3, 4, 1))
    assert found.shape == (2, 3, 4, len(expected))
    inner = slice(math.ceil(2 * factor), -math.ceil(2 * factor))
    torch.testing.assert_close(found[1, 2, 3, inner], expected[inner], rtol=0, atol=1e-9)
    assert torch.allclose(network(torch.ones_like(lr).expand(1, 1, 1, -1)), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("factors", [(2, 2, 1), (1.26, 1.26, 1), (2.5, 1, 3)], ids=str)
def test_spline_interpolation_is_scipys_less_the_margin(factors):
    lr, margin, offset = torch.rand(2, 1, 9, 10, 4), (3, 2, 1), (0.5, 0.13, 0.0)
    size = [math.floor(n * f + 0.5) for n, f in zip(lr.shape[2:], factors, strict=True)]
    network = SplineInterpolation(factors, offset, size, margin)
    where = np.meshgrid(*[(np.arange(n) - o) / f for n, o, f in zip(size, offset, factors, strict=True)], indexing="ij")
    inner = tuple(slice(m, n - m) for m, n in zip(margin, size, strict=True))
    for volume, found in zip(lr[:, 0].double().numpy(), network(lr)[:, 0], strict=True):
        assert np.allclose(found, map_coordinates(volume, where, order=3, mode="nearest")[inner], atol=1e-5)
    assert not network.state_dict()


@pytest.mark.parametrize("factor", [2, 3])
def test_behind_the_margin_a_patch_is_degraded_and_interpolated_as_the_whole_slice(factor):
    """With the margin that the bundle has: 4 LR voxels, and the interpolation's size that of the HR context."""
    degradation, hr = GaussianProfile((factor, factor, 1)), torch.rand(1, 1, 96, 84, 1)
    patch, margin, start = 12, 4 * factor, 10 * factor

    def interpolated(volume):
        network = SplineInterpolation(degradation.factors, degradation.offset, volume.shape[2:], (0, 0, 0))
        return network(degradation(volume))

    around, place = slice(start - margin, start + patch + margin), slice(start, start + patch)
    network = networks.make_patch_interpolation(degradation, patch, margin)
    whole, one = interpolated(hr)[:, :, place, place], network(degradation(hr[:, :, around, around]))
    assert one.shape[2:] == (patch, patch, 1) and (one - whole).abs().max() < 0.01
    assert (interpolated(hr[:, :, place, place]) - whole).abs().max() > 0.05


def test_under_autocast_it_is_added_unrounded():
    """A network that has learned nothing gives the interpolation; what has been learned is rounded, not the sum."""
    slab, degradation = SlabInterpolation(3, (2, 2, 2), (0, 0, 0)), GaussianProfile((2, 2, 1))
    plane = SlabInterpolation(1, degradation.factors, degradation.offset)
    decoder, axis = networks.TSRCANDecoder(6, 8, 1, 1, 2, (2, 2), slab), networks.AxisInterpolation(4, 1.5)
    for network, base, *slices in [
        (networks.SlabSuperResolver(networks.SlabEncoder(3, 8, 2), decoder), slab, 3),
        (networks.EDSR(8, 1, degradation), plane, 1),
        (networks.RDN(GaussianProfile((1, 1, 4)), 8, 4, 1, 1), axis),
        (networks.InterpolatedNetwork(networks.SRCNN([8], [3, 3]), degradation), plane, 1),
    ]:
        lr = torch.rand(2, 1, 12, 12, *slices)
        with torch.no_grad():
            plain = network(lr)
            assert torch.equal(plain, base(lr))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert torch.equal(network(lr), plain)
            tail = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
            torch.nn.init.normal_(tail.weight, std=0.01)
            learned = network(lr)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounding = (network(lr) - learned).std()
        assert (learned - plain).std() > max(1e-3, 50 * rounding), "there is something to round"


GAINS = torch.tensor([[1.0, 1.2, 0.9, 1.0, 0.7], [1.0, 1.0, 1.0, 1.1, 1.0]])[:, None, None]


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6])
def test_what_does_not_change_across_the_slices_becomes_what_interpolation_makes_of_it(factor):
    """So the target of a network has nothing that it would have to sharpen."""
    offset, rows = (factor - 1) / 2, torch.rand(2, 1, 7, 1) * 2 - 1
    uneven = SliceGains(GaussianProfile((1, 1, factor)))
    thick, thin = (uneven(rows.expand(-1, -1, -1, slices), GAINS) for slices in (5, 5 * factor))
    torch.testing.assert_close((thick + 1) / 2, (rows + 1) / 2 * GAINS)
    torch.testing.assert_close(thin, AxisInterpolation(factor, offset)(thick))


@pytest.mark.parametrize("dark", [-1.0, 0.0])
def test_no_signal_stays_none_and_gains_of_one_change_nothing(dark):
    uneven, images = SliceGains(GaussianProfile((1, 1, 4)), dark), torch.rand(2, 1, 6, 20) * 2 - 1
    assert torch.equal(uneven(images, torch.ones(2, 1, 1, 5)), images)
    torch.testing.assert_close(uneven(torch.full((2, 1, 6, 20), dark), GAINS), torch.full((2, 1, 6, 20), dark))
