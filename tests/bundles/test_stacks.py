"""The bundle ``stacks``, which is applied and not trained: here, exported, and as the model zoo takes it."""

import json
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch

from common.commands.export import export

from ..stacks.phantom import Phantom, grid
from . import runs
from .test_bundles import META, TENSOR
from .test_export import at, forget  # noqa: F401


def applied(folder: Path, scratch: Path, config: str, **options: object) -> None:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = at(folder, scratch, "run", "--config_file", config, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exported_and_in_the_zoo(tmp_path, monkeypatch, forget):  # noqa: F811
    """Exported it gives the repository's voxels, and passes what the zoo's full verification calls."""
    for plane, across in (("ax", 2), ("sag", 0)):
        shape, affine = grid(across)
        runs.save(tmp_path / "scans" / f"t1_{plane}.nii.gz", 1000 * Phantom(7).stack(shape, affine), affine)
    options = {"dataset_dir": str(tmp_path / "scans"), "adapt_iterations": 0}
    applied(runs.ROOT, tmp_path, "bundles/stacks/configs/inference.json", output_dir=tmp_path / "here", **options)
    export(str(runs.ROOT / "bundles" / "stacks"), str(tmp_path / "dist"))
    (folder,) = (path for path in (tmp_path / "dist").iterdir() if path.is_dir())
    applied(folder, tmp_path, "configs/inference.json", output_dir="there", **options)
    here, there = (nib.load(path / "t1_sr.nii.gz") for path in (tmp_path / "here", folder / "there"))
    assert here.header == there.header
    np.testing.assert_array_equal(here.get_fdata(), there.get_fdata())
    meta = json.loads((folder / "configs" / "metadata.json").read_text())
    assert META <= meta.keys() and meta["version"] in meta["changelog"]
    tensors = meta["network_data_format"]
    assert all(TENSOR <= tensor.keys() for tensor in (tensors["inputs"]["image"], tensors["outputs"]["pred"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    files = {name: str(folder / f"configs/{name}.json") for name in ("metadata", "inference")}
    files = {"meta_file": files["metadata"], "config_file": files["inference"], "bundle_root": str(folder)}
    monai.bundle.verify_net_in_out(net_id="network_def", device="cpu", **files)
    weights, exported = folder / "models" / "model.pt", folder / "models" / "verify_model.ts"
    monai.bundle.ckpt_export(net_id="network_def", filepath=str(exported), ckpt_file=str(weights), **files)
    torch.jit.load(exported)
    workflow = monai.bundle.create_workflow(
        workflow_type="inference", dataset_dir=options["dataset_dir"], logging_file=False, **files
    )
    assert workflow.check_properties() in (None, [])


@pytest.mark.slow
def test_by_itself(tmp_path):
    """Without a folder it simulates an exam of three stacks, of which it makes one volume."""
    applied(runs.ROOT, tmp_path, "bundles/stacks/configs/inference.json", output_dir=tmp_path, adapt_iterations=0)
    result = nib.load(tmp_path / "simulated_t1w_sr.nii.gz")
    (true,) = tmp_path.rglob("hr/simulated_t1w.nii.gz")
    true = nib.load(true)
    size = tuple(slice(n) for n in np.minimum(result.shape, true.shape))
    hr = true.get_fdata()[size]
    assert -10 * np.log10(np.mean((result.get_fdata()[size] - hr) ** 2) / np.percentile(hr, 99.9) ** 2) > 30
