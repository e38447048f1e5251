"""Downsampling GAN: kernels of every slice or volume, in parts, and the EDSR that is trained with them."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine, from_matvec
from scipy.ndimage import affine_transform, correlate, gaussian_filter
from scipy.spatial.transform import Rotation

from common.degradations import InPlaneKernel
from common.engines import AlternatingTrainer
from common.lab.tables.rows import read_table_rows
from common.losses import BoundaryLoss
from common.physics.blur_kernels import make_gaussian_kernel, make_zero_filling_kernel, read_kernels
from common.weights.loading import read_overlay

from . import runs

pytestmark = runs.only("downsampling_gan")
TINY = runs.TINY["downsampling_gan"]
BUNDLE = str(runs.ROOT / "bundles" / "downsampling_gan")
ZERO_FILLING = {"_target_": "common.physics.blur_kernels.make_zero_filling_kernel"}
ZERO_FILLING |= {"factor": "@factor", "offset": "@offset"}
SHORT = TINY.lasting(1, 2)
run, refused, results = (partial(do, "downsampling_gan") for do in (runs.run, runs.fails, runs.results))


def content(key, folder, *overlays, **override):
    """What an entry of train.json, with overlays, is built to."""
    override = runs.overrides("downsampling_gan", ["train"], folder, **override)
    return runs.content("downsampling_gan", key, "train", *overlays, **override)


def resampled(volume, spacing, shape, affine=runs.AFFINE):
    """A volume on a grid of another spacing that begins where its own does, and the affine of the grid."""
    factors = np.array(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
    # Voxels keep their edges, so that the first ones are not centred on each other.
    found = affine_transform(volume, factors, (factors - 1) / 2, shape, order=3, mode="nearest")
    return found, affine @ from_matvec(np.diag(factors), (factors - 1) / 2)


# Slices in several parts are those of test_few_slices_and_air.
@pytest.mark.parametrize(("per", "batch_volumes"), [("slice", 2), ("volume", 1)])
def test_every_slice_or_volume_has_its_kernel(cohort, tmp_path, per, batch_volumes):
    """With the right file and slice, in one part or in several, and none is of air."""
    options = {"blur#kernel_per": per, "blur#batch_volumes": batch_volumes, "blur#slice_step": 5}
    run(["train"], tmp_path, dataset_dir=str(cohort), only_stages=1, **options, **SHORT)
    expected = []
    for subject in TINY.groups["target"]:
        path = cohort / f"{TINY.case(subject)}.nii.gz"
        hr = nib.load(path).get_fdata()
        lr = TINY.degradation(torch.from_numpy(hr / np.quantile(hr, 0.999))).numpy()
        tissue = np.flatnonzero((lr > 0.05).mean(axis=(0, 1)) >= 0.05)
        assert 15 < len(tissue) < 33
        expected += [(str(path), int(z)) for z in tissue[::5]] if per == "slice" else [(str(path), None)]
    kernels = tmp_path / "models" / "kernels"
    found = read_kernels(kernels)
    assert [(entry["volume"], entry["slice"]) for entry in found] == expected
    parts = range(1, 3 if batch_volumes == 1 else 2)
    assert {entry["file"] for entry in found} == {str(kernels / f"kernels_{part}.json") for part in parts}
    for part in parts:
        about = json.loads((kernels / f"kernels_{part}.json").read_text())
        assert (about["hr_spacing_mm"], about["factor"], about["offset"]) == (pytest.approx([1.0, 1.1]), 2, 0.0)
    for entry in found:
        assert entry["kernel"].shape == (13, 13) and entry["sum"] == pytest.approx(1, abs=1e-5)
    states = [f"training_state_kernels_{part}.pt" for part in parts]
    files = [f"kernels/kernels_{part}{end}" for part in parts for end in (".json", ".png", "_mscn.png")]
    assert runs.leavings(tmp_path / "models") == sorted(states + files)


def test_stages_one_by_one(cohort, trained, tmp_path):
    """Stage 2 trains with the files of kernels as they are; both stages apart become what one command makes."""
    data, folder = {"dataset_dir": str(cohort)}, tmp_path / "models" / "kernels"
    words = [f"{folder} holds no kernels", "--only_stages 1", "--kernel_dir DIR"]
    refused(["train"], tmp_path, *words, only_stages=2, **data)
    for stage in (1, 2):
        run(["train"], tmp_path, only_stages=stage, **data)
    assert runs.same(results(tmp_path), results(trained))

    # A user makes every kernel one that leaves the image as it is.
    kernels = json.loads((folder / "kernels_1.json").read_text())
    for entry in kernels["kernels"]:
        entry["kernel"] = np.pad([[1.0]], 6).tolist()
    (folder / "kernels_1.json").write_text(json.dumps(kernels))
    edited = (folder / "kernels_1.json").read_bytes()
    batch = next(iter(content("train#dataloader", tmp_path, **data)()))
    lr = content("graph", tmp_path, **data)(batch, ["lr_noiseless"])["lr_noiseless"]
    assert lr.shape == (4, 1, 12, 12, 1) and torch.equal(lr, batch["hr"][:, :, ::2, ::2])
    # A finished run that is resumed leaves the edited kernels, and stage 2 alone trains with them.
    for changed, override in ((False, {"resume": True}), (True, {"only_stages": 2, "overwrite": True})):
        run(["train"], tmp_path, **data, **override)
        assert (folder / "kernels_1.json").read_bytes() == edited
        assert (runs.history(tmp_path, "_edsr") != runs.history(trained, "_edsr")) == changed


def test_interrupted_in_a_part(cohort, tmp_path, monkeypatch):
    """A run stopped in part 2 goes on there; begun anew, nothing old is left; lost kernels are made again."""
    options = {"dataset_dir": str(cohort), "blur#batch_volumes": 1, "blur#kernel_per": "volume", **SHORT}
    options["train#trainer#run_folder#save_minutes"] = 0
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(["train"], whole, **options)
    original, calls, stop = AlternatingTrainer._iteration, [], 2 + 2

    def interrupted(*args):
        calls.append(args)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(AlternatingTrainer, "_iteration", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["train"], parts, **options)
    assert runs.history(parts, "_kernels_2")[-1]["iteration"] == 1
    calls.clear()
    run(["train"], parts, resume=True, **options)
    assert len(calls) == 1 + 2
    assert runs.same(results(parts), results(whole))
    calls.clear()
    stop = 1
    with pytest.raises(KeyboardInterrupt):
        run(["train"], parts, overwrite=True, **options)
    assert not list(parts.glob("models/kernels/*.json")) and not list(parts.glob("models/training_state*"))
    assert (parts / "models" / "model.pt").is_file()

    monkeypatch.undo()
    before = results(whole)  # kill -9 may leave the state of a finished stage without its kernels
    shutil.rmtree(whole / "models" / "kernels")
    run(["train"], whole, resume=True, only_stages=1, **options)
    assert runs.same(results(whole), before)


def test_the_recipe_for_scans_of_unknown_blur(cohort, tmp_path):
    """Stage 2 alone, with drawn kernels; validated on several of them; longer intervals than epochs leave weights."""
    data = {"dataset_dir": str(cohort)}
    kernels = content("kernels", tmp_path, "release", **data)
    assert kernels.shape == (256, 33, 33)
    for name, count in (("blur#validation", 16), ("scan", 20)):
        assert len(content(f"{name}_degradation", tmp_path, "release", **data).degradations) == count
    small = {"max_epochs": 1, "epoch_length": 2, "val_interval": 5, "lr_patch": [12, 12, 1], "batch_size": 2}
    run(["train", "release"], tmp_path, **data, **small)
    weights = tmp_path / "models" / "model.pt"
    assert read_overlay(weights)["slice_axis"] == "auto"
    # It is known before kernels are estimated.
    further = {**data, "initial": str(weights), "features": 8}
    refused(["train"], tmp_path / "further", str(weights), "features is 8", **further)


@pytest.mark.parametrize(
    ("override", "kernels", "method"),
    [
        ({"method": "ZF + EDSR", "kernels": ZERO_FILLING}, make_zero_filling_kernel(2), "ZF + EDSR"),
        ({"residual": False}, make_gaussian_kernel(1.5), "GB + EDSR"),
    ],
)
def test_known_kernels(cohort, tmp_path, override, kernels, method):
    """They train stage 2 alone; the paper's network has no residual, and starts from nothing."""
    names, override = ["train", "known_kernel"], {"dataset_dir": str(cohort), **override}
    run(names, tmp_path, **override, **SHORT)
    assert torch.equal(content("blur", tmp_path, "known_kernel", **override).kernels, kernels[None])
    assert kernels.shape == {"ZF + EDSR": (33, 33), "GB + EDSR": (13, 13)}[method]
    assert runs.leavings(tmp_path / "models") == [
        "model.json", "model.pt", "model_last.json", "model_last.pt", "training_state_edsr.pt",
    ]  # fmt: skip
    assert (runs.history(tmp_path, "_edsr")[-1]["validation/psnr"] > 20) == ("residual" not in override)
    run([*names, "evaluate"], tmp_path, **override)
    assert list(runs.table(tmp_path)) == [("cubic", TINY.case(5)), (method, TINY.case(5))]


def test_kernels_are_learned_from_the_subjects_own_hr_where_it_is_there(cohort, tmp_path):
    cases = next(content("blur", tmp_path, dataset_dir=str(cohort), fold=0).make_part_loaders()).cases
    assert len(cases) > 5 and all(len(case.lr) == len(case.hr) == 1 for case in cases)


def test_evaluate(cohort, trained, tmp_path):
    """The table's cubic row is what scipy gets; other weights add rows."""
    folder, case = shutil.copytree(trained, tmp_path / "run"), TINY.case(5)
    others = {"evaluate#report#compare_with": {"again": str(folder / "models" / "model.pt")}}
    run(["train", "evaluate"], folder, dataset_dir=str(cohort), **others)

    def degrade(hr):
        kernel = make_gaussian_kernel((2.0, 1.0), 30).double().numpy()
        places = np.meshgrid(np.arange(40) / 2, np.arange(37), np.arange(44) / 2, indexing="ij")
        return correlate(hr, kernel[:, None], mode="nearest")[::2, :, ::2], places

    runs.check_evaluation(folder, cohort / f"{case}.nii.gz", degrade, "DSGAN + EDSR")
    scored = runs.table(folder)
    assert list(scored) == [("cubic", case), ("again", case), ("DSGAN + EDSR", case)]
    assert {**scored["again", case], "method": "DSGAN + EDSR"} == scored["DSGAN + EDSR", case]


def test_registered_lr(cohort, trained, tmp_path):
    """An authentic LR scan that lies elsewhere, on another grid, is moved onto HR; without that it is refused."""
    hr = runs.phantom(9)
    turn = Rotation.from_euler("xyz", [2, -1, 3], degrees=True).as_matrix()
    place = from_matvec(turn @ np.diag([2.1, 2.3, 1.3]), [-1, 0, 2])
    to_hr, blurred = np.linalg.solve(runs.AFFINE, place), gaussian_filter(hr, (1, 1, 0))
    lr = affine_transform(blurred, to_hr[:3, :3], to_hr[:3, 3], (18, 20, 32), order=3, mode="nearest")
    elsewhere = (lr, from_matvec(np.eye(3), [2, -1.5, 1]) @ place)
    shifted = from_matvec(np.eye(3), [2, 0, 0]) @ np.diag([2, 2.2, 1.2, 1])
    same_size = (runs.degrade(hr, runs.AFFINE, TINY.degradation)[0], shifted)
    pair = {"hr": runs.save(tmp_path / "sub-a_hr.nii.gz", hr), "lr": tmp_path / "sub-a_lr.nii.gz"}
    data = runs.datalist(tmp_path / "data", **{**runs.listed(cohort, TINY), "test": [pair]})
    folder, names = shutil.copytree(trained, tmp_path / "run"), ["train", "evaluate"]
    options = {"dataset_dir": str(data), "denoise_input": True}
    for stored, words in (
        (same_size, ["sub-a_lr.nii.gz: LR does not lie on HR: ", "first voxel by 1.00 LR voxels", "register"]),
        (elsewhere, ["sub-a_hr.nii.gz, ", "sub-a_lr.nii.gz: LR has (18, 20, 32)", "(20, 22, 36)", "Register"]),
    ):
        runs.save(pair["lr"], *stored)
        refused(names, folder, *words, **options)

    run(names, folder, **{"register": True}, **options)
    quality = json.loads((folder / "out" / "sub-a_lr_registration.json").read_text())
    assert quality["mutual_information_after"] > quality["mutual_information_before"]
    assert 1.7 < quality["mean_displacement_mm"] < 3.7
    assert list(runs.table(folder)) == [("cubic", "sub-a_hr"), ("DSGAN + EDSR", "sub-a_hr")]
    assert all(float(row["psnr"]) > 20 for row in runs.table(folder).values())

    # So is an LR scan that is learned from.
    data = runs.datalist(tmp_path / "learned", **{**runs.listed(cohort, TINY), "target": [pair]})
    (item,) = content("train#target", tmp_path, dataset_dir=str(data), register=True).volumes
    assert item["lr"].shape == (1, 20, 22, 36)
    assert np.corrcoef(item["lr"][0].numpy().ravel(), blurred[::2, ::2].ravel())[0, 1] > 0.95


def test_authentic_lr(cohort, tmp_path):
    """LR scans of another field of view, matrix and nearly the right spacing are resized exactly to it."""
    hr = gaussian_filter(runs.phantom(8, (56, 60, 30)), (1.5, 1.5, 0))
    lr, affine = resampled(hr, [2.16 * 1.0, 2.16 * 1.1, 1.2], (25, 27, 30))
    scan = runs.save(tmp_path / "sub-a_lr.nii.gz", lr, affine, np.int16)
    entries = {**runs.listed(cohort, TINY), "target": [{"lr": scan}]}
    entries["source"].append(TINY.save_hr(tmp_path, "b", runs.phantom(1, (48, 40, 20))))
    options = {"dataset_dir": str(runs.datalist(tmp_path / "data", **entries))}
    blur = content("blur", tmp_path, **options)
    (found,) = blur.load_lr_scans(blur.target.data, denoise=False).volumes
    found = found["lr"][0].numpy() * np.quantile(np.rint(lr), 0.999)
    assert found.shape == (27, 29, 30)
    expected, _ = resampled(hr, [2.0, 2.2, 1.2], (27, 29, 30))
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.02 * hr.max())

    run(["train"], tmp_path, **options, **SHORT)
    assert {entry["volume"] for entry in read_kernels(tmp_path / "models" / "kernels")} == {str(scan)}
    assert (tmp_path / "models" / "model.pt").is_file()

    # What has the spacing already is not touched, however it lies.
    blur = content("blur", tmp_path, dataset_dir=str(cohort))
    made = blur.load_lr_scans(blur.target.data, denoise=False)
    for item, entry in zip(made.volumes, made.data, strict=True):
        volume = nib.as_closest_canonical(nib.load(entry["hr"])).get_fdata()
        lr = TINY.degradation(torch.from_numpy(volume / np.quantile(volume, 0.999)))
        torch.testing.assert_close(item["lr"][0].double(), lr, atol=1e-4, rtol=0)


def test_networks_of_the_tables(cohort, tmp_path):
    """Each row of the tables builds the networks that it names."""
    tables = json.loads(Path(BUNDLE, "configs", "tables.json").read_text())
    rows = [row for table in tables for row in read_table_rows(BUNDLE, table) if row["bundle"] == BUNDLE]
    for row in {str((row["overlays"], row["override"])): row for row in rows}.values():
        override = {key: "$None" if value is None else value for key, value in row["override"].items()}
        parser = content(None, tmp_path, *row["overlays"], dataset_dir=str(cohort), **override)
        estimation = parser.get_parsed_content("train#trainer").make_trainer(1)
        paper, known = "paper" in row["overlays"], "known_kernel" in row["overlays"]
        assert parser["only_stages"] == ([2] if known else None)
        assert (estimation.network.base is None) == (paper or "residual" in override)
        graph, players = estimation.make_players(kernels=4)
        detail = override.get("kernel_graph#networks#discriminator#detail", not paper)
        assert graph.networks["discriminator"].detail == detail
        assert players["downsampling"]._optimizer.keywords["eps"] == pytest.approx(1e-8 / 4)
        first = next(estimation.blur.make_part_loaders()).cases[0]
        assert (first.slice is None) == (override.get("blur#kernel_per") == "volume")


def test_the_paper_s_form(cohort, tmp_path):
    """Eq. 2 by two players in turn and eq. 3; the kernels as trained; and what is asked of the data."""
    known = {"dataset_dir": str(cohort), "kernels": {"_target_": "torch.eye", "n": 13}}
    parser = content(None, tmp_path, "paper", "evaluate", **known)
    assert parser["register"] is True and parser["denoise_input"] is True
    assert parser.get_parsed_content("train#dataloader")().mirrored == 0
    estimation = parser.get_parsed_content("train#trainer").make_trainer(1)
    assert estimation.as_trained and list(estimation.blur.noise_levels) == [0]
    graph, players = estimation.make_players(kernels=1)
    n = SimpleNamespace(**graph.eval().networks)
    assert n.discriminator.norm_weight is None and not n.discriminator.detail
    for layer in n.generator.layers:
        layer.data *= 10
    batch = {"hr": torch.rand(1, 1, 64, 64), "lr": torch.rand(1, 1, 26, 26)}
    (k,), schedule = n.generator(), players["downsampling"].schedule
    fake, bicubic = n.sampling(batch["hr"], k[None]), n.sampling(batch["hr"], n.bicubic())
    places = torch.arange(13.0) - 6
    off_centre = torch.stack([(k.sum(1) * places).sum(), (k.sum(0) * places).sum()]).norm() / k.sum()

    def totals():
        tables = {name: player.losses for name, player in players.items()}
        needed = {name: [i for row in table.list_inputs().values() for i in row] for name, table in tables.items()}
        return {name: table(graph(batch, needed[name]))[0] for name, table in tables.items()}

    judge = n.discriminator
    for iterations, bicubics, late in ((0, 5, 0), (400, 0.0005, 1)):
        for _ in range(iterations):
            schedule.step({"bicubic": torch.tensor([0.1])})
        found = totals()
        expected = (judge(fake) - 1).abs().mean() + bicubics * (fake - bicubic).abs().mean()
        expected += 0.5 * (1 - k.sum()).abs() + 0.5 * (k * BoundaryLoss(13).mask).abs().mean()
        expected += late * (off_centre + 5 * k.abs().pow(0.2).mean())
        torch.testing.assert_close(found["downsampling"], expected, rtol=1e-4, atol=1e-4)
        expected = (judge(batch["lr"]) - 1).abs().mean() + judge(fake).abs().mean()
        torch.testing.assert_close(found["discriminator"], expected, rtol=1e-4, atol=1e-5)
    trained = {name: player.networks for name, player in players.items()}
    assert trained == {"downsampling": ("generator",), "discriminator": ()}
    run(["train", "paper"], tmp_path, dataset_dir=str(cohort), **SHORT)
    history = runs.history(tmp_path, "_kernels_1")[-1]
    assert {"downsampling/sparse", "discriminator/adversarial/real"} <= history.keys()


def test_few_slices_and_air(cohort, tmp_path, capsys):
    """A scan with tissue in one slice has one kernel; slices of air are said; only air is refused."""
    lr = runs.degrade(runs.phantom(3, (48, 44, 30)), runs.AFFINE, TINY.degradation)[0][:, :, 13:16]
    lr[:, :, [0, 2]] = 0
    thick = np.diag([2, 2.2, 5, 1])
    scans = [runs.save(tmp_path / f"sub-{name}_lr.nii.gz", lr, thick) for name in "ab"]
    entries = {**runs.listed(cohort, TINY), "target": [{"lr": scan} for scan in scans]}
    options = {"dataset_dir": str(runs.datalist(tmp_path / "data", **entries)), "blur#batch_volumes": 1}
    run(["train"], tmp_path / "run", only_stages=1, **options, **SHORT)
    found = read_kernels(tmp_path / "run" / "models" / "kernels")
    assert [(entry["volume"], entry["slice"]) for entry in found] == [(str(scan), 1) for scan in scans]
    assert capsys.readouterr().out.count("2 slices of the LR volumes") == 2

    # In the last part, and yet before the first is trained.
    lr[:] = 0
    lr[4:6, 5, 1] = [100.5, 90.25]  # no labels, which are whole numbers
    runs.save(scans[1], lr, thick)
    refused(["train"], tmp_path / "air", "sub-b_lr.nii.gz: every slice is (nearly) all air", **options)


def test_what_cannot_be_trained(cohort, tmp_path):
    """It is said before stage 1 trains, with the file and what to do."""
    entries = runs.listed(cohort, TINY)
    fine = {"lr": runs.save(tmp_path / "sub-fine_lr.nii.gz", runs.phantom(10))}
    coarse = TINY.save_lr(tmp_path, "coarse", runs.phantom(11, (80, 88, 36)))
    small = runs.degrade(runs.phantom(2, (20, 44, 36)), runs.AFFINE, TINY.degradation)
    small = {"lr": runs.save(tmp_path / "sub-small_lr.nii.gz", *small)}
    spacing = ["sub-fine_lr.nii.gz: its pixels are [1.0, 1.1] mm"]
    median = ["median in-plane spacing is [1.0, 1.1] mm", "sub-coarse_t1w.nii.gz: [2.0, 2.2] mm", "Resample"]
    crop = ["'target'", "sub-small_lr.nii.gz: the lr volume has (10, 22, 36)", "smaller --crop"]
    for groups, override, words in (
        ({"source": [{"hr": coarse}], "target": [fine]}, {}, [*spacing, "[4.0, 4.4] mm", "LR and HR swapped"]),
        ({"target": [{"lr": coarse}, fine]}, {"blur#batch_volumes": 1}, spacing),
        ({"source": [*entries["source"], {"hr": coarse}]}, {}, median),
        ({"target": [*entries["target"], small]}, {"blur#batch_volumes": 2}, crop),
        ({}, {"blur#batch_volumes": 0}, ["batch_volumes is 0", "at least 1"]),
        ({}, {"scale": [2, 1, 1]}, ["scale is [2, 1, 1]", "[n, n, 1]"]),
    ):
        data = str(runs.datalist(tmp_path / "data", **{**entries, **groups}))
        message = refused(["train"], tmp_path / "run", *words, dataset_dir=data, **override)
        assert words != spacing or "coarse" not in message


def test_inference(trained, tmp_path):
    """A scan is resized to the training's pixels first, its result lies where it lies, and others are refused."""
    hr = runs.phantom(9, (56, 60, 48))
    lr, affine = resampled(gaussian_filter(hr, (1, 1, 0)), [2.16, 2.376, 4.8], (24, 25, 12), runs.OBLIQUE)
    scans, out = tmp_path / "scans", tmp_path / "sr"
    near = runs.save(scans / "near.nii.gz", lr, affine, np.int16, "SPL")
    options = {"output_dir": str(out), "slice_axis": "auto", "lr_spacing": [2.0, 2.2], "denoise_input": True}
    run(["inference"], trained, dataset_dir=str(near), **options)
    lr, sr = nib.load(near), nib.load(out / "near_sr.nii.gz")
    assert nib.aff2axcodes(sr.affine) == tuple("SPL") and sr.get_data_dtype() == np.int16
    np.testing.assert_allclose(nib.affines.voxel_sizes(sr.affine), [4.8, 1.1, 1.0], rtol=1e-5)
    assert sr.shape == (12, 2 * round(25 * 1.08), 2 * round(24 * 1.08))
    # The edges of the field of view, to half a voxel that is rounded, and what is in it.
    assert np.abs(runs.centre_of_mass(sr) - runs.centre_of_mass(lr)).max() < 0.1
    for corner in np.ndindex(2, 2, 2):
        ends = [apply_affine(i.affine, np.array(corner) * i.shape - 0.5) for i in (lr, sr)]
        assert np.abs(ends[0] - ends[1]).max() < 1.5

    far = runs.save(scans / "far.nii.gz", *runs.degrade(hr, runs.AFFINE, InPlaneKernel(make_gaussian_kernel(2.0), 4)))
    with pytest.raises(RuntimeError) as error:
        run(["inference"], trained, dataset_dir=str(far), **{**options, "slice_axis": "SI"})
    message = str(runs.first_cause(error.value))
    assert f"{far}: its pixels are [4.0, 4.4] mm" in message and "[2.0, 2.2] mm" in message
    assert runs.written(out) == ["near_sr.nii.gz"]
