"""DASR: its size, and who learns from what."""

from __future__ import annotations

import torch
from monai.bundle import ConfigParser

from . import runs


def content(key, *names, **override):
    """What an entry of the merged configs is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("dasr", *names))
    parser.update(override)
    return parser.get_parsed_content(key)


def test_networks():
    """The size that the paper of UDEAN gives, of what inference needs (Liu et al. 2023, table II)."""
    for name in ("train", "inference"):
        assert sum(p.numel() for p in content("network_def", name).parameters()) == 2_457_002


def test_who_learns_from_what():
    """Each term reaches the networks of its player; the weights of the error reach none."""
    small = {"features": 8, "groups": 1, "blocks": 1, "reduction": 4, "widths": [4, 8], "lr_patch": [16, 16, 3]}
    parser = ConfigParser()
    parser.read_config(runs.configs("dasr", "train"))
    parser.update({"device": "cpu", **small})
    graph, players = parser.get_parsed_content("graph"), parser["players"]
    slab = torch.rand(1, 1, 16, 16, 3)
    batch = {"hr": torch.rand(1, 1, 32, 32, 6), "lr": slab, "lr_source": slab.flip(2)}
    for player in ("dsn", "srn"):
        own = set(players[player]["networks"])
        for term, row in players[player]["losses"].items():
            graph.zero_grad(set_to_none=True)
            graph(batch, [row[2]])[row[2]].sum().backward()
            touched = {name.split(".")[1] for name, p in graph.named_parameters() if p.grad is not None}
            assert own <= touched, term
    assert not graph(batch, ["weights"])["weights"].requires_grad
    assert "weights" in players["srn"]["losses"]["image/weighted_l1"]
