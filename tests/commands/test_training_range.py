"""``python -m common training-range`` on the configs of trainings."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from common.about import remembered
from common.commands.training_range import training_range
from common.handlers import LastModel
from common.transforms import scan_statistics
from tests.bundles import runs
from tests.refused import refused

# The group whose volumes are learned from, the keys of the entries and of the transform; what a scale makes of a pair.
BUNDLES = {
    "udean": ("target", "train::target_dataset::data", "train::target_dataset::transform"),
    "guided_rdn": ("target", "target_data", "load"),
}
SCALED = {
    "udean": ({"scale": [2, 2, 1]}, "slice_spacing", [0.96, 1.5]),
    "guided_rdn": ({"scale": [3, 3, 1], "guided": False}, "in_plane_spacing", [2.4, pytest.approx(4.125, abs=0.01)]),
}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_range_of_what_training_sees(bundle, tmp_path, capsys):
    """Of LR as the bundle's degradation makes it of the group's volumes, a quarter more to both sides."""
    tiny, (group, entries_of, transform) = runs.TINY[bundle], BUNDLES[bundle]
    entries = [tiny.save_hr(tmp_path, seed, runs.phantom(seed), runs.AFFINE) for seed in range(3)]
    other = next(name for name in tiny.groups if name != group)
    runs.datalist(tmp_path, **{name: {group: entries[:2], other: entries[2:]}.get(name, []) for name in tiny.groups})
    given = {"dataset_dir": str(tmp_path), **({"slice_axis": "SI"} if bundle == "guided_rdn" else {})}

    def printed(data=entries_of, **override):
        training_range(runs.configs(bundle, "train"), data, transform, **{**given, **override})
        return json.loads(capsys.readouterr().out)["training_range"]

    degradation, found, statistics = tiny.degradation, printed(), []
    for seed in (0, 1):
        hr = runs.phantom(seed)
        lr = degradation(torch.from_numpy(hr / np.quantile(hr, 0.999))[None])
        statistics.append(scan_statistics(lr, degradation.lr_affine(runs.AFFINE)))
    assert found.keys() == statistics[0].keys()
    for name in found.keys() - {"air"}:
        values = [value for of_volume in statistics for value in of_volume[name]]
        assert found[name] == pytest.approx([min(values) / 1.25, max(values) * 1.25], rel=0.01), name
    low, high = found["in_plane_spacing"]
    finer = printed(finer=2)
    assert finer["in_plane_spacing"] == pytest.approx([low / 2, high], rel=0.01)
    assert {**finer, "in_plane_spacing": [low, high]} == found
    # The same each time, and in the weights where these are named.
    weights = tmp_path / "models" / "model.pt"
    LastModel(torch.nn.Linear(1, 1), [weights], {}).save()
    before = torch.load(weights, weights_only=True)
    assert printed(checkpoint=str(weights)) == remembered(weights, training_range=None) == found
    after = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    # As of a training with other keys.
    override, name, expected = SCALED[bundle]
    assert printed(**override)[name] == expected
    # What is wrong is said.
    (bad,) = tmp_path.glob(f"{tiny.case(1)}*")
    bad.write_bytes(b"no NIfTI")
    for options, words in (
        ({"data": "train::dat", "scal": 2}, ["no key scal, train::dat"]),
        ({"data": "seed"}, ["--data seed", "--transform", "are a int", "::"]),
        ({"finer": 0.9}, ["--finer 0.9", "at least 1"]),
        ({"dataset_dir": str(tmp_path / "nowhere")}, ["nowhere is not a folder"]),
        ({}, ["cannot be used", f"{bad.name}: not a readable image"]),
    ):
        refused(partial(printed, **options), ValueError, *words)
