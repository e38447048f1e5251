"""Whole volumes slab by slab: the same as a slow loop, right to the last slice, and without seams."""

import functools

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.degradations import Degradation
from common.inferers import SlabInferer
from common.networks import SlabInterpolation
from common.networks.slab import channels_to_slab, slab_to_channels
from tests.refused import refused

# One slice, an even and an odd number of them for each of LR; two slabs equally near, and not; LR at the last HR slice.
FEW = [((2, 2, 1), (0.0, 0.0, 0.0)), ((2, 2, 2), (0.0, 0.0, 0.0)), ((2, 2, 2), (0.5, 0.5, 0.5))]
MANY = [((2, 2, 3), (0.5, 0.5, 1.0)), ((1, 1, 4), (0.0, 0.0, 1.5)), ((1, 1, 4), (0.0, 0.0, 3.0))]
every_geometry = pytest.mark.parametrize(("scale", "offset"), [*FEW, *MANY], ids=str)


def twice(degradation=None, tile=320, halo=32):
    inferer = SlabInferer(degradation or Degradation((2, 2, 2)), 3)
    inferer.tile, inferer.halo = tile, halo
    return inferer


class Guess:
    """A network whose output slices all differ, and of which the outer ones are far off, as a real one's are."""

    def __init__(self, slices, scale):
        self.scale, self.seen, self.kinds = scale, [], set()
        self.mix = torch.rand(slices * scale[2], slices, generator=torch.Generator().manual_seed(0))

    def __call__(self, slab):
        self.seen.append(tuple(slab.shape))
        self.kinds.add(type(slab))
        up = slab.repeat_interleave(self.scale[0], dim=2).repeat_interleave(self.scale[1], dim=3)
        return up @ self.mix.T + up.mean(dim=(1, 2, 3, 4), keepdim=True)


def slow_loop(volume, network, slices, scale, offset):
    """Each HR slice from the slab whose centre is nearest, the mean where two are, one output slice at a time."""
    half, depth, sz = slices // 2, volume.shape[-1], scale[2]
    out = []
    for j in range(sz * depth):
        distances = [abs((j - offset[2]) / sz - z) for z in range(depth)]
        found = []
        for z in [z for z in range(depth) if distances[z] < min(distances) + 1e-6]:
            slab = torch.stack([volume[..., min(max(z + i, 0), depth - 1)] for i in range(-half, half + 1)], dim=-1)
            found.append(network(slab)[..., j - (z - half) * sz])
        out.append(sum(found) / len(found))
    return torch.stack(out, dim=-1)


@every_geometry
@pytest.mark.parametrize(("slices", "depth"), [(3, 1), (3, 2), (5, 3), (3, 6), (5, 6)])
def test_it_is_the_slow_loop_without_meta_data(scale, offset, slices, depth):
    volume, network = torch.rand(2, 1, 5, 4, depth), Guess(slices, scale)
    out = SlabInferer(Degradation(scale, offset), slices)(MetaTensor(volume), network)
    assert network.seen == [(2, 1, 5, 4, slices)] * depth and network.kinds == {torch.Tensor} == {type(out)}
    assert torch.allclose(out, slow_loop(volume, network, slices, scale, offset), atol=1e-5)


@every_geometry
def test_constants_and_ramps_stay_where_they_are(scale, offset):
    """A constant does to the last slice; of a ramp HR voxel j has the value j, at the ends of the volume nearly so."""
    inferer, network = SlabInferer(Degradation(scale, offset), 3), SlabInterpolation(3, scale, offset)
    for depth in (1, 2, 5):
        out = inferer(torch.full((1, 1, 6, 6, depth), 0.7), network)
        assert out.shape[-1] == scale[2] * depth and torch.allclose(out, torch.tensor(0.7), atol=1e-6)
    size = (8, 7, 6)
    for axis in range(3):
        lr = scale[axis] * torch.arange(size[axis]) + offset[axis]
        volume = lr.float().reshape([-1 if a == axis else 1 for a in range(3)]).expand(size)[None, None]
        edge = 2 if axis < 2 else 1  # voxels that a cubic in plane needs on each side, and a parabola across
        for j, plane in enumerate(inferer(volume, network)[0, 0].movedim(axis, 0)):
            if lr[edge] - 1e-6 <= j <= lr[-1 - edge] + 1e-6:
                assert torch.allclose(plane, torch.tensor(float(j)), atol=1e-4), (axis, j)
            # What is repeated beyond an end bends the cubic by an eighth of a voxel.
            assert plane.min() > lr[0] - 0.13 * scale[axis] and plane.max() < lr[-1] + 0.13 * scale[axis], (axis, j)


@pytest.fixture
def local_network():  # which sees 4 LR pixels to each side
    convolutions = [nn.Conv2d(few, many, 3, padding=1) for few, many in ((3, 4), (4, 4), (4, 4), (4, 24))]
    body = nn.Sequential(*convolutions, nn.PixelShuffle(2)).requires_grad_(False)
    return lambda slab: channels_to_slab(body(slab_to_channels(slab)))


def test_tiles_leave_no_seam_where_the_halo_suffices(local_network):
    volume = torch.rand(1, 1, 25, 17, 3)
    whole = twice()(volume, local_network)
    assert whole.std() > 0.01
    for tile, halo in ((12, 4), (13, 5), (9, 4), (20, 4), (24, 4), (25, 4)):
        assert torch.allclose(twice(tile=tile, halo=halo)(volume, local_network), whole, atol=1e-5), (tile, halo)
    assert not torch.allclose(twice(tile=12, halo=3)(volume, local_network), whole, atol=1e-5)


@every_geometry
def test_tiles_are_never_larger_than_they_may_be_and_in_batches_it_is_the_same(monkeypatch, scale, offset):
    """As on a GPU, also where fewer slabs have room than was thought."""
    network, volume = Guess(3, scale), torch.rand(2, 1, 9, 8, 7)
    inferer = twice(Degradation(scale, offset), tile=6, halo=1)
    one_by_one = inferer(volume, network)
    assert max(max(shape[2:4]) for shape in network.seen) == 6
    assert len(network.seen) == 3 * 2 * 7  # ceil(9 / (6 - 2)) and ceil(8 / (6 - 2)) tiles of seven slabs
    for at_once, room, counts in ((4, 4, [4, 3]), (32, 32, [7]), (32, 3, [3, 3, 1]), (32, 1, [1] * 7)):
        network.seen.clear()

        def in_room(slabs, room=room):
            if len(slabs) > 2 * room:
                raise torch.OutOfMemoryError("out of memory")
            return network(slabs)

        monkeypatch.setattr("common.inferers.slab.count_pieces_at_once", lambda device, size, count=at_once: count)
        assert torch.allclose(inferer(volume, in_room), one_by_one, atol=1e-6)
        assert [shape[0] // 2 for shape in network.seen] == counts * (len(network.seen) // len(counts))
    refused(lambda: inferer(volume, functools.partial(in_room, room=0)), torch.OutOfMemoryError, "out of memory")


def test_refused():
    refused(lambda: SlabInferer(Degradation((2, 2, 2)), 4), ValueError, 4)
