"""``python -m common training-range`` on the configs of trainings."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from common.commands.training_range import measure_training_range
from common.transforms import compute_scan_statistics
from common.weights import SavedWeights, load_weights, read_overlay
from tests.bundles import runs
from tests.refused import refused

# The group whose volumes are learned from; what a scale makes of a pair.
BUNDLES = {"srcnn": "source", "udean": "target"}
SCALED = {
    "srcnn": ({"scale": [3, 3, 1]}, "in_plane_spacing", [2.4, pytest.approx(4.125, abs=0.01)]),
    "udean": ({"scale": [2, 2, 1]}, "slice_spacing", [0.96, 1.5]),
}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_range_of_what_training_sees(bundle, tmp_path, capsys):
    """Of LR as the bundle's degradation makes it of the group's volumes, a quarter more to both sides."""
    tiny, group = runs.TINY[bundle], BUNDLES[bundle]
    entries = [tiny.save_hr(tmp_path, seed, runs.phantom(seed), runs.AFFINE) for seed in range(3)]
    other = next(name for name in tiny.groups if name != group)
    runs.datalist(tmp_path, **{name: {group: entries[:2], other: entries[2:]}.get(name, []) for name in tiny.groups})
    given = {"dataset_dir": str(tmp_path), **({} if bundle == "udean" else {"slice_axis": "SI"})}

    def printed(group=group, **override):
        measure_training_range(runs.configs(bundle, "train"), group, **{**given, **override})
        return json.loads(capsys.readouterr().out)["training_range"]

    degradation, found, statistics = tiny.degradation, printed(), []
    for seed in (0, 1):
        hr = runs.phantom(seed)
        lr = degradation(torch.from_numpy(hr / np.quantile(hr, 0.999))[None])
        statistics.append(compute_scan_statistics(lr, degradation.compute_lr_affine(runs.AFFINE)))
    assert found.keys() == statistics[0].keys()
    for name in found.keys() - {"air"}:
        values = [value for of_volume in statistics for value in of_volume[name]]
        assert found[name] == pytest.approx([min(values) / 1.25, max(values) * 1.25], rel=0.01), name
    low, high = found["in_plane_spacing"]
    finer = printed(finer=2)
    assert finer["in_plane_spacing"] == pytest.approx([low / 2, high], rel=0.01)
    assert {**finer, "in_plane_spacing": [low, high]} == found
    # The same each time, and in the overlay of the weights where these are named, which stay as they are.
    weights, network = tmp_path / "models" / "model.pt", torch.nn.Linear(1, 1)
    SavedWeights(network, [weights], {"scale": [2, 2, 1]}).save()
    before, overlay = weights.read_bytes(), read_overlay(weights)
    assert printed(checkpoint=str(weights)) == found
    assert read_overlay(weights) == {**overlay, "training_range": found} and weights.read_bytes() == before
    load_weights(network, weights)
    # As of a training with other keys.
    override, name, expected = SCALED[bundle]
    assert printed(**override)[name] == expected
    # What is wrong is said.
    weights.with_suffix(".json").unlink()
    refused(partial(printed, checkpoint=str(weights)), FileNotFoundError, weights, "no model.json")
    (bad,) = tmp_path.glob(f"{tiny.case(1)}*")
    bad.write_bytes(b"no NIfTI")
    for options, words in (
        ({"scal": 2}, ["scal: ", "no such key", "--scale"]),
        ({"transform": "seeds"}, ["seeds: ", "no such key", "--seed"]),
        ({"group": "all"}, ["group is 'all'", "source, target"]),
        ({"finer": 0.9}, ["--finer 0.9", "at least 1"]),
        ({"dataset_dir": str(tmp_path / "nowhere")}, ["nowhere is not a folder"]),
        ({}, ["cannot be used", f"{bad.name}: not a readable image"]),
    ):
        refused(partial(printed, **options), ValueError, *words)
