"""``python -m common training-range`` on the configs of trainings."""

import json

import numpy as np
import pytest
import torch

from common.about import remembered
from common.commands.training_range import training_range
from common.handlers import LastModel
from common.transforms import scan_statistics
from tests.bundles import runs

VOLUMES = {
    "udean": ("target", "train::target_dataset::data", "train::target_dataset::transform"),
    "guided_rdn": ("target", "target_data", "load"),
}


@pytest.fixture(params=VOLUMES)
def bundle(request):
    return request.param


@pytest.fixture
def cohort(bundle, tmp_path):
    """Two LR volumes to be made, of the group that the training takes them from, and others elsewhere."""
    tiny, group = runs.TINY[bundle], VOLUMES[bundle][0]
    entries = {seed: tiny.save_hr(tmp_path, seed, runs.phantom(seed), runs.AFFINE) for seed in range(3)}
    other = next(name for name in tiny.groups if name != group)
    groups = {name: {group: [entries[0], entries[1]], other: [entries[2]]}.get(name, []) for name in tiny.groups}
    return runs.datalist(tmp_path, **groups)


def printed(bundle, capsys, cohort, **override):
    _, data, transform = VOLUMES[bundle]
    if bundle == "guided_rdn":
        override["slice_axis"] = "SI"
    training_range(runs.configs(bundle, "train"), data, transform, dataset_dir=str(cohort), **override)
    return json.loads(capsys.readouterr().out)["training_range"]


def test_the_range_of_what_training_sees(bundle, cohort, capsys):
    """Of LR as the bundle's degradation makes it of the group's volumes, a quarter more to both sides."""
    degradation = runs.TINY[bundle].degradation
    found = printed(bundle, capsys, cohort)
    statistics = []
    for seed in (0, 1):
        hr = runs.phantom(seed)
        lr = degradation(torch.from_numpy(hr / np.quantile(hr, 0.999))[None])
        statistics.append(scan_statistics(lr, degradation.lr_affine(runs.AFFINE)))
    assert found.keys() == statistics[0].keys()
    for name in found.keys() - {"air"}:
        values = [value for of_volume in statistics for value in of_volume[name]]
        assert found[name] == pytest.approx([min(values) / 1.25, max(values) * 1.25], rel=0.01), name
    finer = printed(bundle, capsys, cohort, finer=2)
    assert finer.pop("in_plane_spacing") == pytest.approx(
        [found["in_plane_spacing"][0] / 2, found["in_plane_spacing"][1]], rel=0.01
    )
    assert finer == {name: pair for name, pair in found.items() if name != "in_plane_spacing"}
    # The same each time, and in the weights where these are named.
    weights = cohort / "models" / "model.pt"
    LastModel(torch.nn.Linear(1, 1), [weights], {}).save()
    before = torch.load(weights, weights_only=True)
    assert printed(bundle, capsys, cohort, checkpoint=str(weights)) == remembered(weights, training_range=None)
    after = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert printed(bundle, capsys, cohort) == found


def test_overrides_and_overlays_are_those_of_the_training(bundle, cohort, capsys):
    if bundle == "udean":
        assert printed(bundle, capsys, cohort, scale=[2, 2, 1])["slice_spacing"] == [0.96, 1.5]
    else:
        assert printed(bundle, capsys, cohort, scale=[3, 3, 1], guided=False)["in_plane_spacing"] == [
            2.4,
            pytest.approx(4.125, abs=0.01),
        ]


def test_refusals(bundle, cohort, capsys):
    _, data, transform = VOLUMES[bundle]
    configs = runs.configs(bundle, "train")
    with pytest.raises(ValueError, match=r"no key scal, train::dat"):
        training_range(configs, "train::dat", transform, scal=2)
    with pytest.raises(ValueError, match=r"--data seed and --transform .* are a int and .*::"):
        training_range(configs, "seed", transform)
    with pytest.raises(ValueError, match=r"nowhere is not a folder"):
        training_range(configs, data, transform, dataset_dir=str(cohort / "nowhere"))
    (bad,) = cohort.glob(f"{runs.TINY[bundle].case(1)}*")
    bad.write_bytes(b"no NIfTI")
    with pytest.raises(ValueError, match=rf"(?s)cannot be used.*{bad.name}: not a readable image"):
        printed(bundle, capsys, cohort)
