"""Residual-shift diffusion: what is written of samples, and each scale."""

import json

import nibabel as nib
import numpy as np
import pytest

from . import runs

pytestmark = runs.only("res_srdiff")
TINY = runs.TINY["res_srdiff"]


def test_two_samples_give_their_mean_and_an_interval_of_their_spread(tmp_path):
    """In the file's units, grid and order of axes; the first sample is also drawn alone."""
    (tmp_path / "models").mkdir()
    runs.save_weights("res_srdiff", tmp_path / "models" / "model.pt")
    scan = TINY.save_lr(tmp_path / "scans", "a", runs.phantom(0), runs.OBLIQUE, axes="PSR")
    results = {}
    for samples in (1, 2):
        out = tmp_path / str(samples)
        options = {**TINY.only(scan), "output_dir": str(out), "samples": samples, "check_mr": False}
        runs.run("res_srdiff", ["inference"], tmp_path, **options)
        results[samples] = {path.name.split("_")[-1]: nib.load(path) for path in out.glob("*.nii.gz")}
    assert "interval.nii.gz" not in results[1]
    (first, mean), width = (results[n]["sr.nii.gz"].get_fdata() for n in (1, 2)), results[2]["interval.nii.gz"]
    np.testing.assert_allclose(width.affine, results[2]["sr.nii.gz"].affine, atol=1e-5)
    inside = mean > 1  # elsewhere values below 0 were cut off
    expected = 2 * np.abs(2 * (mean - first)) / 2**0.5
    np.testing.assert_allclose(width.get_fdata()[inside], expected[inside], atol=0.005)
    assert expected[inside].mean() > 0.1
    said = json.loads(next((tmp_path / "2").glob("*_interval.json")).read_text())
    assert said["Samples"] == 2 and "not calibrated" in said["Description"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [[2, 2, 2], [1, 1, 4]], ids=str)
def test_each_scale_is_trained_and_evaluated(scale, cohort, tmp_path):
    names, data = ["train"], {"dataset_dir": str(cohort), "scale": scale, "val_interval": 2}
    runs.run("res_srdiff", names, tmp_path, **data, **TINY.lasting(1, 2), patch=16)
    runs.run("res_srdiff", ["train", "evaluate"], tmp_path, **data)
    methods = {method for method, _ in runs.table(tmp_path)}
    assert methods == {"cubic", "Res-SRDiff"}
