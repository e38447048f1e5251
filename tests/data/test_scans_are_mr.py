"""What the scans of inference have in common: no CT is taken for MR."""

import nibabel as nib
import numpy as np
import pytest

from common.data import CaseLoader, Exams, GuidedScans, Scans, ThickScans
from common.degradations import GaussianProfile
from tests.refused import has


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pelvis of a CT, in HU and 1024 above, and as MR."""
    x, y, _ = np.indices((64, 64, 16)) - 31.5
    radius, bones = np.hypot(x / 30, y / 24), np.hypot(abs(x) - 15, y) < 4
    ct = np.select([bones, radius < 0.8, radius < 1], [700, 50, -100], -1000)
    mr = np.select([bones, radius < 0.8, radius < 1], [60, 500, 900], 10)
    noise = np.random.default_rng(0).normal(0, 8, ct.shape)
    folder = tmp_path_factory.mktemp("pelvis")
    for name, values in (("ct", ct + noise), ("above", ct + noise + 1024), ("mr", abs(mr + noise))):
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1.5, 1.5, 6, 1])), folder / f"{name}.nii")
    return folder


@pytest.mark.parametrize(
    "kind, given",
    [(Scans, {}), (GuidedScans, {"lr": "*", "guide": "*"}), (ThickScans, {"scale": [1, 1, 4]}), (Exams, {})],
)
def test_no_ct_is_taken_for_mr(files, tmp_path, kind, given):
    def read(name, **options):
        entry = {"image": str(files / f"{name}.nii"), "stacks": [str(files / "mr.nii")]}
        entry |= {"guide": str(files / "mr.nii")} if kind is GuidedScans else {}
        scans = kind(None, data=[entry], **given, **options)
        scans.find(str(tmp_path), GaussianProfile((1, 1, 1)))
        loader = CaseLoader(scans)
        return next(iter(loader)) or loader.cases[0].problem

    for name in ("ct", "above"):
        has(read(name), f"{name}.nii", "those of CT", "--dataset#check_mr False")
        assert read(name, check_mr=False)["image"].ndim == 5
    assert read("mr")["image"].ndim == 5
