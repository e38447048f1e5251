"""UDEAN: the paper's sizes and losses, and every form of its training."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from common.degradations import KSpaceTruncation
from common.transforms import LoadScand, RandFlipHRd

from . import runs

pytestmark = runs.only("udean")
UDEAN = runs.TINY["udean"]
SHORT = {"max_epochs": 1, "epoch_length": 1}
run, refused, content = (partial(do, "udean") for do in (runs.run, runs.fails, runs.content))


def terms(folder):
    """Names of the loss terms of a run."""
    found = runs.history(folder)[0].keys() - {"epoch", "iteration"}
    return {name for name in found if not name.endswith(("/total", "/learning_rate"))}


def without(names, *parts):
    """Those of the terms whose names have none of these parts."""
    return {name for name in names if not any(part in name for part in parts)}


PAPER = {
    # eq. 4 to 9: image cycle, feature cycle, HR and LR consistency, image and feature adaptation
    *(f"generator/{eq}/{loss}" for eq in ("image_cycle", "hr_consistency", "lr_consistency")
      for loss in ("l1", "ssim", "adversarial")),
    "generator/feature_cycle/l1",
    "generator/image_adaptation/fake", "generator/image_adaptation/real",
    "generator/feature_adaptation/target", "generator/feature_adaptation/source",
    # eq. 11 and 12, and the HR discriminator that eq. 4 and 6 presume
    "discriminator/lr/real", "discriminator/lr/fake",
    "discriminator/feature/source", "discriminator/feature/target",
    "discriminator/hr/real", "discriminator/hr/fake", "discriminator/hr/self",
}  # fmt: skip
ANCHORED = PAPER | {"generator/ours/anchor"}
SUPERVISED = {f"generator/image/{loss}" for loss in ("l1", "ssim", "adversarial")}
SUPERVISED |= {"discriminator/hr/real", "discriminator/hr/fake"}
IN_PLANE = {"scale": [2, 2, 1]}
SHUFFLE = [torch.nn.Conv2d, torch.nn.PixelShuffle]
# Forms that no other test here trains; a discriminator that no generator heeds is left out, as in the tables.
NO_HR = {f"players#discriminator#losses#hr/{kind}": "$None" for kind in ("real", "fake", "self")}
FORMS = {
    "no HR adversary": ([], {"beta": 0, **NO_HR}, without(PAPER, "advers", "/hr/")),
    "paper, supervised": (["paper", "train_supervised"], {}, SUPERVISED),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(cohort, tmp_path, form):
    """Every form trains, with the terms that its equations have and no others."""
    overlays, override, expected = FORMS[form]
    run(["train", *overlays], tmp_path, dataset_dir=str(cohort), max_epochs=1, epoch_length=2, **override)
    assert terms(tmp_path) == expected
    # Without the residual the decoder starts from nothing, with it from cubic interpolation.
    assert runs.history(tmp_path)[-1]["validation/psnr"] > (10 if "paper" in overlays else 25)
    assert (tmp_path / "models" / "model.pt").is_file()


def test_parameter_counts():
    """Table II of the paper: 2.457 M, and 4.765 M with an encoder and decoder that translate LR images first."""

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert [type(each) for each in content("network_def", "train", "paper").decoder.upsampler] == SHUFFLE
    for names in (["train"], ["train", "paper"], ["inference"]):
        assert count(content("network_def", *names)) == 2_457_002
    paper = content(None, "train")
    network, lr_decoder = map(paper.get_parsed_content, ("network_def", "graph#networks#lr_decoder"))
    assert count(network, network.encoder, lr_decoder) == 4_764_561


def test_the_paper_s_method_is_trained_without_an_override(cohort, tmp_path):
    """Eq. 4 to 9 are in the history, and each of the four networks and three discriminators has learned."""
    run(["train"], tmp_path, dataset_dir=str(cohort), max_epochs=1, epoch_length=3)
    assert terms(tmp_path) == PAPER
    state = torch.load(tmp_path / "models" / "training_state.pt", weights_only=True)
    optimizers = [player["optimizer"]["state"].values() for player in state["players"].values()]
    moments = [each["exp_avg"] for parameters in optimizers for each in parameters]
    networks = content("graph#networks", "train", **UDEAN.network)
    assert len(networks) == 7 and len(moments) == sum(len([*network.parameters()]) for network in networks.values())
    assert sum(bool(moment.any()) for moment in moments) > 0.9 * len(moments)


@pytest.mark.parametrize(("table", "count"), [("adaptation", 9), ("I", 5), ("III", 2), ("III, misaligned", 2)])
def test_rows_of_the_tables_are_comparable(table, count):
    """Only what is compared differs; tests/tables compares the networks of other bundles with these."""
    keys = "scale slices features groups blocks reduction residual data_consistency_iterations lr_patch batch_size "
    keys += "learning_rate alpha lambda_1 max_epochs epoch_length misaligned"
    rows = json.loads((runs.ROOT / "bundles/udean/configs/tables.json").read_text())[table]
    found = {}
    for row in rows:
        bundle = Path(row.get("bundle", "udean")).name
        if bundle in ("udean", "udean_window") and "weights" not in row:
            config = runs.content(bundle, None, "train", *row.get("overlays", ()), **row.get("override", {}))
            assert isinstance(config.get_parsed_content("scan_degradation"), KSpaceTruncation)
            found[row["name"]] = {key: config.get_parsed_content(key) for key in keys.split()}
            across_any = "any_axis" in config and config.get_parsed_content("train#inferer#inferer#any_axis")
            assert config.get("axes") == [2] or not across_any, f"{row['name']}: several directions"
    first, *others = found.values()
    assert others == [first] * (count - 1) and first["data_consistency_iterations"] == 0 and first["residual"]
    assert first["misaligned"] == (table in ("I", "III, misaligned"))


def test_refused(cohort, tmp_path):
    """Settings that are none, and LR voxels that are not scale times as large."""
    lr, affine = runs.degrade(runs.phantom(2), runs.AFFINE, KSpaceTruncation((2, 2, 1)))
    scan = {"lr": runs.save(tmp_path / "lr_221.nii.gz", lr, affine)}
    data = str(runs.datalist(tmp_path / "data", **{**runs.listed(cohort, UDEAN), "target": [scan]}))
    sizes = ["lr_221.nii.gz: [2.0, 2.2, 1.2] mm", "[2.0, 2.2, 2.4] mm", "Set scale"]
    misaligned = ["dataset.json", "not of a misaligned cohort"]
    for overlays, override, words in (
        (["train_supervised"], {"misaligned": True}, misaligned),
        ([], {"misaligned": True}, misaligned),
        ([], {"features": 8, "reduction": 16}, ["reduction is 16", "at most the 8 features"]),
        (["anchored"], {"anchor": -0.1}, ["ours/anchor", "the weight is -0.1"]),
        ([], {"dataset_dir": data}, sizes),
    ):
        refused(["train", *overlays], tmp_path / "run", *words, **{"dataset_dir": str(cohort), **override})
    done = runs.command("udean", ["train"], tmp_path / "run", dataset_dir=cohort, noise_levels="[0.02]")
    assert done.returncode == 1 and "--noise_levels: the configs have no such key" in done.stderr


def truncate(volume, factor):
    """K-space truncation by numpy's complex FFT: the central frequencies, of the one at -n/2 its real part."""
    for axis in range(3):
        size = volume.shape[axis]
        n = size // factor
        index = np.fft.fftfreq(n, 1 / n).astype(int) % size
        k_space = np.moveaxis(np.fft.fft(volume, axis=axis), axis, 0)[index]
        if n % 2 == 0:
            k_space[n // 2] = k_space[n // 2].real
        volume = np.moveaxis(np.fft.ifft(k_space, axis=0).real / factor, 0, axis)
    return volume


def test_evaluate(cohort, trained, tmp_path):
    """The table's cubic row is what numpy gets, and pictures, table and super-resolved scan are there."""
    folder, case = shutil.copytree(trained, tmp_path / "run"), UDEAN.case(5)
    others = {"again": str(folder / "models" / "model.pt")}
    run(
        ["train", "evaluate"],
        folder,
        pictures=True,
        dataset_dir=str(cohort),
        with_shipped=True,
        **{"evaluate#report#compare_with": others},
    )
    assert all(imread(folder / "out" / f"{name}.png").std() > 0.01 for name in (case, "boxplots"))

    def degrade(hr):
        return truncate(hr, 2), np.meshgrid(*[np.arange(n) / 2 for n in hr.shape], indexing="ij")

    assert runs.check_evaluation(folder, cohort / f"{case}.nii.gz", degrade, "UDEAN").shape == (40, 36, 44)
    rows = runs.table(folder)
    assert rows.keys() == {(method, case) for method in ("cubic", "udean_window, shipped", "UDEAN", "again")}
    assert float(rows["udean_window, shipped", case]["psnr"]) > 0
    assert {**rows["again", case], "method": "UDEAN"} == rows["UDEAN", case]


@pytest.mark.parametrize(
    ("overlay", "expected"), [("paper", PAPER), ("anchored", ANCHORED), ("train_supervised", SUPERVISED)]
)
def test_evaluate_forms(cohort, tmp_path, overlay, expected):
    """Evaluate.json over another form: its network in the table, and feature maps where LR style is learned."""
    names, out, adapted = ["train", overlay], tmp_path / "out", overlay != "train_supervised"
    method = "UDEAN" if adapted else "supervised"
    data = {"dataset_dir": str(cohort), "lr_patch": 16, "widths": [8] * 4}  # of which features are drawn, too
    run(names, tmp_path, slice_axis="AP", **data, **SHORT, **IN_PLANE)
    assert terms(tmp_path) == expected
    assert runs.history(tmp_path)[-1]["validation/psnr"] > (10 if overlay == "paper" else 25)
    names += ["evaluate", "evaluate_features"] if adapted else ["evaluate"]
    run(names, tmp_path, pictures=overlay == "paper", **data)
    # What is evaluated is in plane across AP, as was trained: subject 5 has 41 voxels along LR, of which 40 are used.
    assert nib.load(out / "sub-5_t1w_sr.nii.gz").shape == (40, 36, 44)
    summary = json.loads((out / "table.json").read_text())["summary"]
    assert summary.keys() == {"cubic", method} and summary[method]["psnr"]["mean"] > 10
    assert (out / "features.png").is_file() == adapted
    if overlay == "paper":
        # A panel for the training with adaptation, and one for that without, where it is given.
        alone, before = imread(out / "tsne.png"), tmp_path / "before.pt"
        shutil.copy(tmp_path / "models" / "training_state.pt", before)
        run(names, tmp_path, pictures=True, before=str(before), **data)
        assert imread(out / "tsne.png").shape[1] == 2 * alone.shape[1]
        refused(names, tmp_path, "model.pt", before=str(tmp_path / "models" / "model.pt"), **data)
        # Inference knows the form by its weights' overlay: it would make no sense on top of cubic interpolation.
        lr = runs.degrade(runs.phantom(0), runs.AFFINE, KSpaceTruncation((2, 1, 2)))
        scan = {"dataset_dir": str(runs.save(tmp_path / "scans" / "a.nii.gz", *lr))}
        run(["inference"], tmp_path, output_dir=str(tmp_path / "sr"), **scan, amp=False)
        # AP, which is not upsampled, is across the slab.
        assert nib.load(tmp_path / "sr" / "a_sr.nii.gz").shape == (40, 44, 36)
        check_result_of_maximum(tmp_path)
        words = "model.pt: residual is True, but these weights were trained with False"
        refused(["inference"], tmp_path, words, residual=True, **scan)


def check_result_of_maximum(folder):
    """A result is the network's of the scan over its maximum, times that maximum, in the units of the file."""
    overlay = json.loads((folder / "models" / "model.json").read_text())
    assert (overlay["scaled_by"], overlay["centred"], overlay["residual"]) == ("maximum", False, False)
    sizes = {key: overlay[key] for key in ("scale", "features", "groups", "blocks", "reduction")}
    config = content(None, "train", "paper", **sizes)
    network, inferer = (config.get_parsed_content(key) for key in ("network_def", "validate#inferer"))
    network.load_state_dict(torch.load(overlay["checkpoint"], weights_only=True))
    scan, found = (
        LoadScand("image", "AP", normalise=False)({"image": str(path)})["image"].as_tensor()
        for path in (folder / "scans" / "a.nii.gz", folder / "sr" / "a_sr.nii.gz")
    )
    with torch.no_grad():
        expected = inferer((scan / scan.max())[None], network.eval())[0] * scan.max()
    assert scan.max() > 1.01 * np.quantile(scan, 0.999)
    torch.testing.assert_close(found, expected.clamp_min(scan.min()), rtol=0, atol=1e-4 * scan.max().item())


@pytest.mark.parametrize("form", ["paper", None])
def test_patches_of_the_paper_are_uniform_unmirrored_and_scaled_by_the_maximum(cohort, form):
    for overlays in ([], ["train_supervised"]):
        names = ["train", *([form] if form else []), *overlays]
        config = content(None, *names, **UDEAN.network, dataset_dir=str(cohort), lr_patch=16, device="cpu")
        volumes = [item["hr"].max().item() for item in config.get_parsed_content("train#dataset").volumes]
        loader = config.get_parsed_content("train#dataloader")()
        assert (max(volumes) == min(volumes) == 1) == bool(form)
        assert np.isfinite(loader.air) != bool(form)
        transforms = config.get_parsed_content("train#preprocessing").transforms
        flips = [each.prob for each in transforms if isinstance(each, RandFlipHRd)]
        assert loader.mirror != bool(form) if not overlays else flips == [0 if form else 0.5] * 3


def test_misaligned_and_registered(cohort, tmp_path):
    """Source and target of the same subjects, HR moved; table I's supervised rows on them, and one registered first."""
    pairs = [{"hr": cohort / f"sub-{i}_t1w.nii.gz"} for i in (0, 2)]
    entries = {**runs.listed(cohort, UDEAN), "source": pairs, "target": pairs}
    short = {"dataset_dir": str(runs.datalist(tmp_path / "data", misaligned=True, **entries)), **SHORT}
    for name in ("unsupervised", "again"):
        run(["train"], tmp_path / name, **short, **{"misaligned": True})
    assert terms(tmp_path / "unsupervised") == PAPER
    assert runs.history(tmp_path / "again") == runs.history(tmp_path / "unsupervised")  # or no run could be resumed
    l1 = []
    for moved, registered in ((False, False), (True, True), (True, False)):
        folder = tmp_path / f"{moved}_{registered}"
        options = {"misaligned": moved, "registered": registered}
        run(["train", "train_supervised"], folder, **short, **options)
        assert terms(folder) == SUPERVISED and runs.history(folder)[-1]["validation/psnr"] > 25
        l1.append(runs.history(folder)[0]["generator/image/l1"])
    assert l1[0] < l1[1] < l1[2]
