"""ZSSR: its size, and that a scan alone is enough along each axis, in plane and across slices."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from common.degradations import GaussianProfile, KSpaceTruncation
from common.metrics import cubic
from common.scale import zero_shot

from . import runs


def test_layers():
    """Eight convolutions, as the original has."""
    for name in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(runs.configs("zssr", name))
        network = parser.get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters()) == 9 * (64 + 6 * 64 * 64 + 64) + 7 * 64 + 1 == 222_785


@pytest.mark.parametrize(
    "operator", [KSpaceTruncation((2, 2, 2)), KSpaceTruncation((2, 2, 1)), GaussianProfile((1, 1, 3))]
)
def test_a_scan_alone(tmp_path, operator):
    """Nothing but a scan, which ends nearer to HR than interpolation."""
    hr, affine = runs.phantom(0, (48, 48, 60)), np.diag([1.0, 1.0, 1.0, 1.0])
    scan = runs.save(tmp_path / "scan.nii.gz", *runs.degrade(hr, affine, operator))
    small = {"iterations": 80, "features": 8, "layers": 4, "lr_patch": [24, 24], "checkpoint": None, "slice_axis": "SI"}
    runs.run("zssr", ["inference"], tmp_path, dataset_dir=str(scan), scale=list(operator.factors), **small)
    sr, lr = nib.load(tmp_path / "out" / "scan_sr.nii.gz"), nib.load(scan)
    np.testing.assert_allclose(sr.affine, affine, atol=1e-5)
    about = json.loads((tmp_path / "out" / "scan_sr.json").read_text())["SuperResolution"]
    assert about["Adapted"]["Used"] and about["Scale"] == list(operator.factors) and "Weights" not in about
    base = cubic(lr.get_fdata(), operator.factors, operator.offset)
    assert np.square(sr.get_fdata() - hr).mean() < 0.95 * np.square(base - hr).mean()


@pytest.mark.parametrize("bundle", ["zssr", "smore"], indirect=True, scope="session")
def test_measured_on_scans_alone(bundle, cohort, tmp_path, capsys):
    """As a row of a table is: nothing is trained before, no weights are asked for, each test scan teaches itself."""
    for configs in (["train", "scan_alone"], ["train", "scan_alone", "evaluate"]):
        runs.run(bundle, configs, tmp_path, dataset_dir=str(cohort), slice_axis="SI", iterations=3)
        assert not (tmp_path / "models").exists()
    assert capsys.readouterr().out.count("adapted in ") == 1
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())["summary"]) == 2


@pytest.mark.parametrize("scale", [[2, 2, 4], [1, 2, 2], [1, 1, 1], [2, 2], [2.0, 2, 2], "auto"], ids=str)
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match=r"scale is .*expected \[n, n, n\], \[n, n, 1\] or \[1, 1, n\]"):
        zero_shot(scale=scale)
