"""Guided RDN: every form of its training, its stages, guides that lie anywhere, and pairs that are none."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import from_matvec

from common.degradations import GaussianProfile, KSpaceTruncation
from common.weights.loading import load_weights

from . import runs, spoilt

pytestmark = runs.only("guided_rdn")
TINY = runs.TINY["guided_rdn"]
SHORT = {"cascade": 1, "max_epochs": 1, "epoch_length": 2}
# One stage, trained for long enough to be better than the interpolation that it starts as.
LEARNS = {"cascade": 1, "max_epochs": 1, "epoch_length": 60, "learning_rate": 0.003}
run, refused, content, results = (
    partial(do, "guided_rdn") for do in (runs.run, runs.fails, runs.content, runs.results)
)


@pytest.fixture(scope="session")
def learned(cohort, tmp_path_factory):
    """A folder with weights that have learned to use a guide."""
    folder = tmp_path_factory.mktemp("learned")
    run(["train"], folder, dataset_dir=str(cohort), **LEARNS)
    return folder


def infer(folder, scans, out, **override):
    """Super-resolve the scans of a folder with the weights of one stage, and load the results by subject."""
    run(runs.CASES, folder, dataset_dir=str(scans), output_dir=str(out), **override)
    return {re.match(r"sub-(\w+)_t2w", path.name)[1]: nib.load(path) for path in out.glob("*.nii.gz")}


def gain(names, folder, stage=1, size=None, **override):
    """By how many dB a stage's best validation beats interpolation; checks the size of its HR in plane."""
    parser = content(None, *names, **runs.overrides("guided_rdn", ["train"], folder, **override))
    network = load_weights(parser.get_parsed_content("network_def"), folder / "models" / "model.pt")
    if (target := parser.get_parsed_content("stage_target")) is not None:
        target.select_stage(stage, network)
    (case,) = parser.get_parsed_content("validate#dataset").volumes
    assert size is None or abs(case["hr"].shape[1] - size) < 1.5  # one more or less is the rounding
    volumes = [case[key][None] for key in ("lr", "guide") if key in case]
    interpolate, inferer = (
        (lambda image, stage: image[:, :1]),
        parser.get_parsed_content("train#inferer").select_stage(stage),
    )
    interpolated = inferer(volumes[0], interpolate, *volumes[1:])[0]
    found = [line["validation/psnr"] for line in runs.history(folder, f"_{stage}") if "validation/psnr" in line]
    return max(found) + 10 * np.log10(((interpolated - case["hr"]) ** 2).mean().item())


SCALE_4 = {"scale": [4, 4, 1]}
FORMS = {
    "L2": ([], {"players#rdn#losses#image#1#_target_": "torch.nn.MSELoss"}),
    "supervised": (["train_supervised"], {**SCALE_4, "hr_patch": 24}),
    "stages": ([], {**SCALE_4, "cascade": 3, "hr_patch": 8, "learning_rate": 0.001, "train#trainer#amp": True}),
    "no guides": ([], {"guided": False, "method": "RDN"}),
    "internal": ([], {"group": "test", "case": 1}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(cohort, learned, tmp_path, form):
    """Each form trains on its one term, becomes better than interpolation, and its weights are evaluated."""
    overlays, override = FORMS[form]
    names, override, entries = ["train", *overlays], {**LEARNS, **override}, runs.listed(cohort, TINY)
    if form == "no guides":  # the paper's Model 1 asks for none anywhere
        entries = {group: [{"hr": entry["hr"]} for entry in entries[group]] for group in entries}
    if form == "internal":  # one test scan is all that is trained on
        entries = {"target": [], "validation": [], "test": entries["target"][:2]}
    data = {"dataset_dir": str(runs.datalist(tmp_path / "data", **entries))}
    run(names, tmp_path, **data, **override)
    for stage in range(1, override["cascade"] + 1):
        logged = {"epoch", "iteration", "rdn/image", "rdn/total", "rdn/learning_rate"}
        assert runs.history(tmp_path, f"_{stage}")[0].keys() == logged
        # Of the 40 voxels of HR, what the degradation leaves and the stages before make of it; or all of them.
        scale = override.get("scale", [2])[0]
        size = 40 if form == "supervised" else 40 / scale * scale ** ((stage - 1) / override["cascade"])
        assert gain(names, tmp_path, stage, size, **data, **override) > 0
    if form == "L2":
        l1, l2 = (runs.history(folder, "_1")[0]["rdn/image"] for folder in (learned, tmp_path))
        assert l1**2 < l2 < l1 / 2  # of the same batch
    again = override if form in ("internal", "no guides") else {}
    run([*names, "evaluate"], tmp_path, **data, **again)
    found, case = runs.table(tmp_path), TINY.case(1 if form == "internal" else 5)
    assert list(found) == [("cubic", case), ("RDN" if form == "no guides" else "guided RDN", case)]
    cubic, network = (float(row["psnr"]) for row in found.values())
    assert network > cubic + (0 if form == "no guides" else 0.5)
    if form == "no guides":
        scan = TINY.save_lr(tmp_path / "scans", "a", runs.phantom(9))
        (tmp_path / "scans" / "sub-a_t1w.nii.gz").unlink()
        sr = infer(tmp_path, tmp_path / "scans", tmp_path / "sr")["a"]
        assert sr.shape == tuple(np.multiply(nib.load(scan).shape, (2, 2, 1)))


def test_registered_guides(cohort, tmp_path):
    """Guides that were moved by 2 mm along each axis are moved back, and each case has its figures."""
    run(["train"], tmp_path, dataset_dir=str(cohort), registration_error=2.0, **{"register": True}, **SHORT)
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_registration.json")}
    assert found.keys() == {f"{TINY.case(i)}_registration.json" for i in range(5)}
    for quality in found.values():
        np.testing.assert_allclose(np.abs(quality["translation_mm"]), 2, atol=0.5)
        assert quality["mutual_information_after"] > quality["mutual_information_before"]


def test_authentic_lr(tmp_path):
    """Thick slices that are LR already, in any direction, and guides: no HR is needed, nor an axis named."""
    entries = []
    for i, factors in enumerate(((2, 2, 4), (2, 4, 2), (4, 2, 2), (2, 2, 4))):
        hr = runs.phantom(i, (48, 48, 48))
        lr = runs.degrade(hr, runs.AFFINE, GaussianProfile(factors))
        guide = runs.save(tmp_path / f"sub-{i}_t1w.nii.gz", *runs.elsewhere(runs.guide_of(hr), runs.AFFINE))
        entries.append({"lr": runs.save(tmp_path / f"sub-{i}_t2w.nii.gz", *lr, np.int16), "guide": guide})
    data = runs.datalist(tmp_path, target=entries[:3], validation=entries[3:], test=[])
    override = {"dataset_dir": str(data), "slice_axis": "auto", **LEARNS}
    run(["train"], tmp_path, **override)
    assert gain(["train"], tmp_path, **override) > 0


def test_stages_one_by_one(cohort, trained, tmp_path):
    """Trained one after another, stages become what one command makes; one alone leaves those before it."""

    def stage_of(folder, stage):
        state = torch.load(folder / "models" / "model.pt", weights_only=True)
        return {name: value for name, value in state.items() if name.startswith(f"stages.{stage - 1}.")}

    data, other = {"dataset_dir": str(cohort)}, {"dataset_dir": str(cohort), "learning_rate": 0.002}
    for stage in (1, 2):
        run(["train"], tmp_path, only_stages=[stage], **data)
    assert runs.same(results(tmp_path), results(trained))
    first = [tmp_path / "models" / "training_state_1.pt", tmp_path / "out" / "history_1.jsonl"]
    before = [path.stat().st_mtime_ns for path in first]
    run(["train"], tmp_path, only_stages=2, overwrite=True, **other)
    assert [path.stat().st_mtime_ns for path in first] == before
    assert runs.same(stage_of(tmp_path, 1), stage_of(trained, 1))
    assert not runs.same(stage_of(tmp_path, 2), stage_of(trained, 2))
    # Stage 2 has been trained on what stage 1 was before: it is not gone on with.
    run(["train"], tmp_path, only_stages=[1], overwrite=True, **other)
    run(["train"], tmp_path, resume=True, **other)
    run(["train"], tmp_path / "whole", **other)
    assert runs.same(results(tmp_path), results(tmp_path / "whole"))


def test_weights_to_start_from(cohort, trained, tmp_path):
    """Every stage starts from them, and the stages before it are taken from this run's model.pt."""
    initial, still = trained / "models" / "model.pt", {"learning_rate": 0.0, "players#rdn#stop_below": "$None"}
    run(["train"], tmp_path, dataset_dir=str(cohort), initial=str(initial), **still)
    found, expected = (torch.load(path, weights_only=True) for path in (tmp_path / "models" / "model.pt", initial))
    unlike = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert all("running" in name or "num_batches" in name for name in unlike)
    for stage in (1, 2):  # they are validated before they are trained
        assert runs.history(tmp_path, f"_{stage}")[0].keys() == {"epoch", "iteration", "validation/psnr"}


def test_evaluate(cohort, trained, tmp_path):
    """The cubic row is what scipy gets; a subject with known LR gets the same as from inference.json."""
    folder, entries = shutil.copytree(trained, tmp_path / "run"), runs.listed(cohort, TINY)
    hr = runs.phantom(9)
    lr = TINY.save_lr(tmp_path / "lr", "a", hr, axes="PSR")
    pair = {"hr": runs.save(tmp_path / "hr" / "sub-a_hr.nii.gz", hr, axes="PSR"), "lr": lr}
    pair["guide"] = lr.with_name("sub-a_t1w.nii.gz")
    data = runs.datalist(tmp_path / "data", **{**entries, "test": [*entries["test"], pair]})
    run(["train", "evaluate"], folder, dataset_dir=str(data))

    def degrade(hr):
        places = np.meshgrid((np.arange(40) - 0.5) / 2, np.arange(37), (np.arange(44) - 0.5) / 2, indexing="ij")
        return GaussianProfile((2, 1, 2))(torch.from_numpy(hr)).numpy(), places

    runs.check_evaluation(folder, entries["test"][0]["hr"], degrade, "guided RDN")
    cases = (TINY.case(5), "sub-a_hr")
    assert {*runs.table(folder)} == {(method, case) for case in cases for method in ("cubic", "guided RDN")}

    second = infer(trained, lr.parent, tmp_path / "sr")["a"]
    first = nib.load(folder / "out" / "sub-a_t2w_sr.nii.gz")
    np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())
    np.testing.assert_array_equal(first.affine, second.affine)


def test_inference_of_stacks(learned, tmp_path):
    """Thick slices in any direction, a guide on any grid: the result lies on the scan, the guide on both."""
    hr, affine = runs.phantom(8, (48, 48, 48)), runs.OBLIQUE
    guide, stacks = runs.guide_of(hr), {"sagittal": ((4, 2, 2), "RAS", np.int16)}
    stacks |= {"coronal": ((2, 4, 2), "PSL", np.float32), "axial": ((2, 2, 4), "LIP", np.int16)}
    places = {
        "anywhere": runs.elsewhere(guide, affine),
        "on HR": (guide, affine),
        "off": (guide, from_matvec(np.eye(3), [2, 2, 2]) @ affine),
    }
    found = {}
    for place, stored in places.items():
        for name, (factors, axes, dtype) in stacks.items():
            lr = runs.degrade(hr, affine, GaussianProfile(factors))
            runs.save(tmp_path / place / f"{TINY.case(name)}.nii.gz", *lr, dtype, axes)
            runs.save(tmp_path / place / f"sub-{name}_t1w.nii.gz", *stored)
        found[place] = infer(learned, tmp_path / place, tmp_path / f"sr {place}", slice_axis="auto", register=False)
    for name in stacks:
        lr, sr = nib.load(tmp_path / "anywhere" / f"{TINY.case(name)}.nii.gz"), found["anywhere"][name]
        step = np.where(np.linalg.norm(lr.affine[:3, :3], axis=0) > 3.5, 1, 2)
        assert sr.shape == tuple(step * lr.shape) and sorted(step) == [1, 2, 2]
        np.testing.assert_allclose(runs.centre_of_mass(sr), runs.centre_of_mass(lr), atol=0.1)
        anywhere, on, off = (found[place][name].get_fdata() for place in ("anywhere", "on HR", "off"))
        assert np.mean((anywhere - on) ** 2) < np.mean((off - on) ** 2) / 16


def test_back_projection(learned, tmp_path):
    """Degraded, the result of more back projections is nearer to the scan."""
    lr = nib.load(TINY.save_lr(tmp_path / "scans", "a", runs.phantom(9))).get_fdata()
    misses = []
    for n in (0, 1, 3):
        sr = infer(learned, tmp_path / "scans", tmp_path / f"sr_{n}", back_projections=n)["a"]
        misses.append(np.abs(TINY.degradation(torch.from_numpy(sr.get_fdata())).numpy() - lr).mean())
    assert misses[2] < misses[1] < misses[0] / 2


def test_pairs_that_cannot_be_used(learned, tmp_path):
    """A bad guide is named beside its scan, with the reason, and the other pairs are done."""
    scans, hr = tmp_path / "scans", runs.phantom(9)
    good, guide = TINY.save_lr(scans, "good", hr), runs.guide_of(hr)
    patterns = spoilt.spoil(scans, guide, "t1w")
    patterns[runs.save(scans / "sub-short_t1w.nii.gz", guide[:, :24])] = "covers [56].*one subject and session"
    for path in patterns:
        shutil.copyfile(good, scans / path.name.replace("t1w", "t2w"))
    with pytest.raises(RuntimeError) as error:
        infer(learned, scans, tmp_path / "sr")
    message = str(runs.first_cause(error.value))
    spoilt.said(message, patterns)
    assert f"{len(patterns)} of {len(patterns) + 1} cases failed, the others are done" in message
    assert re.search("sub-short_t2w.nii.gz: .*sub-short_t1w.nii.gz: .*sub-short_t2w.nii.gz", message)
    assert runs.written(tmp_path / "sr") == ["sub-good_t2w_sr.nii.gz"]


def test_which_file_is_which(learned, tmp_path):
    """Files that are no pairs, patterns that take the wrong ones, and slices that cannot be told."""
    scans, hr = tmp_path / "scans", runs.phantom(9)
    for name in "ab":
        TINY.save_lr(scans, name, hr)
    data = {"dataset_dir": str(scans), "output_dir": str(tmp_path / "sr")}

    def said(*words, **override):
        return refused(["inference"], learned, *words, **{**data, **override})

    swapped = refused(runs.CASES, learned, **data, lr="*_t1w.nii.gz", guide="*_t2w.nii.gz", slice_axis="SI")
    for name in "ab":
        assert re.search(rf"sub-{name}_t2w.nii.gz: .*coarser .*sub-{name}_t1w.nii.gz; are the two swapped", swapped)
    said("_t1w.nii.gz", "--guide", lr="*.nii.gz", guide="*_t1w.nii.gz")
    said("--lr '*_flair.nii.gz'", str(scans), lr="*_flair.nii.gz")
    thin = runs.save(tmp_path / "thin" / "sub-a_t2w.nii.gz", hr, np.diag([2, 2, 2, 1]))
    shutil.copyfile(scans / "sub-a_t1w.nii.gz", thin.with_name("sub-a_t1w.nii.gz"))
    said(f"{thin}: ", "[2.0, 2.0, 2.0] mm", "--slice_axis SI", dataset_dir=str(thin.parent), slice_axis="auto")

    (scans / "sub-b_t1w.nii.gz").unlink()
    said("sub-b_t2w.nii.gz: sub-b has 0 guides")
    for path in list(scans.iterdir()):
        path.rename(path.with_name(f"{path.name[4]}nna{path.name[5:]}"))
    shutil.copyfile(scans / "anna_t1w.nii.gz", scans / "bnna_t1w.nii.gz")
    said("--subject", "anna_t2w.nii.gz: anna_t2w has 0 guides")
    run(["inference"], learned, **data, subject="[a-z]+(?=_t)")
    assert runs.written(tmp_path / "sr") == [f"{name}_t2w_sr.nii.gz" for name in ("anna", "bnna")]


def test_weights_of_another_network(cohort, trained, tmp_path):
    """Of a cascade of another length, with or without a guide, or of no stage before: the file is named."""
    TINY.save_lr(tmp_path / "scans", "a", runs.phantom(9))
    weights, older = trained / "models" / "model.pt", tmp_path / "older.pt"
    # Weights without an overlay are known by their architecture, and by the factor that is among them.
    torch.save(torch.load(weights, weights_only=True), older)
    scans, data = {"dataset_dir": str(tmp_path / "scans")}, {"dataset_dir": str(cohort)}
    bare = {**TINY.network, **scans, "checkpoint": str(older)}
    small, other = {**bare, "digest": "$None"}, "another architecture"
    for names, override, words in (
        (["inference"], {**scans, "cascade": 3}, [f"{weights}: ", other, "stages.2.head", "model.json"]),
        (["inference"], {**scans, "guided": False}, [f"{weights}: ", "guided is False", "with True", "model.json"]),
        (["inference"], {**scans, "scale": [4, 4, 1]}, [f"{weights}: ", "scale is [4, 4, 1]", "[2, 2, 1]"]),
        (["train", "evaluate"], {**data, "cascade": 1}, [f"{weights}: ", other]),
        (["train"], {**data, "cascade": 3, "only_stages": [3]}, [f"{weights}: ", other, "stages.2.head"]),
        (["inference"], bare, [f"{older}: ", "digest"]),
        (["inference"], {**small, "cascade": 3}, [f"{older}: ", other, "stages.2.head", "older.json"]),
        (["inference"], {**small, "guided": False}, [f"{older}: ", other, "stages.0.branch"]),
        (["inference"], {**small, "scale": [4, 4, 1]}, [f"{older}: ", "1.414", "(scale 2)", "(scale 4)", "set scale"]),
    ):
        refused(names, trained, *words, **override)
    refused(["train"], tmp_path / "none", f"no weights at {tmp_path}/none/models/model.pt", only_stages=[2], **data)


def test_what_cannot_be_trained(cohort, tmp_path):
    """Guides that are missing or cannot be used, pairs whose sizes contradict the scale, stages that are none."""
    entries, folder, isotropic = runs.listed(cohort, TINY), tmp_path / "run", "sub-0_t2w.nii.gz: the spacing"
    first, second = entries["target"][:2]
    lr = runs.degrade(runs.phantom(0), runs.AFFINE, KSpaceTruncation((2, 2, 2)))
    contradicting = {**first, "lr": runs.save(tmp_path / "sub-0_lr.nii.gz", *lr)}
    guides = spoilt.spoil(tmp_path / "guides", runs.guide_of(runs.phantom(0)), "t1w")
    sizes = ["sub-0_lr.nii.gz", "(20, 22, 18)", "(40, 44, 36)", "(2, 2, 1)", "(20, 22, 36)"]

    def said(words, target):
        data = runs.datalist(tmp_path / "data", **{**entries, "target": target})
        return refused(["train"], folder, *words, dataset_dir=str(data))

    said(["data/dataset.json", "sub-1", "'target'", "--guided False"], [first, {"hr": second["hr"]}])
    said(["data/dataset.json", "'target' has no volumes", "hr or lr", "common datalist"], [])
    said(["sub-0_t2w.nii.gz", *sizes], [contradicting])
    spoilt.said(said([], [{"hr": first["hr"], "guide": path} for path in guides]), guides)
    for overlays, override, words in (
        (["train_supervised"], {}, ["cascade is 2", "--cascade 1"]),
        ([], {"only_stages": [0, 1]}, ["only_stages is [0, 1]", "[1, 2]", "--only_stages"]),
        ([], {"slice_axis": "auto"}, [isotropic, "--slice_axis SI"]),
        ([], {"slice_axis": "XY"}, ["sub-0_t2w.nii.gz: slice_axis is 'XY'", "LR, AP, SI, auto"]),
    ):
        refused(["train", *overlays], folder, *words, dataset_dir=str(cohort), **override)
