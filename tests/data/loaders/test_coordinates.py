"""Batches of coordinates of measured voxels."""

import itertools

import torch

from common.data import CoordinateLoader, MeasuredVoxels


def make_voxels(count: int, across: list[float], value: float, weight: float = 1.0) -> MeasuredVoxels:
    """Voxels at 10 mm in x, whose value says of which stack they are."""
    centres = torch.tensor([10.0, 0.0, 0.0]).repeat(count, 1)
    return MeasuredVoxels(centres, torch.full((count,), value), torch.full((count,), weight), torch.tensor(across))


def test_points_average_over_the_slice_profile_of_their_own_stack():
    """The mean of squares is that of the centre plus the profile's variance, along its direction only."""
    stacks = [make_voxels(50, [0, 0, 2.0], 1.0), make_voxels(50, [0, 3.0, 0], 2.0)]
    batch = next(iter(CoordinateLoader([stacks], 20_000, points=4)))
    points, values = batch["coordinates"][0], batch["values"][0]
    for value, variances in ((1.0, [0, 0, 4.0]), (2.0, [0, 9.0, 0])):
        squares = points[values == value].square().mean(dim=(0, 1))
        torch.testing.assert_close(squares, torch.tensor([100.0, 0, 0]) + torch.tensor(variances), rtol=0.03, atol=0)
    # Each point has an equal share of the profile, so a voxel's own mean lies near its centre.
    assert points[values == 1].mean(dim=1)[:, 2].std() < 0.5 * 2 / 4**0.5


def test_one_point_is_the_centre():
    batch = next(iter(CoordinateLoader([[make_voxels(9, [0, 0, 2.0], 1.0)]] * 2, 7)))
    assert batch["coordinates"].shape == (2, 7, 1, 3) and batch["values"].shape == (2, 7)
    assert (batch["coordinates"] == torch.tensor([10.0, 0, 0])).all()


def test_voxels_are_used_as_much_as_they_count():
    stacks = [make_voxels(4000, [0, 0, 0], float(i), weight) for i, weight in enumerate((1.0, 0.25, 0.0))]
    values = next(iter(CoordinateLoader([stacks], 50_000)))["values"]
    assert not (values == 2).any()
    assert abs((values == 1).float().mean() - 0.2) < 0.02


def test_draws_depend_on_the_seed_alone():
    def draw(seed):
        voxels = [MeasuredVoxels(torch.randn(99, 3), torch.arange(99.0), torch.ones(99), torch.ones(3))]
        return [batch["values"] for batch in itertools.islice(CoordinateLoader([voxels], 8, 2, seed), 3)]

    first, again, other = draw(1), draw(1), draw(2)
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, other))
    assert not torch.equal(first[0], first[1])
