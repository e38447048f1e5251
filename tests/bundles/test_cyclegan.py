"""CycleGAN: its sizes and its two forms."""

from __future__ import annotations

import torch
from monai.bundle import ConfigParser

from . import runs


def content(key, *names, **override):
    """What an entry of the merged configs is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("cyclegan", *names))
    parser.update(override)
    return parser.get_parsed_content(key)


def test_networks():
    """UDEAN's sizes; with the residual an untrained network stays near interpolation, without it there is no base."""
    for name in ("train", "inference"):
        network = content("network_def", name)
        assert sum(p.numel() for p in network.parameters()) == 2_457_002
        assert network.decoder.base is not None and content("network_def", name, residual=False).decoder.base is None


def test_each_generator_is_trained_by_its_cycle_and_its_verdict():
    """Every network of the generators has a gradient of each of the four terms that it has a part in."""
    small = {"features": 8, "groups": 1, "blocks": 1, "reduction": 4, "widths": [4, 8], "lr_patch": [16, 16, 3]}
    graph = content("graph", "train", device="cpu", **small)
    batch = {"hr": torch.rand(1, 1, 32, 32, 6), "lr": torch.rand(1, 1, 16, 16, 3)}
    both, up, down = (
        {"lr_encoder", "sr_decoder", "hr_encoder", "lr_decoder"},
        *(
            {"lr_encoder", "sr_decoder"},
            {"hr_encoder", "lr_decoder"},
        ),
    )
    for output, expected in {
        "lr_cycle": both,
        "hr_cycle": both,
        "hr_fake_verdict": up,
        "lr_fake_verdict": down,
    }.items():
        graph.zero_grad(set_to_none=True)
        graph(batch, [output])[output].sum().backward()
        touched = {name.split(".")[1] for name, p in graph.named_parameters() if p.grad is not None}
        assert touched & both == expected
