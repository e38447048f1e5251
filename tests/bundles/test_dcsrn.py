"""DCSRN: its size and what it sees."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from . import runs


def content(key, *names, **override):
    """What an entry of the merged configs is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("dcsrn", *names))
    parser.update(override)
    return parser.get_parsed_content(key)


def test_layers():
    """Convolutions of 48, four times 24 and 1 channels, each on all that was before; it sees 13 pixels."""
    for name in ("train", "inference"):
        network = content("network_def", name)
        convolutions = [m for m in network.body.modules() if isinstance(m, torch.nn.Conv2d)]
        assert [(c.in_channels, c.out_channels) for c in convolutions] == [
            (1, 48), (48, 24), (72, 24), (96, 24), (120, 24), (144, 1),
        ]  # fmt: skip
        # 3x3 kernels, biases of the first and the last, and batch norm before the units.
        assert sum(p.numel() for p in network.parameters()) == 9 * (48 + 24 * 336 + 144) + 49 + 2 * 336
    body = network.body.eval()
    torch.nn.init.normal_(body[-1].weight)
    image = torch.rand(1, 1, 31, 31, requires_grad=True)
    body(image)[0, 0, 15, 15].backward()
    seen = image.grad[0, 0].nonzero()
    assert seen.min() == 15 - 6 and seen.max() == 15 + 6


@pytest.mark.parametrize("bundle", ["dcsrn", "mdcsrn_gan", "srcnn"])
def test_as_the_citing_paper_has_it(bundle):
    """Mirrored and turned where the degradation allows it, one projection in training and inference; srcnn if asked."""
    truncation = {"_target_": "common.degradations.KSpaceTruncation", "factors": [2, 2, 1]}
    asked = {"turned": True, "projections": 1} if bundle == "srcnn" else {}
    for name, override in (
        ("train", {**asked, "dataset_dir": "none", "slice_axis": "SI"}),
        ("inference", {**asked, "checkpoint": None}),
    ):
        parser = ConfigParser()
        parser.read_config(runs.configs(bundle, name))
        parser.update({key: value for key, value in override.items() if key in parser})
        inferer = parser.get_parsed_content("inferer")
        assert inferer.iterations == 1 and inferer.degradation.factors == (2, 2, 1)
        if name == "train":
            assert parser["train#dataloader#turned"] == "@turned" and parser.get_parsed_content("turned") is True
    if bundle != "srcnn":
        assert content("turned", "train", scan_degradation=truncation) is False
