"""TSCN: what its terms are of, and when the second is heard."""

from __future__ import annotations

import torch
from monai.bundle import ConfigParser

from . import runs


def test_terms():
    """Untrained, what is between is the mean, and a slice is given back with a quarter of its neighbours in it."""
    parser = ConfigParser()
    parser.read_config(runs.configs("tscn", "train"))
    parser.update({"device": "cpu", "features": 4, "blocks": 1})
    graph, weight = parser.get_parsed_content("graph"), parser.get_parsed_content("cycle")
    batch = {key: torch.rand(2, 1, 8, 8) for key in ("above", "slice", "below", "first", "second", "third")}
    found = graph(batch, ["second_fake", "slice_again"])
    torch.testing.assert_close(found["second_fake"], (batch["first"] + batch["third"]) / 2)
    torch.testing.assert_close(found["slice_again"], batch["slice"] / 2 + (batch["above"] + batch["below"]) / 4)
    assert (weight.value(), weight.iterations) == (0, 25_000)
    assert parser.get_parsed_content("players")["between"].schedule is weight
