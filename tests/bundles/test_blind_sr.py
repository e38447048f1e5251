"""Blind-SR: its size, and that style transfer and super-resolution are trained apart."""

from __future__ import annotations

import torch
from monai.bundle import ConfigParser

from . import runs


def test_networks():
    """The size that the paper of UDEAN gives, of what inference needs (Liu et al. 2023, table II)."""
    for name in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(runs.configs("blind_sr", name))
        network = parser.get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters()) == 4_764_561


def test_they_are_trained_apart():
    """No term of style transfer reaches the SR network, and the SR network's none of the others."""
    small = {"features": 8, "groups": 1, "blocks": 1, "reduction": 4, "widths": [4, 8], "lr_patch": [16, 16, 3]}
    parser = ConfigParser()
    parser.read_config(runs.configs("blind_sr", "train"))
    parser.update({"device": "cpu", **small})
    graph, players = parser.get_parsed_content("graph"), parser["players"]
    slab = torch.rand(1, 1, 16, 16, 3)
    batch = {"hr": torch.rand(1, 1, 32, 32, 6), "lr": slab, "lr_source": slab.flip(2)}
    learns = {
        "hr_fake": {"super_resolver"},
        "target_fake_verdict": {"transfer_back"},
        "source_fake_verdict": {"transfer"},
        "target_cycle": {"transfer", "transfer_back"},
        "source_cycle": {"transfer", "transfer_back"},
        "target_self": {"transfer_back"},
        "source_self": {"transfer"},
    }
    trained = {row[2] for name in ("style", "sr") for row in players[name]["losses"].values()}
    assert trained == set(learns)
    for output, own in learns.items():
        graph.zero_grad(set_to_none=True)
        graph(batch, [output])[output].sum().backward()
        networks = ("transfer", "transfer_back", "super_resolver")
        touched = {name for name in networks if any(p.grad is not None for p in graph.networks[name].parameters())}
        assert touched == own, output
