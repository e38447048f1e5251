"""ReconResNet: its size, its two forms, and images of any size."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from common.networks import ReconResNet

from . import runs


def test_layers():
    """The parameters of the original's layers; an untrained network is the interpolation, or behind a sigmoid."""
    for name in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(runs.configs("reconresnet", name))
        network = parser.get_parsed_content("network_def")
        ends, halvings = 2 * 49 * 64 + 64 + 1, 9 * (64 * 128 + 128 * 256) + 128 + 256
        doublings, block = 9 * (256 * 128 + 128 * 64) + 128 + 64, 2 * (9 * 256 * 256 + 256)
        slopes = 1 + 2 + 14 + 2
        assert sum(p.numel() for p in network.parameters()) == ends + halvings + doublings + 14 * block + slopes
    assert ends + halvings + doublings + 14 * block + slopes == 17_266_452


@pytest.mark.parametrize("size", [(1, 1), (13, 16), (30, 17), (14, 15)])
def test_images_of_any_size(size):
    image = torch.rand(2, 1, *size)
    assert torch.equal(ReconResNet(features=2, blocks=1).eval()(image), image)
    whole = ReconResNet(features=2, blocks=1, residual=False).eval()(image)
    assert whole.shape == image.shape and 0 < whole.min() and whole.max() < 1
