"""Bundles that train nothing: they are evaluated by overlays of inference.json, and others begin as they do."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.program.commands.new import create_bundle
from common.program.commands.super_resolve import super_resolve
from common.runtime.unknown_keys import refuse_unknown_keys
from common.start import read_arguments

from .. import forked
from ..refused import has
from ..stacks.phantom import Phantom, grid
from . import runs

BUNDLES = sorted(path.name for path in runs.ROOT.glob("bundles/*") if (path / "configs" / "inference.json").is_file())
BUNDLES = [name for name in BUNDLES if name not in runs.BUNDLES]
EVALUATED = [name for name in BUNDLES if (runs.ROOT / "bundles" / name / "configs" / "evaluate.json").is_file()]
CONFIGS = ("inference", "evaluate", "demo")


@pytest.mark.parametrize("bundle", EVALUATED)
def test_overlays(bundle):
    """The keys of the demo are keys of the configs, and the command line takes theirs."""
    line = ["--config_file", str(runs.configs(bundle, *CONFIGS)), "--dataset_dir", "data"]
    refuse_unknown_keys(read_arguments(line))
    with pytest.raises(ValueError, match="--dataset_di: the configs have no such key; did you mean --dataset_dir"):
        refuse_unknown_keys(read_arguments([*line, "--dataset_di", "data"]))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_any_of_them_can_be_begun_with(bundle, tmp_path, capsys):
    """The new bundle does the same, under its own name, and is still without training."""
    create_bundle(str(tmp_path / "bundles" / "new_one"), str(runs.ROOT / "bundles" / bundle))
    folder = tmp_path / "bundles" / "new_one"
    configs = {path.stem: json.loads(path.read_text()) for path in (folder / "configs").glob("*.json")}
    assert "train" not in configs and configs["inference"]["bundle_root"] == str(folder)
    assert not [name for name, config in configs.items() if f"bundles/{bundle}" in json.dumps(config)]
    has(capsys.readouterr().out, "common/inferers/new_one.py")
    page = (folder / "docs" / "README.md").read_text()
    assert "train.json" not in page and "configs/inference.json','" in page
    if bundle == "joint_tv":
        _evaluate(folder, tmp_path, "new_one")


def test_joint_tv_is_evaluated(tmp_path):
    _evaluate(runs.ROOT / "bundles" / "joint_tv", tmp_path, "joint TV")


def _evaluate(folder, tmp_path, method):
    """Its row is better than cubic interpolation, for a head whose other contrast has slices in another plane."""
    entry = {"subject": "sub-1"}
    for key, contrast in (("hr", 1), ("guide", -1)):
        shape, affine = grid(2, size=32, thick=1)
        affine = np.diag([2.0, 2, 2, 1]) @ affine
        values = 250 * np.round(4 * Phantom(4, contrast).on(shape, affine))  # few grey values, so edges
        values += np.random.default_rng(0).normal(0, 3, shape)
        entry[key] = str(runs.save(tmp_path / "data" / f"sub-1_{key}.nii.gz", values, affine))
    groups = {"source": [], "target": [], "validation": [], "test": [entry]}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(groups))
    files = [str(folder / "configs" / f"{name}.json") for name in CONFIGS]
    words = ["run", "--config_file", str(files), "--output_dir", tmp_path / "out", "--dataset_dir", tmp_path / "data"]
    words += ["--slice_axis", "SI", "--scale", [1, 1, 3], "--device", "cpu"]
    done = forked.command(["monai.bundle", *words], runs.ROOT, tmp_path / "said")
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert table[method]["psnr"]["mean"] > table["cubic"]["psnr"]["mean"]
    result = nib.load(tmp_path / "out" / "sub-1_hr_sr.nii.gz")
    assert sorted(result.shape) == [30, 32, 32]  # whole slices of the scan


def test_exams_and_single_scans(tmp_path, capsys):
    """Named by its bundle, a folder's contrasts go together; a scan alone is made thin by total variation."""
    phantom, folder = {1: Phantom(3), -1: Phantom(3, -1)}, tmp_path / "in"
    for name, across, contrast in (("a_T1w", 2, 1), ("a_T2w", 0, -1), ("b_T1w", 2, 1)):
        shape, affine = grid(across, size=48)
        runs.save(folder / f"{name}.nii.gz", 1000 * phantom[contrast].stack(shape, affine), affine)
    super_resolve(str(folder), str(tmp_path / "out"), bundle="joint_tv")
    has(capsys.readouterr().out, "mm: a_T1w, a_T2w (2 stacks of 2 contrasts)", "mm: b_T1w (1 stack)")
    results = {name: nib.load(tmp_path / "out" / f"{name}_sr.nii.gz") for name in ("a_T1w", "a_T2w", "b_T1w")}
    errors = {}
    for name in ("a_T1w", "b_T1w"):
        true = phantom[1].on(results[name].shape, results[name].affine)
        errors[name] = np.mean((results[name].get_fdata() / 1000 - true) ** 2)
    assert errors["a_T1w"] < 0.9 * errors["b_T1w"]
    super_resolve(str(folder / "b_T1w.nii.gz"), str(tmp_path / "zero"), bundle="joint_tv", weight=0)
    agreed = nib.load(tmp_path / "zero" / "b_T1w_sr.nii.gz").get_fdata()
    assert np.abs(agreed - results["b_T1w"].get_fdata()).max() > 10
