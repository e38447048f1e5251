"""The network of coordinates, and the mean over slices."""

import math

import torch

from common.networks import AverageOverSlice, CoordinateNetwork
from common.networks.coordinates import FourierFeatures


def test_likeness_of_features_is_a_gaussian_of_the_distance():
    """Its width is known in closed form (Rahimi and Recht 2007), far from the origin and under autocast too."""
    torch.manual_seed(0)
    features = FourierFeatures(20_000, 0.03)
    first = torch.tensor([[120.0, -90.0, 60.0]])
    for step in ([0.0, 0, 0], [5.0, 0, 0], [3.0, -4, 2], [0, 0, 12.0]):
        with torch.autocast("cpu", torch.bfloat16):
            pair = [features(each) for each in (first, first + torch.tensor(step))]
        likeness = (pair[0] * pair[1]).mean()
        assert abs(likeness - math.exp(-2 * (math.pi * 0.03) ** 2 * sum(d * d for d in step))) < 0.02


def test_contrasts_share_the_body_and_have_heads_of_their_own():
    network = CoordinateNetwork(3, features=16, layers=2, frequencies=4)
    assert network.renew(2)(torch.zeros(5, 1, 3)).shape == (5, 1, 2)
    assert network.renew(2).sizes == network.sizes
    values = network(torch.randn(7, 3))
    values[:, 1].sum().backward()
    touched = [any(p.grad.any() for p in head.parameters()) for head in network.heads]
    assert touched == [False, True, False]
    assert all(p.grad.any() for p in network.shared.parameters())


def test_values_are_float32_under_autocast():
    network = CoordinateNetwork(1, features=16, layers=1, frequencies=4)
    with torch.autocast("cpu", torch.bfloat16):
        values = network(torch.randn(400, 3))
    assert values.dtype == torch.float32 and (values.bfloat16() != values).float().mean() > 0.9


def test_each_contrast_is_averaged_over_the_points_of_its_own_voxels():
    values = torch.randn(3, 5, 4, 3)
    expected = [[sum(values[c, n, p, c] for p in range(4)) / 4 for n in range(5)] for c in range(3)]
    torch.testing.assert_close(AverageOverSlice()(values), torch.tensor(expected))
