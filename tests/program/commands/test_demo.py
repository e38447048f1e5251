"""``python -m common demo``, for real."""

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from common.__main__ import main
from common.metrics import compute_psnr


def test_the_demo(tmp_path, capsys, monkeypatch):
    """From an empty folder: a result that is closer to HR than cubic, a picture, and the true PSNR."""
    monkeypatch.chdir(tmp_path)
    main(["demo"])
    folder, text = tmp_path / "mri_sr_demo", capsys.readouterr().out
    scan, hr, sr = (nib.load(folder / f"demo_{name}.nii.gz") for name in ("scan", "hr", "scan_sr"))
    assert sr.shape == hr.shape and hr.shape[2] > 2 * scan.shape[2]
    np.testing.assert_allclose(sr.affine, hr.affine, atol=1e-3)
    scale = np.quantile(hr.get_fdata(), 0.999)
    score = compute_psnr(*((image.get_fdata() / scale).clip(0, 1) for image in (sr, hr)))
    cubic, printed = (float(text.split(f"{name}: PSNR ")[1].split()[0]) for name in ("cubic", "SR"))
    assert printed == pytest.approx(score, abs=0.01) and printed > cubic + 1
    assert imread(folder / "demo.png").std() > 0.05
