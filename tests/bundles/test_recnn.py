"""10L-ReCNN: its size, and what a guide is worth to it."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ConfigParser

from common.networks import ReCNN

from . import runs


def content(key, *names, **override):
    """What an entry of the merged configs is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("recnn", *names))
    parser.update(override)
    return parser.get_parsed_content(key)


@pytest.mark.parametrize(("guided", "count"), [(True, 297_217), (False, 296_641)])
def test_layers(guided, count):
    """Ten convolutions, of which each sees a pixel more on every side; untrained it is the interpolation."""
    for name in ("train", "inference"):
        network = content("network_def", name, guided=guided)
        assert sum(p.numel() for p in network.parameters()) == count
        assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 10
    image = torch.rand(2, 1 + guided, 31, 31, 3, requires_grad=True)
    assert torch.equal(network(image), image[:, :1])
    torch.nn.init.normal_(network.stages[0].body[-1].weight)
    network(image)[0, 0, 15, 15, 1].backward()
    assert not image.grad[1].any() and not image.grad[0, ..., [0, 2]].any()
    for channel in image.grad[0, ..., 1]:
        seen = channel.nonzero()
        assert seen.min() == 15 - 10 and seen.max() == 15 + 10
    with pytest.raises(ValueError, match="layers is 1, expected at least 2"):
        ReCNN(layers=1)


def test_signals_reach_the_last_layer():
    """As strong as they came, or rectifiers die in training and the network stays the interpolation."""
    torch.manual_seed(0)
    images = torch.randn(1, 1, 64, 64)
    for layers in (8, 10):
        hidden = ReCNN(guided=False, layers=layers).body[:-1](images)
        assert 0.3 < hidden.square().mean() / images.square().mean() < 3
        assert (hidden > 0).any(dim=(2, 3)).float().mean() > 0.9


@pytest.mark.parametrize("bundle", ["recnn"], indirect=True, scope="session")
def test_without_a_guide(cohort, tmp_path):
    """It trains and is evaluated without one, and HR is what trains, not the LR of an entry."""
    options = {"dataset_dir": str(cohort), "guided": False}
    runs.run("recnn", ["train"], tmp_path, **options)
    runs.run("recnn", ["train", "evaluate"], tmp_path, **options)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "10L-ReCNN, no guide"]
