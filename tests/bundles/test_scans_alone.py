"""SMORE and ZSSR: a scan alone is enough, and what that gives is nearer to HR than interpolation."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.commands.compare import compare
from common.degradations import GaussianProfile, KSpaceTruncation
from common.metrics import cubic
from common.physics.scale import zero_shot

from . import runs

SMALL = {"iterations": 60, "features": 8, "blocks": 1, "lr_patch": [24, 24], "checkpoint": None}


def test_scans_alone_by_their_own_factors(tmp_path, capsys):
    """Nothing but scans; each becomes as fine across as in plane, and one that cannot be fails by itself."""
    hr = runs.phantom(0, (44, 48, 60))
    isotropic = np.diag([1.0, 1.0, 1.0, 1.0])
    for name, factor in {"four": 4, "two_and_a_half": 2.5}.items():
        operator = GaussianProfile((1, 1, factor))
        runs.save(tmp_path / "lr" / f"{name}.nii.gz", *runs.degrade(hr, isotropic, operator))
    runs.save(tmp_path / "lr" / "thin.nii.gz", hr, isotropic)
    inference = {"dataset_dir": str(tmp_path / "lr"), "output_dir": str(tmp_path / "sr"), "report": True, **SMALL}
    with pytest.raises(Exception) as caught:
        runs.run("smore", ["inference"], tmp_path, **inference)
    message = str(runs.first_cause(caught.value))
    assert "thin.nii.gz" in message and "does not tell which axis" in message and "four" not in message
    results = [name for name in runs.leavings(tmp_path / "sr") if name.endswith(".nii.gz")]
    assert results == ["four_sr.nii.gz", "two_and_a_half_sr.nii.gz"]
    said = capsys.readouterr().out
    assert "scale [1, 1, 4]" in said and "scale [1, 1, 2.5]" in said and "training on the scan (" in said
    for name, factor in {"four": 4, "two_and_a_half": 2.5}.items():
        sr = nib.load(tmp_path / "sr" / f"{name}_sr.nii.gz")
        np.testing.assert_allclose(sr.header.get_zooms(), 1, atol=1e-3)
        assert sr.shape == hr.shape
        np.testing.assert_allclose(sr.affine, isotropic, atol=1e-3)
        about = json.loads((tmp_path / "sr" / f"{name}_sr.json").read_text())
        about = about["SuperResolution"]
        assert about["Adapted"]["Used"] and about["Scale"] == [1, 1, factor] and "Weights" not in about
        assert (tmp_path / "sr" / f"{name}_sr.html").is_file()
        files = {"lr": tmp_path / "lr" / f"{name}.nii.gz", "sr": tmp_path / "sr" / f"{name}_sr.nii.gz"}
        compare(**{key: str(path) for key, path in files.items()}, output=str(tmp_path / f"{name}.png"))
    lr = nib.load(tmp_path / "lr" / "four.nii.gz").get_fdata()
    base = cubic(lr, (1, 1, 4), (0, 0, 1.5))
    four = nib.load(tmp_path / "sr" / "four_sr.nii.gz").get_fdata()
    assert np.square(four - hr).mean() < np.square(base - hr).mean()


def test_what_is_refused(tmp_path):
    """A scale in plane, and no training without weights, before anything is read."""
    scan = runs.save(tmp_path / "scan.nii.gz", runs.phantom(0, (24, 24, 8)), np.diag([1.0, 1.0, 3.0, 1.0]))
    for change, said in (
        ({"scale": [2, 2, 4]}, "scale is [2, 2, 4], expected [1, 1, n] across slices"),
        ({"scale": [1, 1, 3], "iterations": 0}, "iterations is 0 and there are no weights"),
        ({"scale": [1, 1, 3], "iterations": -1}, "expected a whole number, 0 or more"),
    ):
        runs.fails("smore", ["inference"], tmp_path, said, dataset_dir=str(scan), **SMALL | change)


@pytest.mark.parametrize("bundle", ["smore", "zssr", "tscn"])
def test_one_network_for_many_scans(bundle, tmp_path):
    """None of them with known HR: the last weights are kept, and serve."""
    tiny = runs.TINY[bundle]
    scans = [{"lr": tiny.save_lr(tmp_path / "lr", subject, runs.phantom(subject))} for subject in range(3)]
    data = runs.datalist(tmp_path / "data", target=scans[:2], validation=scans[2:])
    runs.run(bundle, ["train"], tmp_path, dataset_dir=str(data))
    assert runs.history(tmp_path)[-1].keys() >= {"epoch", "iteration"}
    runs.run(bundle, ["inference"], tmp_path, **tiny.only(scans[2]["lr"]))
    assert (tmp_path / "out" / f"{tiny.case(2)}_sr.nii.gz").is_file()


def test_layers_of_zssr():
    """Eight convolutions, as the original has."""
    for name in ("train", "inference"):
        network = runs.content("zssr", "network_def", name)
        assert sum(p.numel() for p in network.parameters()) == 9 * (64 + 6 * 64 * 64 + 64) + 7 * 64 + 1 == 222_785


@pytest.mark.parametrize(
    "operator", [KSpaceTruncation((2, 2, 2)), KSpaceTruncation((2, 2, 1)), GaussianProfile((1, 1, 3))]
)
def test_a_scan_alone(tmp_path, operator):
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
    assert capsys.readouterr().out.count("training on the scan (") == 1
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())["summary"]) == 2


@pytest.mark.parametrize("scale", [[2, 2, 4], [1, 2, 2], [1, 1, 1], [2, 2], [2.0, 2, 2], "auto"], ids=str)
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match=r"scale is .*expected \[n, n, n\], \[n, n, 1\] or \[1, 1, n\]"):
        zero_shot(scale=scale)
