"""What holds for every bundle: it trains, it infers, and MONAI's own checks of a bundle pass."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from nibabel.affines import apply_affine

from common.command_line import check

from . import runs

# Mandatory by MONAI's bundle specification; the zoo asks for the changelog and the schema too.
META = {
    "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
    "task", "description", "authors", "copyright", "network_data_format",
}  # fmt: skip
TENSOR = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"}


def contents(folder):
    """Every file below a folder with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train(bundle, cohort, trained, tmp_path):
    """Train.json by the real command line leaves weights, state and history; resumed when finished it does nothing."""
    assert {p.name for p in (trained / "models").iterdir()} == {"model.pt", "training_state.pt"}
    epochs, length = runs.TRAINING[bundle]["max_epochs"], runs.TRAINING[bundle]["epoch_length"]
    lines = runs.history(trained)
    validations = [line for line in lines if any(key.startswith("validation/") for key in line)]
    steps = [line for line in lines if line not in validations]
    assert [line["iteration"] for line in steps] == list(range(1, epochs * length + 1))
    assert [line["epoch"] for line in steps] == [1 + i // length for i in range(epochs * length)]
    assert [line["iteration"] for line in validations] == [length * (i + 1) for i in range(epochs)]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert any((trained / "out" / "tensorboard").iterdir())

    again = shutil.copytree(trained, tmp_path / "again")
    done = runs.command(bundle, ["train"], again, dataset_dir=cohort, resume=True)
    assert done.returncode == 0, done.stderr
    before, after = contents(trained), contents(again)
    before, after = [{k: v for k, v in c.items() if "tensorboard" not in k.parts} for c in (before, after)]
    assert before == after


def test_properties(bundle, cohort, trained, tmp_path):
    """MONAI finds every property that it asks of a training and of an inference workflow."""
    scans = tmp_path / "scans"
    runs.save(scans / "a.nii.gz", *runs.degrade(runs.phantom(0), runs.AFFINE))
    for config, kind, data in (("train", "train", cohort), ("inference", "infer", scans)):
        workflow = ConfigWorkflow(
            config_file=runs.configs(bundle, config),
            workflow_type=kind,
            logging_file=False,
            **runs.tiny(bundle, config, trained, dataset_dir=str(data)),
        )
        workflow.initialize()
        assert workflow.check_properties() == []


def test_metadata(bundle):
    """Metadata.json has what the specification and the zoo ask for, and a licence lies beside it."""
    root = runs.ROOT / "bundles" / bundle
    meta = json.loads((root / "configs" / "metadata.json").read_text())
    assert META <= meta.keys() and meta["version"] in meta["changelog"]
    tensors = meta["network_data_format"]
    for tensor in (*tensors["inputs"].values(), *tensors["outputs"].values()):
        assert TENSOR <= tensor.keys()
    for file in ("configs/inference.json", "configs/train.json", "configs/logging.conf", "LICENSE", "docs/README.md"):
        assert (root / file).is_file(), f"{root / file} is missing"


def test_overlays(bundle, monkeypatch):
    """An overlay changes keys that train.json has, or adds keys that it refers to; the command line takes its keys."""
    train = ConfigParser()
    train.read_config(runs.configs(bundle, "train"))
    configs = {path.stem for path in (runs.ROOT / "bundles" / bundle / "configs").glob("*.json")}
    overlays = configs - {"train", "inference", "metadata", "tables"}
    assert {"evaluate", "demo", "multi_gpu_train"} <= overlays
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for overlay in overlays:
        content = json.loads(Path(*runs.configs(bundle, overlay)).read_text())
        for key in content:
            known = key.removeprefix("+") in train or f"@{key}" in json.dumps(content) or key == "finalize"
            assert known, f"{overlay}.json: {key} is neither in train.json nor used"
    for names in (["inference"], ["train"], *(["train", overlay] for overlay in overlays)):
        merged = ConfigParser()
        merged.read_config(runs.configs(bundle, *names))
        assert merged["run"] and "$check()" in merged["initialize"]
        line = ["bundle/__main__.py", *runs.words(bundle, names, Path("out"), dataset_dir="data")]
        check(line)
        with pytest.raises(ValueError, match="--dataset_di: the configs have no such key; did you mean dataset_dir"):
            check([*line, "--dataset_di", "data"])


@pytest.mark.parametrize("n", [1, 24])
def test_network_in_out(bundle, n):
    """The network of inference.json takes and gives what metadata.json says, as MONAI checks it, and in shape."""
    meta = str(runs.ROOT / "bundles" / bundle / "configs" / "metadata.json")
    (config,) = runs.configs(bundle, "inference")
    monai.bundle.verify_net_in_out(
        net_id="network_def", meta_file=meta, config_file=config, n=n, device="cpu", **runs.NETWORK[bundle]
    )
    parser = ConfigParser()
    parser.read_config(config)
    parser.read_meta(meta)
    parser.update(runs.NETWORK[bundle])
    network = parser.get_parsed_content("network_def").eval()
    shapes = [
        [eval(str(size), {"n": n}) for size in parser[f"_meta_#network_data_format#{name}#spatial_shape"]]
        for name in ("inputs#image", "outputs#pred")
    ]
    assert list(network(torch.rand(1, 1, *shapes[0])).shape) == [1, 1, *shapes[1]]


def test_export(bundle, trained, tmp_path):
    """MONAI's ckpt_export writes TorchScript that gives what the weights give, at sizes it has not seen."""
    (config,) = runs.configs(bundle, "inference")
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(trained / "models" / "model.pt"),
        meta_file=str(runs.ROOT / "bundles" / bundle / "configs" / "metadata.json"),
        config_file=config,
        **runs.NETWORK[bundle],
    )
    exported = torch.jit.load(tmp_path / "model.ts").eval()
    parser = ConfigParser()
    parser.read_config(config)
    parser.update(runs.NETWORK[bundle])
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    for size in ((1, 1, 32, 32, 3), (2, 1, 17, 24, 3), (1, 1, 5, 5, 3)):
        slab = torch.rand(size)
        with torch.no_grad():
            torch.testing.assert_close(exported(slab), network(slab), atol=1e-5, rtol=0)


def centre_of_mass(image):
    """In world coordinates."""
    volume = image.get_fdata()
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), axis=-1)
    return apply_affine(image.affine, np.average(index.reshape(-1, 3), axis=0, weights=volume.ravel()))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_inference_orientations(bundle, trained, tmp_path, dtype):
    """A scan of any orientation comes back in that orientation and type, and lies where HR lies in the world."""
    scans = {
        "RAS": (runs.AFFINE, "RAS"),
        "SRA": (runs.AFFINE, "SRA"),
        "PSR": (runs.AFFINE, "PSR"),
        "LAS": (runs.AFFINE, "LAS"),
        "oblique": (runs.OBLIQUE, "RAS"),
        "obliqueIPL": (runs.OBLIQUE, "IPL"),
    }
    hr = runs.phantom(7, (44, 48, 40))
    (tmp_path / "scans").mkdir()
    for name, (affine, axes) in scans.items():
        runs.save(tmp_path / "scans" / f"{name}.nii.gz", *runs.degrade(hr, affine), dtype, axes)
    inference = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "sr")}
    runs.run(bundle, ["inference"], trained, **inference)
    found = {}
    for name, (affine, _) in scans.items():
        lr, sr = nib.load(tmp_path / "scans" / f"{name}.nii.gz"), nib.load(tmp_path / "sr" / f"{name}_sr.nii.gz")
        assert nib.aff2axcodes(sr.affine) == nib.aff2axcodes(lr.affine)
        assert sr.get_data_dtype() == lr.get_data_dtype() == dtype and sr.dataobj.slope == 1
        assert sr.shape == tuple(2 * n for n in lr.shape)
        np.testing.assert_allclose(sr.affine, lr.affine @ np.diag([0.5, 0.5, 0.5, 1]), atol=1e-5)
        distance = np.linalg.inv(affine[:3, :3]) @ (centre_of_mass(sr) - centre_of_mass(nib.Nifti1Image(hr, affine)))
        assert np.abs(distance).max() < 0.1
        found[name] = sr.get_fdata()
        assert 0 <= found[name].min() and 0.9 < found[name].max() / hr.max() < 1.1
    # Where axes are only permuted, the slabs are the same, so that the result is.
    tolerance = 1 if dtype == np.int16 else 0.01
    np.testing.assert_allclose(found["SRA"].transpose(1, 2, 0), found["RAS"], atol=tolerance)
    np.testing.assert_allclose(found["oblique"], found["RAS"], atol=tolerance)

    # One file gives what it gave in the folder.
    one = {"dataset_dir": str(tmp_path / "scans" / "PSR.nii.gz"), "output_dir": str(tmp_path / "one")}
    runs.run(bundle, ["inference"], trained, **one)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["PSR_sr.nii.gz"]
    np.testing.assert_array_equal(nib.load(tmp_path / "one" / "PSR_sr.nii.gz").get_fdata(), found["PSR"])
