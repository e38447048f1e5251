"""The demos of the rivals: simulated heads, a training, a table with cubic interpolation and the method in it."""

from __future__ import annotations

import json

import pytest
from monai.bundle import ConfigParser

from . import runs


@pytest.mark.parametrize("name", [name for name, tiny in runs.TINY.items() if tiny.like or name == "srcnn"])
def test_demo(name, tmp_path):
    """From one command, at tiny size, with the groups of which the method learns and no others."""
    config, tiny = ConfigParser(), runs.TINY[name]
    config.read_config(runs.configs(name, "train"))
    split = [min(subjects, 2) for subjects in config["simulated#datalist"]["split"]]
    small = {"simulated#subjects": sum(split), "simulated#spacing": 4, "simulated#datalist#split": split}
    small |= {**tiny.network, **tiny.training, **tiny.lasting(1, 2)}
    runs.run(name, ["train", "demo"], tmp_path, ckpt_dir=None, **small)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", config.get_parsed_content("method")]
    assert (tmp_path / "out" / "models" / "model.pt").is_file()
