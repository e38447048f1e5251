"""TSCN: what its terms are of, when the second is heard, and a whole run of the demo."""

from __future__ import annotations

import json

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


def test_demo(tmp_path):
    """The demo simulates heads, trains and evaluates."""
    small = {"simulated#subjects": 4, "simulated#spacing": 3, "max_epochs": 1, "epoch_length": 2, "batch_size": 2}
    small |= {"features": 4, "blocks": 1, "lr_patch": [24, 8]}
    small |= {"simulated#datalist": {"hr": "*/*_t1w.nii.gz", "split": [0, 2, 1, 1]}}
    runs.run("tscn", ["train", "demo"], tmp_path, ckpt_dir=None, **small)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "TSCN"]
