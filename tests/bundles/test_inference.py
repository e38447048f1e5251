"""inference.json has the sections that MONAI's own programs look for, in every bundle."""

import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from monai.bundle.properties import InferProperties

from common.program.cases.loader import CaseLoader
from tests.refused import has

from . import runs

CONFIGS = {
    path.parents[1].name: json.loads(path.read_text()) for path in runs.ROOT.glob("bundles/*/configs/inference.json")
}
BUNDLES = sorted(CONFIGS)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_monai_finds_its_properties(bundle, tmp_path):
    """All of them, those that MONAI calls optional too, each referred to from where MONAI expects it."""
    override, config = {"output_dir": str(tmp_path), "dataset#data": [], "device": "cpu"}, CONFIGS[bundle]
    if "checkpoint" in config and not (runs.ROOT / "bundles" / bundle / "models" / "model.pt").is_file():
        override["checkpoint"] = None
    workflow = ConfigWorkflow(runs.configs(bundle, "inference"), workflow_type="inference", logging_file=False)
    workflow.parser.update(override)
    workflow.initialize()
    assert workflow.check_properties() == []
    # Stacks of an exam have no common degradation to measure by.
    missing = {"key_metric"} if "fewest_stacks" in config else set()
    for name, known in InferProperties.items():
        key, place = known["id"], known.get("refer_id")
        assert (key in workflow.parser) == (name not in missing), name
        if name not in missing:
            assert place is None or workflow.parser[place] == f"@{key}"
            # These may be null.
            assert name in ("dataset_dir", "dataset_data") or getattr(workflow, name) is not None


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pelvis of a CT in HU, and as MR."""
    x, y, _ = np.indices((64, 64, 16)) - 31.5
    radius, bones = np.hypot(x / 30, y / 24), np.hypot(abs(x) - 15, y) < 4
    ct = np.select([bones, radius < 0.8, radius < 1], [700, 50, -100], -1000)
    mr = np.select([bones, radius < 0.8, radius < 1], [60, 500, 900], 10)
    noise = np.random.default_rng(0).normal(0, 8, ct.shape)
    folder = tmp_path_factory.mktemp("pelvis")
    for name, values in (("ct", ct + noise), ("mr", abs(mr + noise))):
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1.5, 1.5, 6, 1])), folder / f"{name}.nii")
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bundle", BUNDLES)
def test_no_ct_is_taken_for_mr(bundle, files, tmp_path):
    guided = "guide" in runs.content(bundle, None, "inference")

    def read(name, **override):
        entry = {"image": str(files / f"{name}.nii"), "stacks": [str(files / "mr.nii")]}
        entry |= {"guide": str(files / "mr.nii")} if guided else {}
        override |= {"dataset#data": [entry], "output_dir": str(tmp_path), "slice_axis": "SI", "register": False}
        loader = CaseLoader(runs.content(bundle, "dataset", "inference", **override))
        return next(iter(loader)) or loader.cases[0].problem

    has(read("ct"), "ct.nii", "those of CT", "--check_mr False")
    assert read("ct", check_mr=False)["image"].ndim == read("mr")["image"].ndim == 5
