"""What stands beside results, and what is logged of each scan."""

import hashlib
import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose

from common.data import CaseLoader, find_images
from common.degradations import BandLimit, ComposeDegradations, GaussianProfile, KSpaceTruncation
from common.engines import CaseEvaluator
from common.engines.evaluator import CasesFailedError
from common.handlers import InferenceResults, log_path
from common.provenance import describe, settings_of
from common.transforms import LoadScand, RestoreVolumed, SaveVolumed

DEGRADATION = KSpaceTruncation((2, 2, 1))


@pytest.fixture
def bundle(tmp_path):
    """A bundle named method 1.2.3, with a file of weights."""
    root = tmp_path / "bundles" / "method"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1.2.3"}))
    (root / "model.pt").write_bytes(b"weights")
    return root


def scan(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(0).integers(1, 1000, (6, 7, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([-1, 1.5, 3, 1])), path)
    return path


def warned(data):
    warnings.warn(f"{data['image'].meta['filename_or_obj']}: strange; look at it.", stacklevel=2)
    return {**data, "agreement": torch.tensor(0.25)}


def infer(bundle, scans, output_dir, network=None, bids=False, shard=None):
    """Scans through nearest-neighbour interpolation, as inference.json would run them."""
    dataset = Dataset(find_images(str(scans)), LoadScand("image", slice_axis="SI"))
    save = SaveVolumed("pred", output_dir, bids=bids, description=describe(bundle, DEGRADATION))
    CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=CaseLoader(dataset),
        network=network or torch.nn.Identity(),
        inferer=lambda volume, _: torch.as_tensor(volume).repeat_interleave(2, 2).repeat_interleave(2, 3),
        postprocessing=Compose([RestoreVolumed("pred", "image", DEGRADATION), warned, save]),
        val_handlers=[InferenceResults(output_dir, bundle, bundle / "model.pt", DEGRADATION, bids, shard)],
    ).run()


def test_a_result_says_where_it_comes_from(bundle, tmp_path, capsys):
    path, out = scan(tmp_path / "in" / "ä scan.nii.gz"), tmp_path / "out"
    infer(bundle, path, out)
    assert f"are in {out}\nthe log is {out / 'log.jsonl'}\n" in capsys.readouterr().out
    said = json.loads((out / "ä scan_sr.json").read_text())
    own = said.pop("SuperResolution")
    assert said == {
        "Description": "Super-resolved from ä scan.nii.gz by a network; fine detail is an estimate.",
        "Sources": [str(path)],
        "Resolution": "0.5 x 0.75 x 3 mm, super-resolved from 1 x 1.5 x 3 mm",
        "GeneratedBy": [{"Name": "method", "Version": "1.2.3", "Description": "MONAI bundle for MRI super-resolution"}],
    }
    assert own.pop("Seconds") > 0 and own.pop("Device").startswith("cpu, ")
    assert own.pop("Versions").keys() >= {"python", "monai", "torch", "nibabel"}
    assert own == {
        "Bundle": "method",
        "BundleVersion": "1.2.3",
        "Weights": {"File": "model.pt", "FileSha256": hashlib.sha256(b"weights").hexdigest()},
        "Scale": [2, 2, 1],
        "Degradation": {"Class": "KSpaceTruncation", "factors": [2, 2, 1]},
        "Agreement": 0.25,
        "SpacingBefore": [1, 1.5, 3],
        "SpacingAfter": [0.5, 0.75, 3],
        "Warnings": [f"{path}: strange; look at it."],
    }
    header = nib.load(out / "ä scan_sr.nii.gz").header
    assert header["descrip"].item() == b"super-resolved 2x2x1 by method 1.2.3"


def test_weights_that_know_themselves_are_named_as_they_say(bundle, tmp_path):
    network = torch.nn.Identity()
    network.about = {"path": "/other/best.onnx", "file_sha256": "ff", "sha256": "ee", "bundle": "method"}
    infer(bundle, scan(tmp_path / "in" / "a.nii"), tmp_path / "out", network)
    own = json.loads((tmp_path / "out" / "a_sr.json").read_text())["SuperResolution"]
    assert own["Weights"] == {"File": "best.onnx", "FileSha256": "ff", "Sha256": "ee"}


def test_degradations_are_described_with_what_they_consist_of():
    composed = ComposeDegradations([BandLimit((2, 2, 1)), GaussianProfile((2, 2, 1), fwhm=0.5)])
    said = json.loads(json.dumps(settings_of(composed)))
    assert said["Class"] == "ComposeDegradations"
    assert [part["Class"] for part in said["degradations"]] == ["BandLimit", "GaussianProfile"]
    assert said["degradations"][1] == {"Class": "GaussianProfile", "factors": [2, 2, 1], "fwhm": 0.5}


def test_every_scan_is_logged_run_after_run(bundle, tmp_path):
    scans, out = tmp_path / "in", tmp_path / "out"
    scan(scans / "a.nii")
    (scans / "b.nii").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(CasesFailedError):
            infer(bundle, scans, out)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a", "b", "a", "b"]
    assert lines[0].keys() == {"finished", "name", "image", "result", "error", "warnings", "seconds"}
    assert lines[0]["result"] == str(out / "a_sr.nii.gz") and lines[0]["error"] is None
    assert lines[0]["warnings"] == [f"{scans / 'a.nii'}: strange; look at it."]
    assert lines[1]["result"] is None and "not a readable image" in lines[1]["error"] and lines[1]["warnings"] == []
    assert not (out / "b_sr.json").exists()


def test_no_process_writes_into_the_log_of_another(bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert log_path(out) == out / "log.jsonl" and log_path(out, "1/1") == out / "log.jsonl"
    with monkeypatch.context() as torchrun:
        torchrun.setenv("RANK", "1")
        torchrun.setenv("WORLD_SIZE", "2")
        assert log_path(out) == out / "log_2of2.jsonl" and log_path(out, "2/3") == out / "log_4of6.jsonl"
    for name, shard in (("a", "1/2"), ("b", "2/2")):
        infer(bundle, scan(tmp_path / name / f"{name}.nii"), out, shard=shard)
        assert json.loads(log_path(out, shard).read_text())["name"] == name


@pytest.fixture
def raw(tmp_path):
    """A raw BIDS dataset of two scans."""
    root = tmp_path / "my-data"
    scan(root / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    scan(root / "sub-2" / "ses-1" / "anat" / "sub-2_ses-1_T1w.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    return root


def test_bids_derivatives_stand_in_a_dataset_of_their_own(bundle, raw, tmp_path):
    out = raw / "derivatives" / "sr"
    infer(bundle, raw, out, bids="true")
    names = ["sub-1/anat/sub-1_res-high_desc-sr_T1w", "sub-2/ses-1/anat/sub-2_ses-1_res-high_desc-sr_T1w"]
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    own = {"dataset_description.json", ".bidsignore", "log.jsonl"}
    assert written == {*own, *(f"{name}{end}" for name in names for end in (".nii.gz", ".json"))}
    assert json.loads((out / "dataset_description.json").read_text()) == {
        "Name": "Super-resolved MRI",
        "BIDSVersion": "1.11.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "method", "Version": "1.2.3", "Description": "MONAI bundle for MRI super-resolution"}],
        "DatasetLinks": {"mydata": "../.."},
    }
    said = json.loads((out / f"{names[1]}.json").read_text())
    assert said["Sources"] == ["bids:mydata:sub-2/ses-1/anat/sub-2_ses-1_T1w.nii.gz"] and said["SkullStripped"] is False


def test_what_a_folders_description_says_stays_and_sources_are_added(bundle, raw, tmp_path):
    out, described = tmp_path / "out", tmp_path / "out" / "dataset_description.json"
    out.mkdir()
    before = {"Name": "mine", "BIDSVersion": "1.8.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "me"}]}
    described.write_text(json.dumps(before | {"DatasetLinks": {"other": "file:///other"}}))
    infer(bundle, raw / "sub-1", out, bids=True)
    after = json.loads(described.read_text())
    assert {key: after[key] for key in before} == before | {"GeneratedBy": [{"Name": "me"}, after["GeneratedBy"][1]]}
    assert after["DatasetLinks"] == {"other": "file:///other", "mydata": raw.as_uri()}
    # What is in a derivative dataset has a skull if its JSON says so, and is not known to have one else.
    stripped = out / "sub-1" / "anat" / "sub-1_res-high_desc-sr_T1w.json"
    assert json.loads(stripped.read_text())["SkullStripped"] is False
    stripped.rename(stripped.with_name(stripped.name.replace("sub-1", "sub-3")))
    stripped.with_name(stripped.name.replace("sub-1", "sub-4")).write_text(json.dumps({"SkullStripped": True}))
    for name in ("3", "4", "5"):
        scan(stripped.with_name(stripped.name.replace("sub-1", f"sub-{name}")).with_suffix(".nii.gz"))
    stripped.with_suffix(".nii.gz").unlink()
    infer(bundle, out, tmp_path / "again", bids=True)
    known = {
        path.name[:5]: json.loads(path.read_text()).get("SkullStripped")
        for path in (tmp_path / "again").rglob("sub-*.json")
    }
    assert known == {"sub-3": False, "sub-4": True, "sub-5": None}


def test_derivatives_do_not_go_into_the_scans_dataset_or_beside_those_of_another(bundle, raw, tmp_path):
    before = (raw / "dataset_description.json").read_bytes()
    with pytest.raises(ValueError, match="is the scans' own dataset"):
        infer(bundle, raw / "sub-1" / "anat" / "sub-1_T1w.nii.gz", raw, bids=True)
    assert (raw / "dataset_description.json").read_bytes() == before and len(list(raw.rglob("*.nii.gz"))) == 2
    out = tmp_path / "out"
    infer(bundle, raw / "sub-1", out, bids=True)
    other = scan(tmp_path / "b" / "my-data" / "sub-9_T1w.nii.gz")
    Path(other.parent, "dataset_description.json").write_bytes(before)
    with pytest.raises(ValueError, match=r"links the dataset 'mydata' to .*expected .*/b/my-data; name another"):
        infer(bundle, other, out, bids=True)
    (out / "dataset_description.json").write_text("[]")
    with pytest.raises(ValueError, match="is no JSON object"):
        infer(bundle, raw / "sub-1", out, bids=True)
