"""The interval next to a result, of every bundle that has weights for one scan."""

import json

import nibabel as nib
import numpy as np

from common.metrics import Interval
from common.program.cases.scans import is_result

from . import runs

CASES, INTERVAL = list(runs.CASES), f"{runs.OVERLAYS}/interval"
FACTORS = {"air": 0.5, "dark": 1.0, "middle": 2.0, "bright": 4.0}


@runs.of("udean_window", "ct_guided", "guided_rdn")
def test_interval(bundle, tmp_path):
    """Refused for weights whose error is unknown, else written in units and grid of the result; it is no scan."""
    tiny, models, out = runs.TINY[bundle], tmp_path / "models", tmp_path / "sr"
    models.mkdir()
    runs.save_weights(bundle, models / "model.pt")
    scan = tiny.save_lr(tmp_path / "scans", "a", runs.phantom(0))
    options = {**tiny.only(scan), "output_dir": str(out), "check_mr": False}
    runs.fails(bundle, [*CASES, INTERVAL], tmp_path, "--calibrate", "hr", "people", **options)
    interval = Interval(0.9, FACTORS, 12)
    overlay = models / "model.json"
    overlay.write_text(json.dumps({**json.loads(overlay.read_text()), "interval": interval.describe()}))
    runs.run(bundle, [*CASES, INTERVAL], tmp_path, **options)
    name = scan.name.removesuffix(".nii.gz")
    lr, sr, width = (nib.load(path) for path in (scan, out / f"{name}_sr.nii.gz", out / f"{name}_interval.nii.gz"))
    np.testing.assert_allclose(width.affine, sr.affine, atol=1e-5)
    assert width.shape == sr.shape and width.get_data_dtype() == np.float32
    factors = np.divide(sr.shape, lr.shape)
    expected = interval.compute_half_width(sr.get_fdata(dtype=np.float32), lr.get_fdata(dtype=np.float32), factors)
    # The noise of a scan with its axes in another order is measured at other voxels.
    assert np.median(np.abs(width.get_fdata() / expected - 1)) < 0.1
    said = json.loads((out / f"{name}_interval.json").read_text())
    assert said["Level"] == 0.9 and said["CalibrationPeople"] == 12 and said["Factors"] == FACTORS
    assert is_result(out / f"{name}_interval.nii.gz")
    # It is known on the weights' grid only, and does not stay beside a later result.
    grid = [*CASES, f"{runs.OVERLAYS}/grid"]
    runs.fails(bundle, [*grid, INTERVAL], tmp_path, "--spacing", **options, spacing=0.9)
    runs.run(bundle, grid, tmp_path, **options, spacing=0.9)
    assert not [*out.glob("*_interval*")]
