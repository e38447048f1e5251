"""CT guidance: three stages, real thick slices, CT as scanners give it, and what must be refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.bundle import ConfigParser

from common.commands.datalist import write_datalist
from common.commands.remember import remember
from common.degradations import BlockAverage, GaussianProfile
from common.files import read_about

from ..benchmarks import joint_training
from . import runs

ct_guided = pytest.mark.parametrize("bundle", ["ct_guided"], indirect=True, scope="session")
TINY = runs.TINY["ct_guided"]
SHORT = {"max_epochs": 1, "epoch_length": 1}
NO_HOUNSFIELD = ("ct_offset", "window")
THICK = GaussianProfile((1, 1, 4))


def content(key, *overlays, **override):
    """What an entry of train.json, with overlays, is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("ct_guided", "train", *overlays))
    parser.update(override)
    return parser.get_parsed_content(key)


def run(names, folder, **override):
    """Run configs in this process."""
    runs.run("ct_guided", names, folder, **override)


def fails(folder, names=("train",), **override):
    """The message of a run that must fail and leave nothing."""
    return runs.fails("ct_guided", names, folder, **override)


def table(folder):
    """The rows of an evaluation, by method and case."""
    with (folder / "out" / "table.csv").open() as file:
        return {(row["method"], row["case"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """CT in Hounsfield units on one grid and thick-slice MR on another, sagittal, with no HR MR anywhere."""
    folder = tmp_path_factory.mktemp("clinic")
    ct = np.diag([0.8, 0.8, 0.8, 1.0])
    runs.save(folder / "ct" / "sub-a_ct.nii.gz", runs.head_ct(0), ct, np.int16)
    runs.save(folder / "ct" / "sub-b_ct.nii.gz", runs.head_ct(1) + 1024, ct, np.uint16, axes="LPS")
    for subject in "cd":
        # Slices lie across the axis from left to right, the last of the world's first.
        hr = runs.phantom(ord(subject), (40, 44, 36)).transpose(2, 0, 1)
        lr, affine = runs.degrade(hr.transpose(1, 2, 0), np.diag([1.0, 1.1, 1.0, 1.0]), THICK)
        affine = affine[:, [2, 0, 1, 3]][[2, 0, 1, 3]]
        runs.save(folder / "mr" / f"sub-{subject}_t1w.nii.gz", lr.transpose(2, 0, 1), affine, np.int16)
    write_datalist(str(folder), ct="ct/*", lr="mr/*")
    return folder


def test_sizes():
    """The paper's SRNet and translation network, with their sizes in the JSON."""
    network = content("network_def").network
    rest = {*network.upsampler.parameters(), *network.tail.parameters()}
    assert sum(p.numel() for p in network.parameters() if p not in rest) == 21_972_800
    assert network.upsampler.out_channels == 4 * 64 and tuple(network(torch.zeros(1, 1, 8, 5)).shape) == (1, 1, 8, 20)
    for scale in (2, 3, 5, 6):
        small = content("network_def", scale=[1, 1, scale], features=4, growth=4, blocks=1, layers=1)
        image = torch.rand(1, 1, 6, 7)
        assert tuple(small(image).shape) == (1, 1, 6, 7 * scale)
        # Untrained it is Keys' cubic at the right positions: flat images stay flat, and the mean stays in place.
        torch.testing.assert_close(small(image.mean(dim=3, keepdim=True).expand(1, 1, 6, 7))[..., 0], image.mean(dim=3))
    inference = ConfigParser()
    inference.read_config(runs.configs("ct_guided", "inference"))
    inference.update({"checkpoint": "none.pt"})
    same = inference.get_parsed_content("network_def").state_dict()
    assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in content("network_def").state_dict().items()}


def test_benchmark():
    """The loops that stage 3 is measured against run at any size."""
    override = {**TINY.network, **TINY.training, "learning_rate": 0.001, "device": "$torch.device('cpu')"}
    for overlays in ((), ("paper",)):
        assert joint_training.ours(overlays, override, 1)[0] > 0
        assert joint_training.plain(overlays, override, 1, narrow=True)[0] > 0
        assert joint_training.plain(overlays, override, 1, narrow=False)[0] > 0


def test_equation_7():
    """The players of stage 3 have each term of eq. 1 to 7, with the paper's weights."""
    players = content("players_3", lambda_3=0.5)
    weights = {name: weight for name, (weight, *_) in players["translation"].losses.terms.items()}
    groups = {"self": 10, "cycle": 10, "latent": 1, "perceptual": 0.5, "adversarial": 1}
    counts = {"self": 2, "cycle": 2, "latent": 4, "perceptual": 2, "adversarial": 2}
    assert weights == {name: groups[name.split("/")[0]] for name in weights}
    assert {group: sum(name.startswith(group) for name in weights) for group in counts} == counts
    paper = content("players_3", "paper", lambda_3=0.5)
    assert paper["sr_net"] is None and "sr_net" in paper["translation"].networks
    assert {*paper["translation"].losses.terms} == {*weights, "adversarial/mr"}


@pytest.mark.slow
@ct_guided
def test_stages_one_by_one(cohort, trained, tmp_path):
    """Each alone, from the checkpoint of the one before, they become what one command makes; or from a named file."""
    message = fails(tmp_path, dataset_dir=str(cohort), stages=[2])
    assert re.search(rf"no weights at {tmp_path}/models/stage_1.pt.*--initial PATH", message)
    for stage in (1, 2, 3):
        run(["train"], tmp_path, dataset_dir=str(cohort), stages=stage)
    assert runs.same(runs.results("ct_guided", tmp_path), runs.results("ct_guided", trained))
    weights = [torch.load(tmp_path / "models" / f"stage_{k}.pt", weights_only=True) for k in (1, 2, 3)]
    assert not any(runs.same(first, second) for first, second in pairwise(weights))
    assert runs.same(torch.load(tmp_path / "models" / "model.pt", weights_only=True), weights[2])
    assert imread(tmp_path / "out" / "translation.png").std() > 0.05

    def first_loss(folder, stages, **override):
        run(["train"], folder, dataset_dir=str(cohort), stages=stages, **SHORT, **override)
        return runs.history(folder, f"_{stages[-1]}")[0]

    stage_1 = str(tmp_path / "models" / "stage_1.pt")
    from_1 = first_loss(tmp_path / "from_1", [3], initial=stage_1)
    shutil.copytree(tmp_path / "models", tmp_path / "renamed" / "models")
    shutil.copyfile(stage_1, tmp_path / "renamed" / "models" / "stage_2.pt")
    assert from_1 == first_loss(tmp_path / "renamed", [3], overwrite=True) != first_loss(tmp_path, [3], overwrite=True)
    # Stage 3 of [1, 3] starts from stage 1, and what builds on a stage that begins anew is gone.
    run(["train"], tmp_path / "left_out", dataset_dir=str(cohort), stages=[1, 3])
    left_out = torch.load(tmp_path / "left_out" / "models" / "stage_3.pt", weights_only=True)
    run(["train"], tmp_path / "left_out", dataset_dir=str(cohort), stages=3, initial=stage_1, overwrite=True)
    again = torch.load(tmp_path / "left_out" / "models" / "stage_3.pt", weights_only=True)
    assert runs.same(left_out, again) and not runs.same(left_out, weights[2])
    run(["train"], tmp_path / "renamed", dataset_dir=str(cohort), stages=1, overwrite=True, **SHORT)
    assert {p.name for p in (tmp_path / "renamed" / "models").iterdir()} == {
        "model.pt", "stage_1.pt", "training_state_1.pt"
    }  # fmt: skip
    assert "stages is [4]" in fails(tmp_path, dataset_dir=str(cohort), stages=[4])


@ct_guided
def test_rows_of_the_tables(cohort, trained, tmp_path):
    """Stages, the supervised network, the paper's form and planes are evaluated and differ; HR MR is only scored."""
    models = {f"stage {k}": str(trained / "models" / f"stage_{k}.pt") for k in (1, 2)}
    shutil.copytree(trained / "models", tmp_path / "models")
    run(["train", "evaluate"], tmp_path, dataset_dir=str(cohort), others=models)
    rows = table(tmp_path)
    assert {method for method, _ in rows} == {"cubic", *models, "CT-guided"}
    assert len({row["psnr"] for row in rows.values()}) == 4
    for planes in ([0], [1]):
        shutil.copytree(trained / "models", tmp_path / str(planes) / "models")
        run(["train", "evaluate"], tmp_path / str(planes), dataset_dir=str(cohort), planes=planes)
    one, two = (table(tmp_path / str(planes)) for planes in ([0], [1]))
    assert len({rows["CT-guided", TINY.case(5)]["psnr"] for rows in (rows, one, two)}) == 3
    folders = (tmp_path, tmp_path / "[0]", tmp_path / "[1]")
    volumes = [nib.load(folder / "out" / f"{TINY.case(5)}_sr.nii.gz") for folder in folders]
    both, first, second = (volume.get_fdata() for volume in volumes)
    inside = both > 20  # what lies below the input's smallest is cut off
    np.testing.assert_allclose(both[inside], ((first + second) / 2)[inside], atol=1.01)

    with pytest.raises(Exception, match=r".") as caught:
        run(["train", "evaluate"], tmp_path, dataset_dir=str(cohort), lpips=True)
    assert re.search("lpips.*torchvision", str(runs.first_cause(caught.value)))

    without = json.loads((cohort / "dataset.json").read_text())
    data = tmp_path / "without_validation"
    data.mkdir()
    (data / "dataset.json").write_text(json.dumps({**without, "validation": []}))
    run(["train"], tmp_path / "again", dataset_dir=str(data))
    for stage, file in enumerate(TINY.weights, start=1):
        weights = [torch.load(folder / "models" / file, weights_only=True) for folder in (trained, tmp_path / "again")]
        assert runs.same(*weights), f"HR MR of the validation had a part in stage {stage}"

    for name in ("train_supervised", "paper"):
        run(["train", name], tmp_path / name, dataset_dir=str(cohort), **SHORT)
    assert not (tmp_path / "train_supervised" / "models" / "stage_2.pt").exists()


@ct_guided
def test_cross_validation(cohort):
    """Each MR subject with known HR is held out once; the CT stays."""
    held = []
    for fold in range(3):
        override = {"dataset_dir": str(cohort), "folds": 3, "fold": fold}
        groups = [content(f"{name}_data", "cross_validation", **override) for name in ("source", "target", "test")]
        source, target, test = ({entry["subject"] for entry in group} for group in groups)
        assert source == {"sub-0", "sub-1"} and target | test == {"sub-2", "sub-3", "sub-5"} and len(test) == 1
        # The supervised network, which learns from HR MR, does not see the fold's either.
        overlays = ("cross_validation", "train_supervised")
        assert {entry["subject"] for entry in content("source_data", *overlays, **override)} == target
        held += test
    assert len({*held}) == 3


def test_clinical_scans(clinic, tmp_path):
    """HU and offset CT with thick-slice MR whose slices are sagittal, none with known HR: all is found and used."""
    small = {key: value for key, value in TINY.training.items() if key not in ("slice_axis", *NO_HOUNSFIELD)} | SHORT
    options = {**TINY.network, **small, "dataset_dir": str(clinic), "output_dir": str(tmp_path / "out")}
    assert content("axis", **options) == "LR"
    np.testing.assert_allclose(content("hr_spacing", **options), [1.0, 1.1, 1.0], atol=1e-6)
    with pytest.warns(UserWarning, match="sub-b_ct.*1024"):
        source = content("train#source", **options)
    for item, affines in zip(source.items, source.affines, strict=True):
        np.testing.assert_allclose(np.linalg.norm(affines["hr"][:3, :3], axis=0), [1.0, 1.1, 1.0], atol=1e-6)
        soft = item["hr"][(item["hr"] > 0.3) & (item["hr"] < 0.7)]
        assert abs(soft.median().item() - (30 + 150) / 400) < 0.03 and item["hr"].max() > 0.9
    with pytest.warns(UserWarning, match="sub-b_ct"):
        runs.run("ct_guided", ["train"], tmp_path, **{**small, "slice_axis": "auto", "ct_offset": "auto",
                 "window": [-150, 250]}, dataset_dir=str(clinic))  # fmt: skip
    scan = clinic / "mr" / "sub-c_t1w.nii.gz"
    run(["inference"], tmp_path, dataset_dir=str(scan), output_dir=str(tmp_path / "sr"))
    lr, sr = nib.load(scan), nib.load(tmp_path / "sr" / "sub-c_t1w_sr.nii.gz")
    assert sr.shape == (4 * lr.shape[0], *lr.shape[1:]) and sr.get_data_dtype() == np.int16
    moved = runs.centre_of_mass(sr) - runs.centre_of_mass(lr)
    assert np.abs(moved).max() < 0.1
    message = fails(tmp_path, ["train", "evaluate"], dataset_dir=str(clinic))
    assert "group 'test' has no volumes" in message


@ct_guided
def test_what_is_no_thick_mr_or_no_ct(cohort, trained, tmp_path, clinic):
    """MR given as CT and CT as MR, isotropic MR, a scale that contradicts the spacing, weights that are not there."""
    entries = runs.listed(cohort, TINY)
    mr, ct = entries["target"][0]["hr"], clinic / "ct" / "sub-a_ct.nii.gz"
    data = str(runs.datalist(tmp_path / "mr_as_ct", **{**entries, "source": [{"ct": mr}]}))
    auto = {"ct_offset": "auto", "window": [-150, 250]}
    assert re.search(rf"{mr.name}.*CT.*--ct_offset", fails(tmp_path / "run", dataset_dir=data, **auto))
    run(["train"], tmp_path / "insisted", dataset_dir=data, stages=[1], **SHORT)  # TINY gives an offset
    assert re.search("2000 to 3000 HU.*--window", fails(tmp_path / "run", dataset_dir=data, window=[2000, 3000]))

    data = str(runs.datalist(tmp_path / "ct_as_mr", **{**entries, "target": [{"hr": ct}]}))
    assert re.search(rf"{ct.name}.*CT.*--check_mr false", fails(tmp_path / "run", dataset_dir=data))
    run(["train"], tmp_path / "insisted_too", dataset_dir=data, stages=[1], check_mr=False, **SHORT)

    scans = tmp_path / "scans"
    TINY.save_lr(scans, "good", runs.phantom(0))
    thick, affine = runs.degrade(runs.phantom(0), np.diag([1.0, 1.0, 1.0, 1.0]), THICK)
    thick_ct = THICK(torch.from_numpy(runs.head_ct(0, (60, 66, 52)))).numpy()
    runs.save(scans / "thick_ct.nii.gz", thick_ct, THICK.lr_affine(np.eye(4)))
    runs.save(scans / "isotropic.nii.gz", runs.phantom(0), np.diag([1.0, 1.0, 1.2, 1.0]))
    runs.save(scans / "two.nii.gz", thick, affine @ np.diag([1, 1, 0.5, 1]))
    with pytest.raises(RuntimeError) as caught:
        run(["inference"], trained, dataset_dir=str(scans), output_dir=str(tmp_path / "sr"))
    message = str(runs.first_cause(caught.value))
    for name, pattern in (
        ("thick_ct", "CT.*--check_mr false"),
        ("isotropic", "(thick|tell which axis)"),
        ("two", r'scale.*4.*--scale "\[1,1,2\]"'),
    ):
        assert re.search(rf"{name}.nii.gz: .*{pattern}", message), message
    assert runs.written(tmp_path / "sr") == [f"{TINY.case('good')}_sr.nii.gz"]
    message = fails(trained, ["inference"], dataset_dir=str(scans / "two.nii.gz"), scale=[1, 1, 2])
    assert "scale is [1, 1, 2], but these weights were trained with [1, 1, 4]" in message

    lr = runs.save(tmp_path / "lr" / "sub-x_t1w.nii.gz", runs.phantom(0), np.diag([1.0, 1.0, 1.2, 1.0]))
    data = str(runs.datalist(tmp_path / "isotropic", **{**entries, "target": [{"lr": lr}]}))
    assert re.search(rf"{lr.name}.*thick", fails(tmp_path / "run", dataset_dir=data))
    message = fails(tmp_path / "run", dataset_dir=str(cohort), lambda_3=1.0)
    assert "VGG-16" in message and "--vgg_weights FILE" in message and "--lambda_3 0" in message
    run(["train"], tmp_path / "no_vgg", dataset_dir=str(cohort), lambda_3=1.0, stages=[1, 2], **SHORT)
    for override, pattern in (
        ({"scale": [1, 1, 7]}, "scale makes 7 slices of one, expected a whole number from 2 to 6"),
        ({"lr_patch": [24, 3], "scale": [1, 1, 5]}, "24x15 pixels.*multiples of 4"),
        ({"lr_patch": 16}, "lr_patch is 16, expected two numbers"),
        ({"attribute_halvings": 5}, "at least 32"),
        ({"contrasts": 2}, "contrasts is 2, expected at least 3"),
    ):
        assert re.search(pattern, fails(tmp_path / "run", **{"dataset_dir": str(cohort), **override}))
    for scale in range(2, 7):
        p, w = content("lr_patch", scale=[1, 1, scale])
        assert min(p, scale * w) >= 64 and not scale * w % 4


@ct_guided
def test_each_scan_by_the_weights_that_suit_its_slices(cohort, trained, tmp_path):
    """Of two factors beside each other; a scale that is given holds for all; failures of both groups are told."""
    models = shutil.copytree(trained / "models", tmp_path / "models")
    run(["train"], tmp_path / "three", dataset_dir=str(cohort), stages=[1], scale=[1, 1, 3], **SHORT)
    shutil.copy(tmp_path / "three" / "models" / "model.pt", models / "model_3.pt")
    thick, affine = runs.degrade(runs.phantom(0), np.eye(4), THICK)
    slices = {"a_4mm": 4, "b_3mm": 3, "c_6mm": 6, "d_2mm": 2}
    for name, mm in slices.items():
        runs.save(tmp_path / "scans" / f"{name}.nii.gz", thick, affine @ np.diag([1, 1, mm / 4, 1]))
    run(["inference"], tmp_path, dataset_dir=str(tmp_path / "scans"), output_dir=str(tmp_path / "sr"))
    factor = {"a_4mm": 4, "b_3mm": 3, "c_6mm": 4, "d_2mm": 3}
    for name, n in factor.items():
        sr = nib.load(tmp_path / "sr" / f"{name}_sr.nii.gz")
        assert sr.shape == (*thick.shape[:2], n * thick.shape[2])
        assert sr.header.get_zooms()[2] == pytest.approx(slices[name] / n)
        said = json.loads((tmp_path / "sr" / f"{name}_sr.json").read_text())["SuperResolution"]
        assert said["Scale"] == [1, 1, n] and said["Weights"]["File"].endswith({4: "model.pt", 3: "model_3.pt"}[n])
    options = {"dataset_dir": str(tmp_path / "scans" / "a_4mm.nii.gz"), "output_dir": str(tmp_path / "three_of_4mm")}
    remember(str(models / "model_3.pt"), adapt_iterations=1)
    run(["inference"], tmp_path, scale=[1, 1, 3], **options)
    assert nib.load(tmp_path / "three_of_4mm" / "a_4mm_sr.nii.gz").shape[2] == 3 * thick.shape[2]
    said = json.loads((tmp_path / "three_of_4mm" / "a_4mm_sr.json").read_text())["SuperResolution"]
    assert said["Weights"]["File"] == "model_3.pt" and said["Adapted"]["Iterations"] == 1
    assert said["Adapted"]["Profile"] == 1 and said["Adapted"]["ProfileFrom"] == "assumed"  # of a few slices
    run(["inference"], tmp_path, scale=[1, 1, 3], adapt_profile=0.8, **options)
    said = json.loads((tmp_path / "three_of_4mm" / "a_4mm_sr.json").read_text())["SuperResolution"]
    assert said["Adapted"]["Iterations"] == 1 and said["Adapted"]["Profile"] == 0.8
    run(["inference"], tmp_path, scale=[1, 1, 3], adapt_iterations=0, **options)
    said = json.loads((tmp_path / "three_of_4mm" / "a_4mm_sr.json").read_text())["SuperResolution"]
    assert "Adapted" not in said
    named = tmp_path / "mine" / "mine.pt"
    shutil.copytree(models, named.parent)
    shutil.copy(models / "model.pt", named)
    run(["inference"], tmp_path, dataset_dir=str(tmp_path / "scans" / "b_3mm.nii.gz"), checkpoint=str(named),
        output_dir=str(tmp_path / "named"))  # fmt: skip
    assert nib.load(tmp_path / "named" / "b_3mm_sr.nii.gz").shape[2] == 4 * thick.shape[2], "as it is named"
    for name in ("b_3mm", "c_6mm"):
        broken = nib.load(tmp_path / "scans" / f"{name}.nii.gz")
        runs.save(tmp_path / "scans" / f"{name}.nii.gz", np.full(broken.shape, np.nan), broken.affine)
    with pytest.raises(RuntimeError) as caught:
        run(["inference"], tmp_path, dataset_dir=str(tmp_path / "scans"), output_dir=str(tmp_path / "some"))
    message = str(runs.first_cause(caught.value))
    assert message.startswith("2 of 4 cases failed, the others are done") and "b_3mm" in message and "c_6mm" in message
    assert runs.written(tmp_path / "some") == ["a_4mm_sr.nii.gz", "d_2mm_sr.nii.gz"]


def test_each_stage_learns_not_to_sharpen_one_bright_slice():
    """What is alike across the slices is to come out as interpolation makes it: there a new network has no loss."""
    gains = torch.tensor([1.0, 1.2, 1.0, 0.9])[None, None, None]
    rows = torch.rand(1, 1, 8, 1) * 2 - 1
    batch = {"hr_recoloured": rows.expand(-1, -1, -1, 16), "gains": gains}
    for stage in (1, 2, 3):
        config = {**TINY.network, "stage": stage, "start": "@network_def", "lambda_3": 0.0}
        graph, players = (content(f"{name}_{stage}", **config) for name in ("graph", "players"))
        _, _, names = players["sr_net"].losses.terms["ct"]
        made = graph(batch, names)
        torch.testing.assert_close(made[names[0]], made[names[1]])
        assert (made[names[1]] - batch["hr_recoloured"]).abs().max() > 0.05


@ct_guided
def test_the_recipe_for_scans_of_any_contrast(cohort, tmp_path):
    """MR stands for CT, of which any axis runs across the slices; several profiles thicken it."""
    entries = runs.listed(cohort, TINY)
    subjects = entries["target"]
    data = str(runs.datalist(tmp_path / "data", **{**entries, "source": subjects[:1], "target": subjects[1:]}))
    small = {**TINY.network, "dataset_dir": data, "output_dir": str(tmp_path / "out"), "lr_patch": [16, 4]}
    loader = content("train#dataloader", "weights", **small)
    assert loader.any_axis and loader.gains > 0 and loader.zoom > 1 and not loader.contrasts
    profiles = {d.fwhm for d in content("thickening", "weights", **small).degradations}
    assert min(profiles) == 0.7 and max(profiles) == 1.2
    run(["train", "weights"], tmp_path, **{**small, **SHORT, "val_interval": 1, "batch_size": 2})
    assert read_about(tmp_path / "models" / "model.pt")["settings"]["slice_axis"] == "auto"


def test_slice_profiles():
    """The profile of the slices is an entry of the JSON, exact in the world."""
    box = {"_target_": "common.degradations.BlockAverage", "factors": "@scale"}
    assert isinstance(content("degradation", degradation=box), BlockAverage)
    for override in ({}, {"degradation": box}, {"degradation#fwhm": 1.5}, {"scale": [1, 1, 6]}):
        operator = content("degradation", **override)
        np.testing.assert_allclose(operator.hr_affine(operator.lr_affine(runs.OBLIQUE)), runs.OBLIQUE, atol=1e-6)
        # A ramp across the slices keeps its place in the world.
        ramp = torch.arange(48.0).expand(1, 2, 2, 48)
        lr = operator(ramp)[0, 0, 0]
        places = operator.factors[2] * torch.arange(len(lr)) + operator.offset[2]
        torch.testing.assert_close(lr[2:-2], places[2:-2], atol=1e-3, rtol=0)
