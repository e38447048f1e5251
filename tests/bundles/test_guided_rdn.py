"""Guided RDN: every form of its training, its stages, guides that lie anywhere, and pairs that are none."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.bundle import ConfigParser
from nibabel.affines import apply_affine, from_matvec
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile, KSpaceTruncation
from common.engines import AlternatingTrainer

from . import runs, spoilt

guided = pytest.mark.parametrize("bundle", ["guided_rdn"], indirect=True, scope="session")
TINY = runs.TINY["guided_rdn"]
BUNDLE = runs.ROOT / "bundles" / "guided_rdn"
# One stage, trained for long enough to be better than the interpolation that it starts as.
LEARNS = {"cascade": 1, "max_epochs": 1, "epoch_length": 60, "learning_rate": 0.003}


@pytest.fixture(scope="session")
def learned(cohort, tmp_path_factory):
    """A folder with weights that have learned to use a guide."""
    folder = tmp_path_factory.mktemp("learned")
    run(["train"], folder, dataset_dir=str(cohort), **LEARNS)
    return folder


def run(names, folder, **override):
    """Run configs in this process."""
    runs.run("guided_rdn", names, folder, **override)


def infer(folder, scans, out, **override):
    """Super-resolve the scans of a folder with the weights of one stage, and load the results by subject."""
    run(["inference"], folder, dataset_dir=str(scans), output_dir=str(out), **override)
    return {re.match(r"sub-(\w+)_t2w", path.name)[1]: nib.load(path) for path in out.glob("*.nii.gz")}


def gain(names, folder, stage=1, size=None, **override):
    """By how many dB a stage's best validation is better than the interpolation that its network is given.

    Args:
        names: of the configs.
        folder: of the run.
        stage: from 1 on.
        size: voxels of an axis in plane that the stage has for HR, to check; one more or less is the rounding.
        override: of the run.
    """
    parser = ConfigParser()
    parser.read_config(runs.configs("guided_rdn", *names))
    parser.update(runs.overrides("guided_rdn", ["train"], folder, stage=stage, **override))
    (case,) = parser.get_parsed_content("validate#dataset")
    assert size is None or abs(case["hr"].shape[1] - size) < 1.5
    volumes = [case[key][None] for key in ("lr", "guide") if key in case]
    interpolated = parser.get_parsed_content("validate#inferer")(
        volumes[0], lambda image, stage: image[:, :1], *volumes[1:]
    )
    psnr = -10 * np.log10(((interpolated[0] - case["hr"]) ** 2).mean().item())
    found = [line["validation/psnr"] for line in runs.history(folder, f"_{stage}") if "validation/psnr" in line]
    return max(found) - psnr


def table(folder):
    """The rows of an evaluation, by method and case."""
    with (folder / "out" / "table.csv").open() as file:
        return {(row["method"], row["case"]): row for row in csv.DictReader(file)}


FORMS = {
    "L2": ([], {"pixel_loss#_target_": "torch.nn.MSELoss"}),
    "scale 4, bfloat16": ([], {"scale": [4, 4, 1], "cascade": 2, "hr_patch": 8, "learning_rate": 0.001, "amp": True}),
    "supervised": (["train_supervised"], {"scale": [4, 4, 1], "hr_patch": 24}),
    "three stages": ([], {"cascade": 3, "learning_rate": 0.001}),
}


@pytest.mark.parametrize("form", FORMS)
@guided
def test_forms(cohort, learned, tmp_path, form):
    """Each form trains on its one term, becomes better than interpolation, and its weights are evaluated."""
    overlays, override = FORMS[form]
    names, override = ["train", *overlays], {"dataset_dir": str(cohort), **LEARNS, **override}
    run(names, tmp_path, **override)
    for stage in range(1, override["cascade"] + 1):
        assert runs.history(tmp_path, f"_{stage}")[0].keys() == {"epoch", "iteration", "rdn/image", "rdn/total"}
        # Of the 40 voxels of HR, what the degradation leaves and the stages before make of it; or all of them.
        scale = override.get("scale", [2])[0]
        size = 40 if form == "supervised" else 40 / scale * scale ** ((stage - 1) / override["cascade"])
        assert gain(names, tmp_path, stage, size, **override) > 0
    if form == "L2":
        l1, l2 = (runs.history(folder, "_1")[0]["rdn/image"] for folder in (learned, tmp_path))
        assert l1**2 < l2 < l1 / 2  # of the same batch
    run([*names, "evaluate"], tmp_path, dataset_dir=str(cohort))
    found = table(tmp_path)
    assert list(found) == [("cubic", TINY.case(5)), ("guided RDN", TINY.case(5))]
    cubic, network = (float(row["psnr"]) for row in found.values())
    assert network > cubic + 0.5


@guided
def test_without_guides(cohort, tmp_path):
    """The paper's Model 1 asks for no guide anywhere."""
    entries = runs.listed(cohort, TINY)
    scans = {group: [{"hr": entry["hr"]} for entry in entries[group]] for group in entries}
    override = {"dataset_dir": str(runs.datalist(tmp_path / "data", **scans)), "guided": False, **LEARNS}
    run(["train"], tmp_path, **override)
    assert gain(["train"], tmp_path, **override) > 0
    run(["train", "evaluate"], tmp_path, dataset_dir=override["dataset_dir"])
    assert list(table(tmp_path)) == [("cubic", TINY.case(5)), ("RDN", TINY.case(5))]
    scan = TINY.save_lr(tmp_path / "scans", "a", runs.phantom(9))
    (tmp_path / "scans" / "sub-a_t1w.nii.gz").unlink()
    sr = infer(tmp_path, tmp_path / "scans", tmp_path / "sr")["a"]
    assert sr.shape == tuple(n * f for n, f in zip(nib.load(scan).shape, (2, 2, 1), strict=True))


@guided
def test_registered_guides(cohort, tmp_path):
    """Guides that were moved by 2 mm along each axis are moved back, and each case has its figures."""
    override = {"dataset_dir": str(cohort), "registration_error": 2.0, "register": True, **LEARNS}
    run(["train"], tmp_path, **override)
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*_registration.json")}
    assert found.keys() == {f"{TINY.case(i)}_registration.json" for i in range(5)}
    for quality in found.values():
        np.testing.assert_allclose(np.abs(quality["translation_mm"]), 2, atol=0.5)
        assert quality["mutual_information_after"] > quality["mutual_information_before"]


@guided
def test_internal_learning(cohort, tmp_path):
    """One test scan is all that is trained on, and what is evaluated."""
    entries = runs.listed(cohort, TINY)
    data = runs.datalist(tmp_path / "data", target=[], validation=[], test=entries["target"][:2])
    names, override = ["train", "train_internal"], {"dataset_dir": str(data), "case": 1, **LEARNS}
    run(names, tmp_path, **override)
    assert gain(names, tmp_path, **override) > 0
    run([*names, "evaluate"], tmp_path, **override)
    assert list(table(tmp_path)) == [("cubic", TINY.case(1)), ("guided RDN", TINY.case(1))]


@guided
def test_cross_validation(cohort, tmp_path):
    """The folds' test cases are all of train's and test's, each in one fold, and the fold is not trained on."""
    cases = []
    for fold in range(3):
        names, override = ["train", "cross_validation"], {"dataset_dir": str(cohort), "folds": 3, "fold": fold}
        parser = ConfigParser()
        parser.read_config(runs.configs("guided_rdn", *names))
        parser.update(override)
        trained, held = ([e["subject"] for e in parser.get_parsed_content(k)] for k in ("target_data", "test_data"))
        assert not set(trained) & set(held) and len(trained) + len(held) == 5
        cases.append({f"{subject}_t2w" for subject in held})
    assert sorted(set.union(*cases)) == [TINY.case(i) for i in (0, 1, 2, 3, 5)] and sum(map(len, cases)) == 5
    run(names, tmp_path, **override, **LEARNS)
    run([*names, "evaluate"], tmp_path, **override, **LEARNS)
    assert {case for _, case in table(tmp_path)} == cases[-1]


def test_authentic_lr(tmp_path):
    """Thick slices that are LR already, in any direction, and guides: no HR is needed, nor an axis named."""
    affine = np.diag([1.0, 1.1, 1.2, 1.0])
    entries = []
    for i, factors in enumerate(((2, 2, 4), (2, 4, 2), (4, 2, 2), (2, 2, 4))):
        hr = runs.phantom(i, (48, 48, 48))
        lr = runs.save(tmp_path / f"sub-{i}_t2w.nii.gz", *runs.degrade(hr, affine, GaussianProfile(factors)), np.int16)
        guide = runs.save(tmp_path / f"sub-{i}_t1w.nii.gz", *runs.elsewhere(runs.guide_of(hr), affine))
        entries.append({"lr": lr, "guide": guide})
    data = runs.datalist(tmp_path, target=entries[:3], validation=entries[3:], test=[])
    override = {"dataset_dir": str(data), "slice_axis": "auto", **LEARNS}
    run(["train"], tmp_path, **override)
    assert gain(["train"], tmp_path, **override) > 0


def stage_of(folder, stage):
    """A stage's weights."""
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    return {name: value for name, value in state.items() if name.startswith(f"stages.{stage - 1}.")}


@guided
def test_stages_one_by_one(cohort, trained, tmp_path):
    """Trained one after another, stages become what one command makes; one alone leaves those before it."""
    for stage in (1, 2):
        run(["train"], tmp_path, dataset_dir=str(cohort), stages=[stage])
    assert runs.same(runs.results("guided_rdn", tmp_path), runs.results("guided_rdn", trained))
    first = [tmp_path / "models" / "training_state_1.pt", tmp_path / "out" / "history_1.jsonl"]
    before = [path.stat().st_mtime_ns for path in first]
    run(["train"], tmp_path, dataset_dir=str(cohort), stages=2, learning_rate=0.002, overwrite=True)
    assert [path.stat().st_mtime_ns for path in first] == before
    assert runs.same(stage_of(tmp_path, 1), stage_of(trained, 1))
    assert not runs.same(stage_of(tmp_path, 2), stage_of(trained, 2))
    # Stage 2 has been trained on what stage 1 was before: it is not gone on with.
    run(["train"], tmp_path, dataset_dir=str(cohort), stages=[1], learning_rate=0.002, overwrite=True)
    run(["train"], tmp_path, dataset_dir=str(cohort), resume=True, learning_rate=0.002)
    whole = tmp_path / "whole"
    run(["train"], whole, dataset_dir=str(cohort), learning_rate=0.002)
    assert runs.same(runs.results("guided_rdn", tmp_path), runs.results("guided_rdn", whole))


@guided
def test_interrupted_in_a_stage(cohort, trained, tmp_path, monkeypatch):
    """Stopped in the middle of stage 2, a run goes on there, and ends as one that nothing stopped."""
    original, calls = AlternatingTrainer._iteration, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 8 + 7:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(AlternatingTrainer, "_iteration", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["train"], tmp_path, dataset_dir=str(cohort), save_minutes=0)
    assert len(runs.history(tmp_path, "_1")) == 10 and runs.history(tmp_path, "_2")[-1]["iteration"] == 6
    calls.clear()
    run(["train"], tmp_path, dataset_dir=str(cohort), save_minutes=0, resume=True)
    assert len(calls) == 2
    assert runs.same(runs.results("guided_rdn", tmp_path), runs.results("guided_rdn", trained))


@guided
def test_evaluate(cohort, trained, tmp_path):
    """The table's cubic row is what scipy gets, and pictures, table and super-resolved scan are there."""
    folder = shutil.copytree(trained, tmp_path / "run")
    run(["train", "evaluate"], folder, dataset_dir=str(cohort))
    written, case = {path.name for path in (folder / "out").iterdir()}, TINY.case(5)
    pictures = {f"{case}.png", f"{case}_profile.png", "boxplots.png", "losses_1.png", "losses_2.png"}
    assert pictures | {"table.csv", "table.json", f"{case}_sr.nii.gz"} <= written
    assert all(imread(folder / "out" / name).std() > 0.01 for name in pictures)
    rows = table(folder)
    assert list(rows) == [("cubic", case), ("guided RDN", case)]
    summary = json.loads((folder / "out" / "table.json").read_text())["summary"]
    assert all(0.9 < summary[method]["ssim"]["mean"] < 1 for method, _ in rows)

    # Stored as LR, SI, AP, of which the first has an odd number of voxels.
    image = runs.to_the_right(cohort / f"{case}.nii.gz")
    assert image.shape == (41, 37, 44) and nib.aff2axcodes(image.affine) == tuple("RSA")
    scale = np.quantile(image.get_fdata(dtype=np.float32), 0.999)
    hr = image.get_fdata()[:40] / scale
    lr = GaussianProfile((2, 1, 2))(torch.from_numpy(hr)).numpy()
    positions = np.meshgrid((np.arange(40) - 0.5) / 2, np.arange(37), (np.arange(44) - 0.5) / 2, indexing="ij")
    cubic = map_coordinates(lr, positions, order=3, mode="nearest")
    psnr = -10 * np.log10(np.mean((np.clip(cubic, 0, 1) - np.clip(hr, 0, 1)) ** 2))
    assert float(rows["cubic", case]["psnr"]) == pytest.approx(psnr, abs=1e-3)
    assert [float(rows["cubic", case][f"displacement_{axis}"]) for axis in "xyz"] == [0, 0, 0]

    sr = runs.to_the_right(folder / "out" / f"{case}_sr.nii.gz")
    assert sr.shape == hr.shape and sr.get_data_dtype() == image.get_data_dtype()
    np.testing.assert_allclose(sr.affine, image.affine, atol=1e-5)
    psnr = -10 * np.log10(np.mean((np.clip(sr.get_fdata() / scale, 0, 1) - np.clip(hr, 0, 1)) ** 2))
    assert float(rows["guided RDN", case]["psnr"]) == pytest.approx(psnr, abs=0.05)


@guided
def test_evaluation_and_inference_agree(cohort, trained, tmp_path):
    """A test subject whose LR scan is known too gets the same from evaluate.json as its scan from inference.json."""
    folder, entries = shutil.copytree(trained, tmp_path / "run"), runs.listed(cohort, TINY)
    hr = runs.phantom(9)
    lr = TINY.save_lr(tmp_path / "lr", "a", hr, axes="PSR")
    pair = {"hr": runs.save(tmp_path / "hr" / "sub-a_hr.nii.gz", hr, axes="PSR"), "lr": lr}
    pair["guide"] = lr.with_name("sub-a_t1w.nii.gz")
    data = runs.datalist(tmp_path / "data", **{**entries, "test": [pair]})
    run(["train", "evaluate"], folder, dataset_dir=str(data))
    run(["inference"], trained, dataset_dir=str(lr.parent), output_dir=str(tmp_path / "sr"))
    first, second = (nib.load(path / "sub-a_t2w_sr.nii.gz") for path in (folder / "out", tmp_path / "sr"))
    np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())
    np.testing.assert_array_equal(first.affine, second.affine)
    assert list(table(folder)) == [("cubic", "sub-a_hr"), ("guided RDN", "sub-a_hr")]


def difference(first, second):
    """The root mean square of two images' difference."""
    return np.sqrt(np.mean((first.get_fdata() - second.get_fdata()) ** 2))


@guided
def test_inference_of_stacks(learned, tmp_path):
    """Thick slices in any direction, and a guide on any grid: the result lies on the scan, and the guide on both."""
    hr, affine = runs.phantom(8, (48, 48, 48)), runs.OBLIQUE
    stacks = {
        "sagittal": ((4, 2, 2), "RAS", np.int16),
        "coronal": ((2, 4, 2), "PSL", np.float32),
        "axial": ((2, 2, 4), "LIP", np.int16),
    }
    guide = runs.guide_of(hr)
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
    for name, (_, axes, dtype) in stacks.items():
        lr, sr = nib.load(tmp_path / "anywhere" / f"{TINY.case(name)}.nii.gz"), found["anywhere"][name]
        step = np.where(np.linalg.norm(lr.affine[:3, :3], axis=0) > 3.5, 1, 2)
        assert sr.shape == tuple(step * lr.shape) and sorted(step) == [1, 2, 2]
        assert sr.get_data_dtype() == dtype and nib.aff2axcodes(sr.affine) == tuple(axes)
        # The edges of the field of view are where they were.
        for corner in (np.zeros(3), np.array(lr.shape)):
            expected = apply_affine(lr.affine, corner - 0.5)
            np.testing.assert_allclose(apply_affine(sr.affine, corner * step - 0.5), expected, atol=1e-4)
        np.testing.assert_allclose(runs.centre_of_mass(sr), runs.centre_of_mass(lr), atol=0.1)
        anywhere, off = (difference(found[place][name], found["on HR"][name]) for place in ("anywhere", "off"))
        assert anywhere < off / 4


@guided
def test_back_projection(learned, tmp_path):
    """Degraded, the result of more back projections is nearer to the scan."""
    lr = nib.load(TINY.save_lr(tmp_path / "scans", "a", runs.phantom(9))).get_fdata()
    misses = []
    for n in (0, 1, 3):
        sr = infer(learned, tmp_path / "scans", tmp_path / f"sr_{n}", back_projections=n)["a"]
        misses.append(np.abs(TINY.degradation(torch.from_numpy(sr.get_fdata())).numpy() - lr).mean())
    assert misses[2] < misses[1] < misses[0] / 2


@guided
def test_pairs_that_cannot_be_used(learned, tmp_path):
    """A bad guide is named beside its scan, with the reason, and the other pairs are done."""
    scans, hr = tmp_path / "scans", runs.phantom(9)
    good = TINY.save_lr(scans, "good", hr)
    guide = runs.guide_of(hr)
    patterns = spoilt.spoil(scans, guide, "t1w")
    geometry = {
        "off": (guide, from_matvec(np.eye(3), [300, 0, 0]) @ runs.AFFINE, r"covers 0.0% .*overlap at all.*to L"),
        "short": (guide[:, :24], runs.AFFINE, r"covers [56]\d.\d% of the tissue .*95%.*1\d.\d mm to A"),
        "coarse": (
            *runs.degrade(guide, runs.AFFINE, GaussianProfile((4, 4, 1))),
            r"coarser .*two swapped.*\[4.0, 4.4\]",
        ),
    }
    for name, (volume, affine, pattern) in geometry.items():
        path = runs.save(scans / f"sub-{name}_t1w.nii.gz", volume, affine)
        patterns[path] = f"{pattern}.*(one subject and session|Give the scan)"
    for path in patterns:
        shutil.copyfile(good, scans / path.name.replace("t1w", "t2w"))
    with pytest.raises(RuntimeError) as error:
        infer(learned, scans, tmp_path / "sr")
    message = str(runs.first_cause(error.value))
    spoilt.said(message, patterns)
    assert f"{len(patterns)} of {len(patterns) + 1} cases failed, the others are done" in message
    for path in geometry:
        assert re.search(rf"sub-{path}_t2w.nii.gz: .*sub-{path}_t1w.nii.gz: .*sub-{path}_t2w.nii.gz", message)
    assert runs.written(tmp_path / "sr") == ["sub-good_t2w_sr.nii.gz"]


@guided
def test_which_file_is_which(learned, tmp_path):
    """Files that are no pairs, patterns that take the wrong ones, and slices that cannot be told."""
    scans, hr = tmp_path / "scans", runs.phantom(9)
    for name in "ab":
        TINY.save_lr(scans, name, hr)
    data = {"dataset_dir": str(scans), "output_dir": str(tmp_path / "sr"), "cascade": 1}

    def said(**override):
        return runs.fails("guided_rdn", ["inference"], learned, **{**data, **override})

    swapped = said(lr="*_t1w.nii.gz", guide="*_t2w.nii.gz", slice_axis="SI")
    for name in "ab":
        assert re.search(rf"sub-{name}_t2w.nii.gz: .*coarser .*sub-{name}_t1w.nii.gz; are the two swapped", swapped)
    assert "_t1w.nii.gz matches --lr and --guide" in said(lr="*.nii.gz", guide="*_t1w.nii.gz")
    assert re.search(r"no files match --lr '\*_flair.nii.gz' in .*scans", said(lr="*_flair.nii.gz"))
    thin = runs.save(tmp_path / "thin" / "sub-a_t2w.nii.gz", hr, np.diag([2, 2, 2, 1]))
    shutil.copyfile(scans / "sub-a_t1w.nii.gz", thin.with_name("sub-a_t1w.nii.gz"))
    isotropic = said(dataset_dir=str(thin.parent), slice_axis="auto")
    assert re.search(rf"{thin}: the spacing \[2.0, 2.0, 2.0\] mm .*--slice_axis SI", isotropic)

    (scans / "sub-b_t1w.nii.gz").unlink()
    message = said()
    assert "1 of 2 cases failed" in message and "sub-b_t2w.nii.gz: sub-b has no guide; add it" in message
    named = {f"sub-{name}": f"{name}nna" for name in "ab"}
    for path in list(scans.iterdir()):
        path.rename(path.with_name(path.name.replace(path.name[:5], named[path.name[:5]])))
    shutil.copyfile(scans / "anna_t1w.nii.gz", scans / "bnna_t1w.nii.gz")
    message = said()
    for name in ("anna", "bnna"):
        assert re.search(f"{name}_t2w.nii.gz: {name}_t2w has no guide; .*say with --subject", message)
    run(["inference"], learned, **data, subject="[a-z]+(?=_t)")
    assert runs.written(tmp_path / "sr") == [f"{name}_t2w_sr.nii.gz" for name in ("anna", "bnna", "sub-a")]


@guided
def test_weights_of_another_network(cohort, trained, tmp_path):
    """Of a cascade of another length, with or without a guide, or of no stage before: the file is named."""
    TINY.save_lr(tmp_path / "scans", "a", runs.phantom(9))
    scans, data = {"dataset_dir": str(tmp_path / "scans")}, {"dataset_dir": str(cohort)}
    for names, override, pattern in (
        (["inference"], {**scans, "cascade": 3}, "cascade is 3, but .* 2"),
        (["inference"], {**scans, "guided": False}, "guided is False, but .* True"),
        (["inference"], {**scans, "scale": [4, 4, 1]}, r"scale is \[4, 4, 1\], but .* \[2, 2, 1\]"),
        (["inference", "inference_full"], scans, r"cascade is 3, but .* 2; features is 32.* 4; blocks is 6, .* 1"),
        (["train", "evaluate"], {**data, "guided": False}, "guided is False, but .* True"),
        (["train", "compact", "evaluate"], data, "cascade is 1, but .* 2"),
        (["train"], {**data, "cascade": 3, "stages": [3]}, "cascade is 3, but .* 2"),
    ):
        message = runs.fails("guided_rdn", names, trained, **override)
        assert re.search(rf"{trained}/models/model.pt, of guided_rdn .*: {pattern}", message), message
    # Files that say nothing are known by their architecture, and by the factor that is among the weights.
    older = tmp_path / "older.pt"
    torch.save(torch.load(trained / "models" / "model.pt", weights_only=True), older)
    small = {**TINY.network, **scans, "checkpoint": str(older)}
    for override, pattern in (
        ({"cascade": 3}, "Missing: stages.2.head"),
        ({"guided": False}, "Unknown: stages.0.branch"),
    ):
        message = runs.fails("guided_rdn", ["inference"], trained, **{**small, **override})
        assert re.search(rf"{older}: .* another architecture.*{pattern}.*sizes that the", message)
    message = runs.fails("guided_rdn", ["inference"], trained, **{**small, "scale": [4, 4, 1]})
    assert re.search(rf"{older}: .*2 stages of factor 1.414 \(scale 2\).*2 \(scale 4\); set scale", message)
    message = runs.fails("guided_rdn", ["train"], tmp_path / "none", stages=[2], **data)
    assert f"no weights at {tmp_path}/none/models/model.pt; train the bundle first" in message


@guided
def test_what_cannot_be_trained(cohort, tmp_path):
    """Guides that are missing or cannot be used, pairs whose sizes contradict the scale, stages that are none."""
    entries, folder = runs.listed(cohort, TINY), tmp_path / "run"

    def said(**groups):
        data = runs.datalist(tmp_path / "data", **{**entries, **groups})
        return runs.fails("guided_rdn", ["train"], folder, dataset_dir=str(data))

    message = said(target=[entries["target"][0], {"hr": entries["target"][1]["hr"]}])
    assert re.search(r"data/dataset.json: no guide for sub-1 in group 'target'; add it, or .*--guided false", message)
    message = said(target=[])
    assert re.search(r"data/dataset.json: group 'target' has no volumes .*hr or lr.*common datalist", message)
    guides = spoilt.spoil(tmp_path / "guides", runs.guide_of(runs.phantom(0)), "t1w")
    spoilt.said(said(target=[{"hr": entries["target"][0]["hr"], "guide": path} for path in guides]), guides)
    lr, affine = runs.degrade(runs.phantom(0), runs.AFFINE, KSpaceTruncation((2, 2, 2)))
    pair = {**entries["target"][0], "lr": runs.save(tmp_path / "sub-0_lr.nii.gz", lr, affine)}
    sizes = r"LR has \(20, 22, 18\) voxels and HR \(40, 44, 36\); with the factors \(2, 2, 1\).*\(20, 22, 36\)"
    assert re.search(rf"sub-0_t2w.nii.gz, .*sub-0_lr.nii.gz: {sizes}", said(target=[pair]))

    overlay = ["train", "train_supervised"]
    assert "cascade is 2, expected at most 1" in runs.fails("guided_rdn", overlay, folder, dataset_dir=str(cohort))
    for override, pattern in (
        ({"stages": [0, 1]}, r"stages is \[0, 1\], expected some of \[1, 2\], for example --stages"),
        ({"stages": [3]}, r"stages is \[3\], expected some of \[1, 2\]"),
        ({"slice_axis": "auto"}, r"sub-0_t2w.nii.gz: the spacing .* does not tell .* for example --slice_axis SI"),
        ({"slice_axis": "XY"}, r"sub-0_t2w.nii.gz: slice_axis is 'XY', expected one of LR, AP, SI, auto"),
        ({"scales": [1, 1.2]}, r"scales are \[1, 1.2\], expected .* at most 1"),
        ({"guided": "maybe"}, "'maybe', expected true or false"),
    ):
        message = runs.fails("guided_rdn", ["train"], folder, dataset_dir=str(cohort), **override)
        assert re.search(pattern, message)


def test_demo(tmp_path):
    """The demo simulates heads, trains without and with guides, evaluates both and joins the tables."""
    small = {
        "simulated#subjects": 3,
        "simulated#spacing": 4,
        "cascade": 1,
        "max_epochs": 1,
        "epoch_length": 2,
        "batch_size": 2,
    }
    run(["train", "demo"], tmp_path, ckpt_dir=None, **small)
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    each = {"models/model.pt", "models/training_state_1.pt", "history_1.jsonl", "table.csv"}
    assert {f"{form}/{file}" for form in ("unguided", "guided") for file in each} <= written
    assert {"data/dataset.json", "boxplots.png", "table.csv"} <= written
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "RDN", "guided RDN"] and all(m["psnr"]["n"] == 1 for m in summary.values())


@pytest.mark.slow
@guided
def test_ablate(cohort, tmp_path):
    """Table IV by its command."""
    tiny = {**TINY.network, **TINY.training, **LEARNS}
    line = ["ablate", "--bundle", str(BUNDLE), "--table", "IV", "--dataset_dir", str(cohort), "--output_dir"]
    done = subprocess.run(
        [sys.executable, "-m", "common", *line, str(tmp_path), *(f"--{key}={value}" for key, value in tiny.items())],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "table.json").read_text())["summary"]) == ["cubic", "L1", "L2"]
