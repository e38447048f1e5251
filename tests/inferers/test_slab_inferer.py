"""Whole volumes slab by slab: the same as a slow loop, right to the last slice, and without seams."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers import SlabInferer
from common.inferers.slab import slice_weights
from common.networks import SlabEncoder, SlabInterpolation, SlabSuperResolver

SCALES = [(2, 2, 1), (2, 2, 2), (2, 2, 3), (1, 1, 4)]


def no_offset(scale):
    return (0.0, 0.0, 0.0)


def block_offset(scale):
    return tuple((s - 1) / 2 for s in scale)


every_geometry = pytest.mark.parametrize(
    ("scale", "offset"),
    [*((s, o(s)) for s in SCALES for o in (no_offset, block_offset)), ((1, 1, 4), (0.0, 0.0, 3.0))],
    ids=str,
)


class Guess(nn.Module):
    """A network whose output slices all differ, and of which the outer ones are far off, as a real one's are."""

    def __init__(self, slices, scale):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.scale = scale
        self.mix = torch.rand(slices * scale[2], slices, generator=generator)
        self.seen = []

    def forward(self, slab):
        self.seen.append(tuple(slab.shape))
        sx, sy, _ = self.scale
        up = slab.repeat_interleave(sx, dim=2).repeat_interleave(sy, dim=3)
        return up @ self.mix.T + up.mean(dim=(1, 2, 3, 4), keepdim=True)


def slow_loop(volume, network, slices, scale, offset):
    """Each HR slice from the slab whose centre is nearest, the mean where two are, one output slice at a time."""
    half, depth, sz = slices // 2, volume.shape[-1], scale[2]
    out = []
    for j in range(sz * depth):
        position = (j - offset[2]) / sz
        distances = [abs(position - z) for z in range(depth)]
        nearest = [z for z in range(depth) if distances[z] < min(distances) + 1e-6]
        found = []
        for z in nearest:
            slab = torch.stack([volume[..., min(max(z + i, 0), depth - 1)] for i in range(-half, half + 1)], dim=-1)
            found.append(network(slab)[..., j - (z - half) * sz])
        out.append(sum(found) / len(found))
    return torch.stack(out, dim=-1)


@every_geometry
@pytest.mark.parametrize("slices", [3, 5])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_it_is_the_slow_loop(scale, offset, slices, depth):
    volume = torch.rand(2, 1, 5, 4, depth, generator=torch.Generator().manual_seed(depth))
    network = Guess(slices, scale)
    out = SlabInferer(slices, scale, offset)(volume, network)
    assert network.seen == [(2, 1, 5, 4, slices)] * depth
    assert torch.allclose(out, slow_loop(volume, network, slices, scale, offset), atol=1e-5)


@every_geometry
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_constants_stay_to_the_last_slice(scale, offset, depth):
    volume = torch.full((1, 1, 6, 6, depth), 0.7)
    out = SlabInferer(3, scale, offset)(volume, SlabInterpolation(3, scale, offset))
    assert out.shape[-1] == scale[2] * depth and torch.allclose(out, torch.tensor(0.7), atol=1e-6)


@every_geometry
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramps_stay_where_they_are(scale, offset, axis):
    """HR voxel j has the value j; at the ends of the volume nearly so."""
    size = (8, 7, 6)
    lr = scale[axis] * torch.arange(size[axis]) + offset[axis]
    volume = lr.float().reshape([-1 if a == axis else 1 for a in range(3)]).expand(size)[None, None]
    out = SlabInferer(3, scale, offset)(volume, SlabInterpolation(3, scale, offset))[0, 0].movedim(axis, 0)
    # In plane a cubic needs two voxels on each side; across, a parabola the slab's three slices.
    edge = 2 if axis < 2 else 1
    for j, plane in enumerate(out):
        if lr[edge] - 1e-6 <= j <= lr[-1 - edge] + 1e-6:
            assert torch.allclose(plane, torch.tensor(float(j)), atol=1e-4), j
        # What is repeated beyond an end bends the cubic by an eighth of a voxel.
        assert plane.min() > lr[0] - 0.13 * scale[axis] and plane.max() < lr[-1] + 0.13 * scale[axis], j


def keys(x):
    """Cubic convolution with a = -1/2 (Keys 1981)."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def keys_matrix(size, factor, offset):
    """Interpolation of an axis; rows whose kernel leaves the volume are NaN."""
    matrix = np.full((size * factor, size), np.nan)
    for j in range(size * factor):
        position = (j - offset) / factor
        if 1 <= position <= size - 2:
            matrix[j] = [keys(position - i) for i in range(size)]
    return matrix


@pytest.mark.parametrize(
    ("scale", "offset"),
    [((2, 2, 1), (0, 0, 0)), ((2, 2, 2), (0, 0, 0)), ((3, 3, 2), (1, 1, 0)), ((2, 2, 1), (0.5, 0.5, 0))],
    ids=str,
)
@pytest.mark.parametrize("slices", [3, 5])
def test_the_interpolation_alone_is_keys_cubic_of_the_volume(scale, offset, slices):
    size = (7, 8, 6)
    volume = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    out = SlabInferer(slices, scale, offset)(volume, SlabInterpolation(slices, scale, offset))[0, 0].numpy()
    expected = volume[0, 0].double().numpy()
    for axis in range(3):
        matrix = keys_matrix(size[axis], scale[axis], offset[axis])
        inner = np.moveaxis(expected, axis, 0)
        expected = np.moveaxis(np.einsum("ji,i...->j...", matrix, inner), 0, axis)
    known = np.isfinite(expected)
    assert known.mean() > 0.15
    assert np.allclose(out[known], expected[known], atol=1e-5)


@every_geometry
@pytest.mark.parametrize("slices", [3, 5, 7])
def test_inner_shares_add_up_to_one_and_prefer_the_centre(scale, offset, slices):
    weights = slice_weights(slices, scale[2], offset[2])
    overlapping = sum(weights[i * scale[2] : (i + 1) * scale[2]] for i in range(slices))
    assert torch.equal(overlapping, torch.ones(scale[2]))
    distance = ((torch.arange(slices * scale[2]) - offset[2]) / scale[2] - slices // 2).abs()
    assert (distance[weights > 0] < 0.5 + 1e-6).all() and weights[distance.argmin()] == 1


def local_network():
    """Without global pooling; it sees 4 LR pixels to each side."""
    torch.manual_seed(0)

    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Sequential(nn.Conv2d(4, 24, 3, padding=1), nn.PixelShuffle(2))

        def forward(self, features, slab):
            return self.up(features).permute(0, 2, 3, 1).unsqueeze(1)

    return SlabSuperResolver(SlabEncoder(3, 4, 3), Shuffle()).eval()


@pytest.mark.parametrize(("tile", "halo"), [(12, 4), (13, 5), (9, 4), (20, 4), (24, 4), (25, 4)])
def test_tiles_leave_no_seam(tile, halo):
    network = local_network()
    volume = torch.rand(1, 1, 25, 17, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = SlabInferer(3, (2, 2, 2), (0, 0, 0))(volume, network)
        tiled = SlabInferer(3, (2, 2, 2), (0, 0, 0), tile=tile, halo=halo)(volume, network)
    assert whole.std() > 0.01
    assert torch.allclose(tiled, whole, atol=1e-5)


@every_geometry
@pytest.mark.parametrize(("at_once", "room"), [(4, 4), (32, 32), (32, 3)])
def test_in_batches_it_is_the_same(monkeypatch, scale, offset, at_once, room):
    """As on a GPU, also where fewer slabs have room than was thought."""
    network, volume = Guess(3, scale), torch.rand(2, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    inferer = SlabInferer(3, scale, offset, tile=6, halo=1)
    one_by_one = inferer(volume, network)
    network.seen.clear()

    def in_room(slabs):
        if len(slabs) > 2 * room:
            raise torch.OutOfMemoryError("out of memory")
        return network(slabs)

    monkeypatch.setattr("common.inferers.slab.pieces_at_once", lambda device, size: at_once)
    assert torch.allclose(inferer(volume, in_room), one_by_one, atol=1e-6)
    counts = {(4, 4): [4, 3], (32, 32): [7], (32, 3): [2, 2, 2, 1]}[at_once, room]
    assert [shape[0] // 2 for shape in network.seen] == counts * (len(network.seen) // len(counts))


def test_memory_that_does_not_suffice_for_one_slab_is_said_so():
    def network(slab):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        SlabInferer(3, (2, 2, 2), (0, 0, 0))(torch.rand(1, 1, 4, 4, 3), network)


def test_too_small_a_halo_does_leave_one():
    """That the network above needs its halo, so that the test above can fail."""
    network = local_network()
    volume = torch.rand(1, 1, 25, 17, 3)
    with torch.no_grad():
        whole = SlabInferer(3, (2, 2, 2), (0, 0, 0))(volume, network)
        tiled = SlabInferer(3, (2, 2, 2), (0, 0, 0), tile=12, halo=3)(volume, network)
    assert not torch.allclose(tiled, whole, atol=1e-5)


def test_a_tile_is_never_larger_than_it_may_be():
    network = Guess(3, (2, 2, 2))
    SlabInferer(3, (2, 2, 2), (0, 0, 0), tile=10, halo=2)(torch.rand(1, 1, 31, 9, 2), network)
    assert max(max(shape[2:4]) for shape in network.seen) == 10
    assert len(network.seen) == 6 * 2  # ceil(31 / (10 - 4)) tiles of two slabs


def test_a_volume_with_meta_data_reaches_the_network_without_it():
    kinds = []

    def network(slab):
        kinds.append(type(slab))
        return Guess(3, (2, 2, 2))(slab)

    volume = torch.rand(1, 1, 4, 4, 3)
    inferer = SlabInferer(3, (2, 2, 2), (0, 0, 0))
    out = inferer(MetaTensor(volume, meta={"filename_or_obj": "x"}), network)
    assert set(kinds) == {torch.Tensor} and torch.equal(out, inferer(volume, network))


def test_amp_computes_in_bf16_and_returns_float32():
    seen = []
    network = local_network()
    network.encoder.body[0].register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    volume = torch.rand(1, 1, 12, 12, 3)
    options = {"amp": True, "amp_kwargs": {"dtype": torch.bfloat16}}
    with torch.no_grad():
        full = SlabInferer(3, (2, 2, 2), (0, 0, 0))(volume, network)
        half = SlabInferer(3, (2, 2, 2), (0, 0, 0), **options)(volume, network)
    assert seen == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert half.dtype == torch.float32 and torch.allclose(half, full, atol=0.02) and not torch.equal(half, full)


def test_what_it_cannot_do_is_said():
    with pytest.raises(ValueError, match="odd number of slices, got 4"):
        SlabInferer(4, (2, 2, 2), (0, 0, 0))
    with pytest.raises(ValueError, match="tile of 64 with a halo of 32"):
        SlabInferer(3, (2, 2, 2), (0, 0, 0), tile=64, halo=32)
