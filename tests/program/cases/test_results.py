"""What stands beside results, and what is logged of each scan."""

import json
import os
import platform
import shutil
import warnings
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose

from common.degradations import BandLimit, ComposeDegradations, GaussianProfile, KSpaceTruncation
from common.handlers import DataConsistency
from common.io.read import digest_voxels
from common.metrics import measure_scan_difference
from common.program import files
from common.program.cases.evaluator import CaseEvaluator, CasesFailedError
from common.program.cases.inputs import compare_inputs, describe_file, hide_folder
from common.program.cases.results import InferenceResults, get_log_path
from common.program.cases.scans import find_scans
from common.program.cases.sharding import select_pending_cases
from common.program.provenance import describe_settings, hide_folders
from common.transforms import LoadScand, RestoreVolumed, SaveVolumed
from tests.refused import refused

DEGRADATION = KSpaceTruncation((2, 2, 1))
METHOD = {"Name": "method", "Version": "1.2.3", "Description": "MONAI bundle for MRI super-resolution"}


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "bundles" / "method"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "1.2.3"}))
    return root


def scan(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(seed).integers(1, 1000, (6, 7, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([-1, 1.5, 3, 1])), path)
    return path


def read(path):
    return json.loads(path.read_text())


def warned(data, **measured):
    warnings.warn(f"{data['image'].meta['filename_or_obj']}: strange; look at it.", stacklevel=2)
    return {**data, **measured}


def enlarge(volume, _=None):
    return torch.as_tensor(volume).repeat_interleave(2, -3).repeat_interleave(2, -2)


def infer(bundle, scans, output_dir, network=None, bids=False, shard=None, warned=warned, keep_paths=False, meet=dict):
    """Scans through nearest-neighbour interpolation, as inference.json would run them."""
    cases = select_pending_cases(find_scans(str(scans)), output_dir, bids=bids)
    dataset = Dataset(cases, LoadScand("image", slice_axis="SI"))
    meet(moment="chosen")
    save = SaveVolumed("pred", output_dir)
    steps = [RestoreVolumed("pred", "image", DEGRADATION), warned, partial(meet, moment="inferred"), save]
    options = {"postprocessing": Compose([*steps, partial(meet, moment="saved")])}
    options |= {"val_handlers": [InferenceResults(bundle, bids, shard, keep_paths)]}
    options |= {"inferer": enlarge}
    options |= {"key_val_metric": {"consistency_error": DataConsistency(DEGRADATION)}}
    evaluator = CaseEvaluator(torch.device("cpu"), dataset, network or torch.nn.Identity(), **options)
    evaluator.run()
    return evaluator


def test_a_result_says_where_it_comes_from(bundle, tmp_path):
    path, out = scan(tmp_path / "in" / "ä scan.nii.gz"), tmp_path / "out"
    network = torch.nn.Identity()
    network.origin = {"path": "/other/best.ts", "file_sha256": "ff", "sha256": "ee", "bundle": "method"}
    lr = LoadScand("image", slice_axis="SI")({"image": path})["image"].as_tensor()
    # Of the normalised result, before it is rounded.
    difference, beyond_noise = measure_scan_difference(enlarge(lr), lr, [DEGRADATION])
    assert infer(bundle, path, out, network).state.metrics == {"consistency_error": beyond_noise}
    said = read(out / "ä scan_sr.json")
    own = said.pop("SuperResolution")
    expected = {"Description": "Super-resolved from ä scan.nii.gz by a network; fine detail is an estimate."}
    expected |= {"Resolution": "0.5 x 0.75 x 3 mm, super-resolved from 1 x 1.5 x 3 mm"}
    assert said == expected | {"Sources": ["ä scan.nii.gz"], "GeneratedBy": [METHOD]}
    assert own.pop("Seconds") > 0 and own.pop("Device").startswith("cpu, ")
    assert own.pop("Precision") == "float32"
    known = {"Bytes": path.stat().st_size, "Sha256": digest_voxels(path)}
    assert own.pop("Inputs") == [hide_folder({"File": str(path)}) | known]
    assert own.pop("Versions").keys() >= {"python", "monai", "torch", "nibabel"}
    weights = {"File": "best.ts", "FileSha256": "ff", "Sha256": "ee"}
    expected = {"Bundle": "method", "BundleVersion": "1.2.3", "Weights": weights, "Scale": [2, 2, 1]}
    expected |= {"DifferenceFromScan": round(difference, 6), "DifferenceBeyondNoise": round(beyond_noise, 6)}
    expected |= {"Degradation": {"Class": "KSpaceTruncation", "factors": [2, 2, 1]}, "SpacingBefore": [1, 1.5, 3]}
    expected |= {"Warnings": ["ä scan.nii.gz: strange; look at it."], "Notices": []}
    assert own == expected | {"SpacingAfter": [0.5, 0.75, 3]}
    descrip = nib.load(out / "ä scan_sr.nii.gz").header["descrip"].item()
    assert descrip == b"super-resolved 2x2x1, research only, bundle method 1.2.3"


@pytest.mark.parametrize("keep_paths", [False, True])
def test_folders_are_kept_only_if_asked(bundle, tmp_path, keep_paths):
    """They may be named like patients; a scan is told from another of its name nonetheless."""
    paths = [scan(tmp_path / folder / "t1 w.nii.gz") for folder in ("Müller Anna, 1950", "Schmidt")]
    changed = nib.Nifti1Image(np.ones((6, 7, 8), np.int16), np.eye(4))
    nib.save(changed, paths[1])
    infer(bundle, paths[0], tmp_path / "out", keep_paths=keep_paths)
    written, result = (tmp_path / "out" / "t1 w_sr.json").read_text(), tmp_path / "out" / "t1 w_sr.nii.gz"
    assert (str(tmp_path) in written, "Anna" in json.loads(written)["Sources"][0]) == (bool(keep_paths),) * 2
    assert bool(keep_paths) or not any(word in written for word in ("Anna", "M\u00fcller", "Schmidt"))
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert json.loads(log)["image"] == str(paths[0])
    nib.save(changed, paths[0])
    assert compare_inputs(result, lambda: [describe_file(str(paths[0]))]) == "changed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/A B/x.nii.gz: bad; see /data/A B/x.json", "scan: bad; see x.json"),
        ("weights /home/me/w.pt, C:\\Users\\me\\w.pt", "weights w.pt, w.pt"),
        ("bids:ds:sub-1/anat/x.nii.gz, 1/2, https://a.org/b/c", None),
    ],
)
def test_texts_lose_folders_and_nothing_else(text, expected):
    found = hide_folders({text: [text, 1.5]}, {"/data/A B/x.nii.gz": "scan"})
    assert found == {(expected or text): [expected or text, 1.5]}


def test_an_agreement_that_is_none_is_null_and_a_fill_value_goes_through_the_evaluator(bundle, tmp_path):
    path, out = scan(tmp_path / "a.nii"), tmp_path / "out"
    volume = nib.load(path).get_fdata()
    volume[0] = -32768
    nib.save(nib.Nifti1Image(volume.astype(np.int16), np.diag([-1, 1.5, 3, 1])), path)
    infer(bundle, path, out, warned=partial(warned, consistency_error=np.nan))
    own = json.loads((out / "a_sr.json").read_text(), parse_constant=pytest.fail)["SuperResolution"]
    assert own["DifferenceBeyondNoise"] is None and "56 of -32768, within voxels (0, 0-6, 0-7)" in own["Notices"][0]
    assert (nib.load(out / "a_sr.nii.gz").get_fdata()[:2] == -32768).all()


def test_degradations_are_described_with_what_they_consist_of():
    composed = ComposeDegradations([BandLimit((2, 2, 1)), GaussianProfile((2, 2, 1), fwhm=0.5)])
    band = {"Class": "BandLimit", "factors": [1, 1, 1]}
    parts = [band, {"Class": "GaussianProfile", "factors": [2, 2, 1], "fwhm": 0.5, "offset": [0.5, 0.5, 0.0]}]
    found = json.loads(json.dumps(describe_settings(composed)))
    assert found == {"Class": "ComposeDegradations", "degradations": parts}


def test_every_scan_is_logged_run_after_run(bundle, tmp_path):
    scans, out = scan(tmp_path / "in" / "a.nii").parent, tmp_path / "out"
    (scans / "b.nii").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(CasesFailedError):
            infer(bundle, scans, out)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a", "b", "a", "b"]
    assert lines[0].keys() == {*"finished name image result verdict error warnings notices seconds".split()}
    assert lines[0]["result"] == str(out / "a_sr.nii.gz") and lines[0]["error"] is None
    assert lines[0]["warnings"] == [f"{scans / 'a.nii'}: strange; look at it."]
    assert lines[1]["result"] is None and "b.nii" in lines[1]["error"] and lines[1]["warnings"] == []
    assert not (out / "b_sr.json").exists()


@pytest.mark.parametrize("moment", ["before", "chosen", "inferred", "saved"])
@pytest.mark.parametrize("other", ["scan", "weights", "nothing"])
def test_what_another_run_writes_meanwhile_stays(bundle, tmp_path, other, moment):
    """Of a run that begins and ends at a moment of this one. What this one has seen may be replaced."""
    first, second = scan(tmp_path / "a" / "t1.nii"), scan(tmp_path / "b" / "t1.nii", seed=int(other == "scan"))
    out, left, network = tmp_path / "out", {}, torch.nn.Identity()
    network.origin = {"path": "best.pt", "file_sha256": "ff", "sha256": "ee", "bundle": "method"}

    def read_all():
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix != ".jsonl"}

    def meet(data=(), moment="before", now=moment):
        if moment == now:
            infer(bundle, first, out, network if other == "weights" else None)
            left.update(read_all())
        return data

    meet()
    run = partial(infer, bundle, second, out, meet=meet)
    if other == "scan" or (other == "weights" and moment != "before"):
        refused(run, CasesFailedError, out / "t1_sr.nii.gz")
        assert read_all() == left
    else:
        run()
    assert sorted(os.listdir(out)) == ["log.jsonl", "t1_sr.json", "t1_sr.nii.gz"]


def test_what_a_killed_run_leaves_stops_no_other(bundle, tmp_path, monkeypatch):
    """Neither its lock, nor its temporary files, nor a part of its result, whose owner is known."""
    monkeypatch.setattr(files, "_PATIENCE", 0)
    path, other, out = scan(tmp_path / "a" / "t1.nii"), scan(tmp_path / "b" / "t1.nii", seed=1), tmp_path / "out"
    swap = os.replace
    for moment in (".json", ".nii.gz"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

            def end(source, target, moment=moment):
                if str(target).endswith(moment):
                    raise KeyboardInterrupt
                swap(source, target)

            patch.setattr(os, "replace", end)
            infer(bundle, path, out)
        (out / f".part-999999999-{platform.node()}-x").mkdir()
        (out / ".lock-t1_sr.nii.gz").mkdir()
        assert (out / "t1_sr.json").exists() == (moment == ".nii.gz")
    refused(lambda: infer(bundle, other, out), CasesFailedError, out / "t1_sr.nii.gz")
    (out / "log.jsonl").unlink()
    (out / "log.jsonl").mkdir()  # which cannot be written
    (case,) = infer(bundle, path, out).cases
    assert case.result and "log" in case.warnings[-1]
    assert sorted(each.name for each in out.iterdir()) == ["log.jsonl", "t1_sr.json", "t1_sr.nii.gz"]


def test_no_process_writes_into_the_log_of_another(bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert get_log_path(out) == out / "log.jsonl" and get_log_path(out, "1/1") == out / "log.jsonl"
    for name, shard in (("a", "1/2"), ("b", "2/2")):
        infer(bundle, scan(tmp_path / name / f"{name}.nii"), out, shard=shard)
        assert read(get_log_path(out, shard))["name"] == name
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert get_log_path(out) == out / "log_2of2.jsonl" and get_log_path(out, "2/3") == out / "log_4of6.jsonl"


@pytest.fixture
def raw(tmp_path):
    root = tmp_path / "my-data"
    scan(root / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    scan(root / "sub-2" / "ses-1" / "anat" / "sub-2_ses-1_T1w.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    return root


def test_bids_derivatives_stand_in_a_dataset_of_their_own(bundle, raw, tmp_path):
    out = raw / "derivatives" / "sr"
    infer(bundle, raw, out, bids=True)
    names = ["sub-1/anat/sub-1_res-high_desc-sr_T1w", "sub-2/ses-1/anat/sub-2_ses-1_res-high_desc-sr_T1w"]
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    own = {"dataset_description.json", ".bidsignore", "log.jsonl"}
    assert written == {*own, *(f"{name}{end}" for name in names for end in (".nii.gz", ".json"))}
    expected = {"Name": "Super-resolved MRI", "BIDSVersion": "1.11.0", "DatasetType": "derivative"}
    expected |= {"GeneratedBy": [METHOD], "DatasetLinks": {"mydata": "../.."}}
    assert read(out / "dataset_description.json") == expected
    said = read(out / f"{names[1]}.json")
    assert said["Sources"] == ["bids:mydata:sub-2/ses-1/anat/sub-2_ses-1_T1w.nii.gz"] and said["SkullStripped"] is False


def test_what_a_folders_description_says_stays_and_sources_are_added(bundle, raw, tmp_path):
    """What is in a derivative dataset has a skull if its JSON says so, and is not known to have one else."""
    out, described = tmp_path / "out", tmp_path / "out" / "dataset_description.json"
    out.mkdir()
    before = {"Name": "mine", "BIDSVersion": "1.8.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "me"}]}
    described.write_text(json.dumps(before | {"DatasetLinks": {"other": "file:///other"}}))
    infer(bundle, raw / "sub-1", out, bids=True)
    links = {"other": "file:///other", "mydata": raw.as_uri()}
    assert read(described) == before | {"GeneratedBy": [{"Name": "me"}, METHOD], "DatasetLinks": links}
    own = out / "sub-1" / "anat" / "sub-1_res-high_desc-sr_T1w.json"
    for name in ("sub-3", "sub-4", "sub-5"):
        scan(own.with_name(f"{name}_res-high_desc-sr_T1w.nii.gz"))
    shutil.copy(own, own.with_name("sub-3_res-high_desc-sr_T1w.json"))
    own.with_name("sub-4_res-high_desc-sr_T1w.json").write_text(json.dumps({"SkullStripped": True}))
    infer(bundle, out, tmp_path / "again", bids=True)
    known = {path.name[:5]: read(path).get("SkullStripped") for path in (tmp_path / "again").rglob("sub-*.json")}
    assert known == {"sub-3": False, "sub-4": True, "sub-5": None}


def test_derivatives_do_not_go_into_the_scans_dataset_or_beside_those_of_another(bundle, raw, tmp_path):
    described, out = (raw / "dataset_description.json").read_bytes(), tmp_path / "out"
    derive = partial(infer, bundle, bids=True)
    refused(lambda: derive(raw / "sub-1" / "anat" / "sub-1_T1w.nii.gz", raw), ValueError, raw)
    assert (raw / "dataset_description.json").read_bytes() == described and len(list(raw.rglob("*.nii.gz"))) == 2
    derive(raw / "sub-1", out)
    other = scan(tmp_path / "b" / "my-data" / "sub-9_T1w.nii.gz")
    (other.parent / "dataset_description.json").write_bytes(described)
    refused(lambda: derive(other, out), ValueError, out, "'mydata'", raw.as_uri(), other.parent.as_uri())
    for text, word in (("[]", "JSON"), ("{}", "empty"), ('{"GeneratedBy": "me"}', "GeneratedBy")):
        (out / "dataset_description.json").write_text(text)
        refused(lambda: derive(raw / "sub-1", out), ValueError, out / "dataset_description.json", word)
    # That of the source is read for what it is worth.
    (raw / "dataset_description.json").write_text("{")
    derive(raw / "sub-1", tmp_path / "again")
    (said,) = (tmp_path / "again").rglob("sub-1*.json")
    assert "SkullStripped" not in read(said)
