"""CT guidance: three stages, real thick slices, CT as scanners give it, and what must be refused."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
import torch

from common.degradations import GaussianProfile
from common.program.commands.export import LARGE
from common.program.datalist.assignment import write_datalist
from common.weights.loading import compute_digest, read_overlay

from . import runs

pytestmark = runs.only("ct_guided")
TINY = runs.TINY["ct_guided"]
SHORT = {"max_epochs": 1, "epoch_length": 1, "stages#2#epoch_length": 1}
STAGE_1 = {"only_stages": 1}
HOUNSFIELD = {"ct_offset": "auto", "window": [-150, 250]}
THICK = GaussianProfile((1, 1, 4))
run = partial(runs.run, "ct_guided")


def content(key, *overlays, **override):
    """What an entry of train.json, with overlays, is built to."""
    return runs.content("ct_guided", key, "train", *overlays, **override)


def refused(folder, pattern, names=("train",), **override):
    """Check that a run fails, leaves nothing, and says what the pattern holds."""
    message = runs.fails("ct_guided", names, folder, **override)
    assert re.search(pattern, message), message


def failed(folder, scans, out):
    """The message of an inference of several scans of which some fail."""
    with pytest.raises(RuntimeError) as caught:
        run(runs.CASES, folder, dataset_dir=str(scans), output_dir=str(out))
    return str(runs.first_cause(caught.value))


def weights(folder, stage):
    """A stage's weights."""
    return torch.load(folder / "models" / f"stage_{stage}.pt", weights_only=True)


def make_vgg(path):
    """Write a file as torchvision publishes VGG-16's, to the layer that is used, with random weights."""
    state, widths = {}, [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512]
    for i, sizes in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21), pairwise(widths), strict=True):
        state[f"features.{i}.weight"] = torch.randn(*sizes[::-1], 3, 3) * (2 / (9 * sizes[0])) ** 0.5
        state[f"features.{i}.bias"] = torch.zeros(sizes[1])
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """CT in Hounsfield units on one grid and thick-slice MR on another, sagittal, with no HR MR anywhere."""
    folder = tmp_path_factory.mktemp("clinic")
    ct = np.diag([0.8, 0.8, 0.8, 1.0])
    runs.save(folder / "ct" / "sub-a_ct.nii.gz", runs.head_ct(0), ct, np.int16)
    runs.save(folder / "ct" / "sub-b_ct.nii.gz", runs.head_ct(1) + 1024, ct, np.uint16, axes="LPS")
    for subject in "cd":
        # Slices lie across the axis from left to right, the last of the world's first.
        lr, affine = runs.degrade(runs.phantom(ord(subject), (40, 44, 36)), np.diag([1.0, 1.1, 1.0, 1.0]), THICK)
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
        assert tuple(small(torch.rand(1, 1, 6, 7)).shape) == (1, 1, 6, 7 * scale)
    for scale in range(2, 7):
        p, w = content("lr_patch", scale=[1, 1, scale])
        assert min(p, scale * w) >= 64 and not scale * w % 4
    small = {"features": 32, "growth": 32, "blocks": 4, "layers": 4}
    same, own = (
        runs.content("ct_guided", "network_def", name, **small).state_dict() for name in ("inference", "train")
    )
    assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in own.items()}


def test_in_the_paper_s_form_one_player_trains_all():
    weighed = {"perceptual": {"_target_": "unittest.mock.MagicMock", "has_weights": True}}
    players, paper = (content("stages#2#players", *names, **weighed) for names in ((), ("paper",)))
    assert paper["sr_net"] is None and "sr_net" in paper["translation"].networks
    terms = [{*found["translation"].losses.terms} for found in (players, paper)]
    assert terms[1] == {*terms[0], "adversarial/mr"}


def test_in_the_paper_s_form_one_rate_falls_through_all_stages():
    """It is divided by 5 every 2 epochs of T iterations; stages 1 and 2 are one such epoch each, stage 3 is eight."""
    rates, small = [], {**TINY.network, "lambda_3": 0}
    for stage, name in enumerate(("sr_net", "sr_net", "translation")):
        player = content(f"stages#{stage}#players", "paper", **small)[name]
        optimizer = player._optimizer([torch.nn.Parameter(torch.zeros(1))])
        scheduler = player._scheduler and player._scheduler(optimizer)
        for _ in range(8):
            rates.append(optimizer.param_groups[0]["lr"])
            if scheduler:
                optimizer.step()
                scheduler.step()
    expected = [1e-4] * 16 + [2e-5, 2e-5, 4e-6, 4e-6, 8e-7, 8e-7, 1.6e-7, 1.6e-7]
    assert rates == pytest.approx(expected)


def test_rows_of_the_tables(cohort, trained, tmp_path):
    """Stages, the supervised network, the paper's form and planes are evaluated and differ; HR MR is only scored."""
    data, case = {"dataset_dir": str(cohort)}, TINY.case(5)
    models = {f"stage {k}": str(trained / "models" / f"stage_{k}.pt") for k in (1, 2)}
    rows, volumes = [], []
    for name, override in (
        ("both", {"evaluate#report#compare_with": models}),
        ("first", {"train#inferer#planes": [0]}),
        ("second", {"train#inferer#planes": [1]}),
    ):
        shutil.copytree(trained / "models", tmp_path / name / "models")
        run(["train", "evaluate"], tmp_path / name, **data, **override)
        rows.append(runs.table(tmp_path / name))
        volumes.append(nib.load(tmp_path / name / "out" / f"{case}_sr.nii.gz").get_fdata())
    assert {method for method, _ in rows[0]} == {"cubic", *models, "CT-guided"}
    assert len({row["psnr"] for row in rows[0].values()}) == 4
    assert len({row["CT-guided", case]["psnr"] for row in rows}) == 3
    both, first, second = volumes
    inside = both > 20  # what lies below the input's smallest is cut off
    np.testing.assert_allclose(both[inside], ((first + second) / 2)[inside], atol=1.01)
    lpips = {"evaluate#report#metrics": {"lpips": {"_target_": "common.metrics.Lpips", "weights": True}}}
    refused(tmp_path / "both", "lpips.*torchvision", ["train", "evaluate"], **lpips, **data)

    without = runs.datalist(tmp_path / "without", **{**runs.listed(cohort, TINY), "validation": []})
    run(["train"], tmp_path / "again", dataset_dir=str(without))
    for k in (1, 2, 3):
        assert runs.same(weights(trained, k), weights(tmp_path / "again", k)), f"HR MR had a part in stage {k}"

    needs = "VGG-16, found none.*--vgg_weights FILE.*--lambda_3 0"
    refused(tmp_path / "paper", needs, ["train", "paper"], **data, lambda_3=1.0)
    for names in (["train_supervised"], ["paper", "train_supervised"], ["paper"]):
        eq_4 = {"lambda_3": 1.0, "vgg_weights": str(make_vgg(tmp_path / "vgg.pth"))} if names == ["paper"] else {}
        run(["train", *names], tmp_path / names[0] / names[-1], **data, **SHORT, **eq_4)
    assert not list(tmp_path.glob("*/train_supervised/models/stage_2.pt"))
    (line,) = [line for line in runs.history(tmp_path / "paper" / "paper", "_3") if "translation/total" in line]
    assert line["translation/perceptual/ct_fake"] > 0 and line["translation/perceptual/mr_fake"] > 0
    run(["train", "paper", "evaluate"], tmp_path / "paper" / "paper", **data)
    once = runs.table(tmp_path / "paper" / "paper")["CT-guided, the paper's form", case]
    run(["train", "paper", "evaluate"], tmp_path / "paper" / "paper", **{"train#inferer#planes": [0]}, **data)
    assert once["psnr"] == runs.table(tmp_path / "paper" / "paper")["CT-guided, the paper's form", case]["psnr"]


def test_the_supervised_network_does_not_see_the_fold_either(cohort):
    """It learns from HR MR, and not from CT."""
    override = {"dataset_dir": str(cohort), "datalist#folds": 3, "fold": 1, **TINY.network, **TINY.training}
    parser = content(None, "train_supervised", **override)
    taught_by, target = (
        [entry["subject"] for entry in parser.get_parsed_content(f"train#{name}").data]
        for name in ("source", "dataset")
    )
    assert taught_by == target and len(target) == 2


def test_clinical_scans(clinic, tmp_path):
    """HU and offset CT with thick-slice MR whose slices are sagittal, none with known HR: all is found and used."""
    small = {**TINY.training, **HOUNSFIELD, **SHORT, "slice_axis": "auto", "dataset_dir": str(clinic)}
    options = {**TINY.network, **small, "output_dir": str(tmp_path / "out")}
    with pytest.warns(UserWarning, match="sub-b_ct.*1024"):
        source = content("train#source", **options)
        assert len(source.volumes) == len(source)
    for item, affines in zip(source.volumes, source.affines, strict=True):
        np.testing.assert_allclose(np.linalg.norm(affines["hr"][:3, :3], axis=0), [1.0, 1.1, 1.0], atol=1e-6)
        soft = item["hr"][(item["hr"] > 0.3) & (item["hr"] < 0.7)]
        assert abs(soft.median().item() - (30 + 150) / 400) < 0.03 and item["hr"].max() > 0.9
    with pytest.warns(UserWarning, match="sub-b_ct"):
        run(["train"], tmp_path, **small)
    scan = clinic / "mr" / "sub-c_t1w.nii.gz"
    run(["inference"], tmp_path, dataset_dir=str(scan), output_dir=str(tmp_path / "sr"))
    lr, sr = nib.load(scan), nib.load(tmp_path / "sr" / "sub-c_t1w_sr.nii.gz")
    assert sr.shape == (4 * lr.shape[0], *lr.shape[1:]) and sr.get_data_dtype() == np.int16
    assert np.abs(runs.centre_of_mass(sr) - runs.centre_of_mass(lr)).max() < 0.1
    refused(tmp_path, "group 'test' has no volumes", ["train", "evaluate"], dataset_dir=str(clinic))


def test_what_is_no_thick_mr_or_no_ct(cohort, trained, tmp_path, clinic):
    """MR given as CT and CT as MR, isotropic MR, a contradicting scale, and weights that are missing."""
    entries, isotropic = runs.listed(cohort, TINY), np.diag([1.0, 1.0, 1.2, 1.0])
    mr, ct = entries["target"][0]["hr"], clinic / "ct" / "sub-a_ct.nii.gz"
    lr = runs.save(tmp_path / "lr" / "sub-x_t1w.nii.gz", runs.phantom(10), isotropic)
    mr_as_ct, ct_as_mr, no_slices = (
        {"dataset_dir": str(runs.datalist(tmp_path / name, **{**entries, **group}))}
        for name, group in (
            ("mr_as_ct", {"source": [{"ct": mr}]}),
            ("ct_as_mr", {"target": [{"hr": ct}]}),
            ("no_slices", {"target": [{"lr": lr}]}),
        )
    )
    for override, pattern in (
        ({**mr_as_ct, **HOUNSFIELD}, rf"{mr.name}.*CT.*--ct_offset"),
        (ct_as_mr, rf"{ct.name}.*CT.*check_mr False"),
        (no_slices, rf"{lr.name}.*thick"),
        ({"vgg_weights": "none.pth"}, "VGG-16, found none.pth.*--vgg_weights FILE"),
        ({"scale": [1, 1, 7]}, "scale makes 7 slices from one, expected a whole number from 2 to 6"),
        ({"lr_patch": [24, 3], "scale": [1, 1, 5]}, "24x15 pixels.*multiples of 4"),
        ({"graph#networks#attributes_mr#downsamplings": 5}, "at least 32"),
    ):
        refused(tmp_path / "run", pattern, **{"dataset_dir": str(cohort), **override})
    for name, override in (
        ("mr_insisted", mr_as_ct),  # TINY gives an offset
        ("ct_insisted", {**ct_as_mr, "check_mr": False}),
    ):
        run(["train"], tmp_path / name, **{**STAGE_1, **override, **SHORT})

    scans = tmp_path / "scans"
    TINY.save_lr(scans, "good", runs.phantom(0))
    thick, affine = runs.degrade(runs.phantom(0), np.eye(4), THICK)
    thick_ct = THICK(torch.from_numpy(runs.head_ct(0, (60, 66, 52)))).numpy()
    runs.save(scans / "thick_hu.nii.gz", thick_ct, affine)
    runs.save(scans / "isotropic.nii.gz", runs.phantom(0), isotropic)
    two = runs.save(scans / "two.nii.gz", thick, affine @ np.diag([1, 1, 0.5, 1]))
    message = failed(trained, scans, tmp_path / "sr")
    for name, pattern in (
        ("thick_hu", "CT.*check_mr False"),
        ("isotropic", "(thick|show which axis)"),
        ("two", "scale 4.*scale 1x1x2, model_2.pt"),
    ):
        assert re.search(rf"{name}.nii.gz: .*{pattern}", message), message
    assert runs.written(tmp_path / "sr") == [f"{TINY.case('good')}_sr.nii.gz"]
    pattern = r"scale is \[1, 1, 2\], .* trained with \[1, 1, 4\]"
    refused(trained, pattern, ["inference"], dataset_dir=str(two), scale=[1, 1, 2])


def test_fine_tuning(trained, tmp_path):
    """At the profile that is given, or that the scan shows; and exported weights go without."""
    thick, affine = runs.degrade(runs.phantom(0), np.eye(4), THICK)
    scan = runs.save(tmp_path / "scan.nii.gz", thick, affine)
    for override, adapted in (
        ({"adapt_iterations": 1}, {"Iterations": 1, "Profile": 1, "ProfileFrom": "assumed"}),  # of a few slices
        ({"adapt_iterations": 1, "adapt_profile": 0.8}, {"Iterations": 1, "Profile": 0.8}),
        ({"adapt_iterations": 0}, {}),
    ):
        run(runs.CASES, trained, dataset_dir=str(scan), output_dir=str(tmp_path), **override)
        said = json.loads((tmp_path / "scan_sr.json").read_text())["SuperResolution"]
        assert said["Scale"] == [1, 1, 4] and adapted.items() <= said.get("Adapted", {}).items()
        assert ("Adapted" in said) == bool(adapted)


def test_each_stage_learns_not_to_sharpen_one_bright_slice():
    """What is alike across the slices comes out as interpolation makes it: a new network has no loss there."""
    gains = torch.tensor([1.0, 1.2, 1.0, 0.9])[None, None, None]
    rows = torch.rand(1, 1, 8, 1) * 2 - 1
    batch = {"hr_recoloured": rows.expand(-1, -1, -1, 16), "gains": gains}
    for stage in range(3):
        graph, players = (content(key, **TINY.network) for key in ("graph", f"stages#{stage}#players"))
        _, _, names = players["sr_net"].losses.terms["ct"]
        made = graph(batch, names)
        torch.testing.assert_close(made[names[0]], made[names[1]])
        assert (made[names[1]] - batch["hr_recoloured"]).abs().max() > 0.05


def test_the_large_network_fits_into_a_file_that_can_be_exported():
    network = content("network_def", "release", "large", scale=[1, 1, 6])
    assert 2_000_000 < sum(p.numel() for p in network.parameters()) < LARGE / 4  # of 4 bytes


def test_the_recipe_for_scans_of_any_contrast(cohort, tmp_path):
    """MR stands for CT, of which any axis runs across the slices; several profiles thicken it."""
    entries = runs.listed(cohort, TINY)
    subjects = entries["target"]
    data = str(runs.datalist(tmp_path / "data", **{**entries, "source": subjects[:1], "target": subjects[1:]}))
    small = {**TINY.network, "dataset_dir": data, "output_dir": str(tmp_path / "out"), "lr_patch": [16, 4]}
    loader = content("train#dataloader", "release", **small)()
    assert len(loader.orders["hr"]) == 6 and loader.gains > 0 and loader.zoom > 1 and not loader.contrasts
    profiles = {d.fwhm for d in content("thickening", "release", **small).degradations}
    assert min(profiles) == 0.67 and max(profiles) == 1.2
    start = content("network_def", "release", **small).state_dict()
    torch.save(start, tmp_path / "start.pt")
    short = {**SHORT, "val_interval": 1, "batch_size": 2, "initial": str(tmp_path / "start.pt")}
    run(["train", "release"], tmp_path, **{**small, **short})
    known = read_overlay(tmp_path / "models" / "model.pt")
    assert known["slice_axis"] == "auto" and known["trained"]["averaged_with"] == compute_digest(start)
    trained, mean = (torch.load(tmp_path / "models" / f"{name}.pt", weights_only=True) for name in ("stage_1", "model"))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (start[name] + trained[name]) / 2)
