"""The weights that guided_rdn ships: they load as they are, and beat interpolation on a head that no training saw."""

from __future__ import annotations

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.simulate import simulate
from common.degradations import BandLimit, ComposeDegradations, EllipticalKSpace, GaussianProfile, RicianNoise
from common.metrics import cubic, psnr

from . import runs

MODELS = runs.ROOT / "bundles" / "guided_rdn" / "models"
TRUNCATION = ComposeDegradations([BandLimit((2, 2, 1)), GaussianProfile((2, 2, 1), fwhm=0.02)])
# What a scanner may do, and by how many dB the result must be better than cubic without and with a guide: a bit more
# than half of what it is. The guide is made of the same tissue maps, so that it must help here.
SCANS = {
    "truncated": (TRUNCATION, 0.7, 2.4),
    "blurred": (GaussianProfile((2, 2, 1)), 1.4, 3.0),
    "elliptical": (ComposeDegradations([TRUNCATION, EllipticalKSpace((0, 1))]), 0.3, 1.8),
    "noisy": (ComposeDegradations([TRUNCATION, RicianNoise(0.02, seed=5)]), 0.6, 2.1),
}


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """T2w, T1w and affine of some slices of a head of an anatomy that training never saw, T2w in [0, 1]."""
    folder = tmp_path_factory.mktemp("head")
    simulate(str(folder), subjects=1, seed=7, contrasts="t1w,t2w", spacing=1.3)
    images = [nib.load(folder / "sub-001" / f"sub-001_{contrast}.nii.gz") for contrast in ("t2w", "t1w")]
    middle = images[0].shape[2] // 2
    t2w, t1w = (
        image.slicer[: 2 * (image.shape[0] // 2), : 2 * (image.shape[1] // 2), middle : middle + 12] for image in images
    )
    hr = t2w.get_fdata() / np.quantile(t2w.get_fdata(), 0.999)
    return hr, t1w.get_fdata(), t2w.affine


def infer(scans, out, *words):
    """Run inference.json by the real command line with its own defaults, from the repository's root."""
    config = "bundles/guided_rdn/configs/inference.json"
    line = ["run", "--config_file", config, "--dataset_dir", str(scans), "--output_dir", str(out), *words]
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", *line],
        cwd=runs.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_better_than_cubic(head, tmp_path, guided):
    """Nothing but the folders is said, and every scan gains, whatever the scanner did to it."""
    hr, guide, affine = head
    scans, truth = {}, torch.from_numpy(hr).clamp(0, 1)
    for name, (degradation, *_) in SCANS.items():
        lr, placed = runs.degrade(hr, affine, degradation)
        scans[name] = runs.save(tmp_path / "scans" / f"sub-{name}_t2w.nii.gz", 1000 * lr, placed)
        if guided:
            runs.save(tmp_path / "scans" / f"sub-{name}_t1w.nii.gz", guide, affine)
    done = infer(tmp_path / "scans", tmp_path / "out", *([] if guided else ["--guided", "false"]))
    assert done.returncode == 0, done.stderr
    gains = {}
    for name, (degradation, *_) in SCANS.items():
        sr = nib.load(tmp_path / "out" / f"sub-{name}_t2w_sr.nii.gz")
        np.testing.assert_allclose(sr.affine, affine, atol=1e-4)
        lr = torch.from_numpy(nib.load(scans[name]).get_fdata())[None, None] / 1000
        base = cubic(lr, degradation.factors, degradation.offset)[0, 0].clamp(0, 1)
        gains[name] = psnr(torch.from_numpy(sr.get_fdata() / 1000).clamp(0, 1), truth) - psnr(base, truth)
    assert all(gains[name] > least[guided] for name, (_, *least) in SCANS.items()), gains


def test_without_a_guide(tmp_path):
    """A person who has no guide is told which switch goes without."""
    runs.save(tmp_path / "scans" / "sub-a_t2w.nii.gz", runs.phantom(0), np.diag([1.0, 1.0, 2.0, 1.0]))
    done = infer(tmp_path / "scans", tmp_path / "out")
    assert done.returncode != 0 and "--guided false" in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["model.pt", "model_unguided.pt"])
def test_size(name):
    """The zoo takes no file above 25 MB."""
    assert (MODELS / name).stat().st_size < 25e6
