"""ECLARE, SMORE and ZSSR: a scan alone is enough, and what that gives is nearer to HR than interpolation."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.degradations import GaussianProfile, KSpaceTruncation
from common.metrics import interpolate_cubic
from common.program.commands.compare import compare

from . import runs

SMALL = {"iterations": 60, "features": 8, "blocks": 1, "lr_patch": [24, 24], "checkpoint": None}
PLAIN = np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("bundle", "factor", "fwhm", "anti_aliasing"),
    [("smore", 4, 1.0, False), ("smore", 2.5, 0.8, True), ("eclare", 2.5, 0.8, None)],
)
def test_thick_slices_alone(bundle, factor, fwhm, anti_aliasing, tmp_path, capsys):
    """Nothing but scans, by a factor that need not be whole; one without thick slices fails by itself."""
    hr, operator = runs.phantom(0, (44, 48, 60)), GaussianProfile((1, 1, factor), fwhm=fwhm)
    files = {key: tmp_path / key / f"stack{post}.nii.gz" for key, post in (("lr", ""), ("sr", "_sr"))}
    runs.save(files["lr"], *runs.degrade(hr, PLAIN, operator))
    files["lr"].with_name("stack.json").write_text(json.dumps({"SliceThickness": fwhm * factor}))
    runs.save(tmp_path / "lr" / "thin.nii.gz", hr, PLAIN)
    inference = {"dataset_dir": str(tmp_path / "lr"), "output_dir": str(tmp_path / "sr")}
    if anti_aliasing is not None:
        inference["self_anti_aliasing"] = anti_aliasing
    small = SMALL if bundle == "smore" else SMALL | {"iterations": 240, "learning_rate": 0.003}
    with pytest.raises(Exception) as caught:
        runs.run(bundle, runs.CASES, tmp_path, scale=[1, 1, factor], **inference, **small)
    message = str(runs.first_cause(caught.value))
    assert "thin.nii.gz" in message and "does not show which axis" in message and "stack" not in message
    assert "training on the scan (" in capsys.readouterr().out
    sr, lr = (nib.load(files[key]) for key in ("sr", "lr"))
    np.testing.assert_allclose(sr.affine, PLAIN, atol=1e-3)
    about = json.loads((tmp_path / "sr" / "stack_sr.json").read_text())["SuperResolution"]
    assert about["Adapted"]["Used"] and about["Scale"] == [1, 1, factor] and "Weights" not in about
    assert about["Adapted"]["ProfileFrom"] == "protocol" and about["Adapted"]["Profile"] == fwhm
    compare(scan=str(files["lr"]), result=str(files["sr"]), output=str(tmp_path / "stack.png"))
    base = interpolate_cubic(lr.get_fdata(), operator.factors, operator.offset)
    assert np.square(sr.get_fdata() - hr).mean() < np.square(base - hr).mean()


def test_what_is_refused(tmp_path):
    """A scale in plane, and no training without weights, before anything is read."""
    scan = runs.save(tmp_path / "scan.nii.gz", runs.phantom(0, (24, 24, 8)), np.diag([1.0, 1.0, 3.0, 1.0]))
    for change, said in (
        ({"scale": [2, 2, 4]}, "scale is [2, 2, 4], expected [1, 1, n] across slices"),
        ({"scale": [1, 1, 3], "iterations": 0}, "iterations is 0 and there are no weights"),
        ({"scale": [1, 1, 3], "iterations": -1}, "expected a whole number of at least 0"),
    ):
        runs.fails("smore", ["inference"], tmp_path, said, dataset_dir=str(scan), **SMALL | change)


@pytest.mark.parametrize("bundle", ["eclare", "smore", "zssr", "tscn"])
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


@pytest.mark.parametrize("operator", [KSpaceTruncation((2, 2, 2)), GaussianProfile((1, 1, 3))])
def test_a_scan_alone(tmp_path, operator):
    hr = runs.phantom(0, (48, 48, 60))
    scan = runs.save(tmp_path / "scan.nii.gz", *runs.degrade(hr, PLAIN, operator))
    small = {"iterations": 80, "features": 8, "layers": 4, "lr_patch": [24, 24], "checkpoint": None, "slice_axis": "SI"}
    runs.run("zssr", runs.CASES, tmp_path, dataset_dir=str(scan), scale=list(operator.factors), **small)
    sr, lr = nib.load(tmp_path / "out" / "scan_sr.nii.gz"), nib.load(scan)
    np.testing.assert_allclose(sr.affine, PLAIN, atol=1e-5)
    about = json.loads((tmp_path / "out" / "scan_sr.json").read_text())["SuperResolution"]
    assert about["Adapted"]["Used"] and about["Scale"] == list(operator.factors) and "Weights" not in about
    base = interpolate_cubic(lr.get_fdata(), operator.factors, operator.offset)
    assert np.square(sr.get_fdata() - hr).mean() < 0.95 * np.square(base - hr).mean()


@pytest.mark.parametrize("bundle", ["eclare", "zssr", "smore"], indirect=True, scope="session")
def test_measured_on_scans_alone(bundle, tiny, cohort, tmp_path, capsys):
    """As a row of a table is: nothing is trained before, no weights are asked for, each test scan teaches itself."""
    for configs in (["train", "scan_alone"], ["train", "scan_alone", "evaluate"]):
        alone = {"dataset_dir": str(cohort), "slice_axis": "SI", "iterations": 3, "checkpoint": None, **tiny.network}
        runs.run(bundle, configs, tmp_path, **alone)
        assert not (tmp_path / "models").exists()
    assert capsys.readouterr().out.count("training on the scan (") == 1
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())["summary"]) == 2
