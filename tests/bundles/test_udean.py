"""UDEAN: the paper's sizes and losses, every form of its training, and runs that are killed or shared."""

from __future__ import annotations

import json
import shutil
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from common.degradations import KSpaceTruncation

from . import runs

pytestmark = runs.only("udean")
UDEAN = runs.TINY["udean"]
SHORT = {"max_epochs": 1, "epoch_length": 1}
run, refused, content = (partial(do, "udean") for do in (runs.run, runs.fails, runs.content))


def terms(folder):
    """Names of the loss terms of a run."""
    found = runs.history(folder)[0].keys() - {"epoch", "iteration"}
    return {name for name in found if not name.endswith("/total")}


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
DEGRADATION = {f"degradation/{name}" for name in ("image_adaptation/fake", "image_adaptation/real")}
DEGRADATION |= {"degradation/ours/anchor"}
# Image cycle and image adaptation, of the form that the weights have.
WINDOW = {f"generator/image_cycle/{loss}" for loss in ("l1", "ssim")} | DEGRADATION
WINDOW |= {"discriminator/lr/real", "discriminator/lr/fake"}
DETAIL = WINDOW | {"detail/detail/adaptation", "detail/detail/l1"}
DETAIL |= {"discriminator/detail/real", "discriminator/detail/fake"}
FEATURES = {name for name in PAPER if "/feature" in name} - {"generator/feature_cycle/l1"}
FEATURES |= {"generator/hr_consistency/l1", "generator/hr_consistency/ssim"}
SUPERVISED = {"generator/image/l1", "generator/image/ssim"}
ADVERSARIAL = SUPERVISED | {"generator/image/adversarial", "discriminator/hr/real", "discriminator/hr/fake"}
IN_PLANE = {"scale": [2, 2, 1]}
# What a discriminator learns of that no generator heeds, as the rows of the tables leave it out.
NO_FEATURES = {f"players#discriminator#losses#feature/{side}": "$None" for side in ("source", "target")}
NO_HR = {f"players#discriminator#losses#hr/{kind}": "$None" for kind in ("real", "fake", "self")}
# Forms that no other test here trains.
FORMS = {
    "detail and drawn noise, 2x2x1": (["window", "drawn_noise", "detail"], IN_PLANE, DETAIL),
    "window and eq. 9": (["window", "feature_adaptation"], {}, WINDOW | FEATURES),
    "window, beyond the band": (["window", "beyond_band"], {}, WINDOW | {"generator/image_cycle/beyond"}),
    "window, 2x2x1": (["window"], IN_PLANE, WINDOW),
    "2x2x1": ([], IN_PLANE, PAPER),
    "image space only": ([], {"lambda_6": 0, **NO_FEATURES}, without(PAPER, "feature_adapt", "discriminator/feature")),
    "feature space only": ([], {"lambda_5": 0}, without(PAPER, "image_adapt")),
    "no HR adversary": ([], {"beta": 0, **NO_HR}, without(PAPER, "advers", "/hr/")),
    "anchored": (["anchored"], {}, ANCHORED),
    "beyond the band": (["beyond_band"], {}, PAPER | {"generator/image_cycle/beyond"}),
    "window, supervised": (["window", "train_supervised"], {}, SUPERVISED),
    "paper, supervised": (["paper", "train_supervised"], {}, ADVERSARIAL),
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
    learned = tmp_path / "out" / "degradation.json"
    assert learned.is_file() == any(term.startswith("degradation/") for term in expected)
    if learned.is_file():
        about = json.loads(learned.read_text())
        # Of the target's scans, which have none, whatever is drawn for the network.
        assert len(about["axes"]) == 3 and max(about["noise"]) < 0.01
        assert [axis["window"][-1] == 1 for axis in about["axes"]] == [False, False, "2x2x1" in form]
        assert imread(learned.with_suffix(".png")).std() > 0.01


def test_parameter_counts():
    """Table II of the paper: 2.457 M, and 4.765 M with an encoder and decoder that translate LR images first."""

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    for names, expected in (
        (["train"], 2_457_002),
        (["train", "paper"], 2_457_002),
        (["train", "window"], 2_457_002 + 3 * 64),  # a vector of 64 numbers for each axis that may lie across a slab
        (["inference"], 672_081),  # of the shipped weights, which know no axes
        (["train", "window", "compact"], 672_081 + 3 * 48),
    ):
        assert count(content("network_def", *names)) == expected
    assert content("turns", "train", "window", **IN_PLANE) == 1
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


@pytest.mark.parametrize(
    ("table", "count"), [("trial", 14), ("I", 5), ("I_unpaired", 4), ("III", 2), ("III, misaligned", 2)]
)
def test_rows_of_the_tables_are_comparable(table, count):
    """Only what is compared differs; tests/tables compares the networks of other bundles with these."""
    keys = "scale slices features groups blocks reduction residual projections lr_patch batch_size learning_rate alpha "
    keys += "lambda_1 max_epochs epoch_length data#misaligned"
    rows = json.loads((runs.ROOT / "bundles/udean/configs/tables.json").read_text())[table]
    found = {}
    for row in rows:
        if "bundle" not in row and "weights" not in row:
            config = content(None, "train", *row.get("overlays", ()), **row.get("override", {}))
            assert isinstance(config.get_parsed_content("scan_degradation"), KSpaceTruncation)
            found[row["name"]] = {key: config.get_parsed_content(key) for key in keys.split() if config.get(key)}
            across_any = config.get_parsed_content("train#inferer#inferer#any_axis")
            assert config.get("axes") == [2] or not across_any, f"{row['name']}: several directions"
    bare = ["supervised, no residual", "the paper to the letter"] if table == "trial" else []
    assert [name for name, values in found.items() if not values.pop("residual", False)] == bare
    first, *others = found.values()
    assert others == [first] * (count - 1) and "projections" not in first
    assert ("data#misaligned" in first) == (table in ("I", "III, misaligned"))


def test_refused(cohort, tmp_path):
    """Forms that do not go together, settings that are none, and LR voxels that are not scale times as large."""
    lr, affine = runs.degrade(runs.phantom(2), runs.AFFINE, KSpaceTruncation((2, 2, 1)))
    scan = {"lr": runs.save(tmp_path / "lr_221.nii.gz", lr, affine)}
    data = str(runs.datalist(tmp_path / "data", **{**runs.listed(cohort, UDEAN), "target": [scan]}))
    sizes = ["lr_221.nii.gz: [2.0, 2.2, 1.2] mm", "[2.0, 2.2, 2.4] mm", "Set scale"]
    misaligned = ["dataset.json", "not of a misaligned cohort"]
    before = "name window.json before it"
    for overlays, override, words in (
        (["drawn_noise"], {}, ["drawn_noise.json", before]),
        (["window", "train_supervised", "drawn_noise"], {}, ["drawn_noise.json", "train_supervised.json"]),
        (["detail"], {}, ["detail.json", before]),
        (["feature_adaptation"], {}, ["feature_adaptation.json", before]),
        (["feature_adaptation", "window"], {}, ["feature_adaptation.json", before]),
        (["detail", "window"], {}, ["detail.json", before]),
        (["train_supervised", "window"], {}, ["train_supervised.json", "name it after window.json"]),
        (["window", "train_supervised"], {"training_noise": "[0.02]"}, ["train_supervised.json", "--training_noise"]),
        (["window", "anchored"], {}, ["anchored.json", "window.json has an anchor"]),
        (["window", "detail", "feature_adaptation"], {}, ["'generator' and 'detail' both train", "hr_encoder"]),
        (["train_supervised"], {"data#misaligned": True}, misaligned),
        ([], {"data#misaligned": True}, misaligned),
        (["window"], {"training_noise": "[]"}, ["training_noise", "'[]'", "a list"]),
        (["window"], {"noise_levels": 0.02}, ["noise_levels", "0.02", "a list"]),
        ([], {"features": 8, "reduction": 16}, ["reduction is 16", "at most the 8 features"]),
        (["window"], {"any_axis": True, "fourier_encoded": ["true", "true", "false"]}, ["not encoded alike"]),
        (["window"], {"ours#anchor": -0.1}, ["ours/anchor", "the weight is -0.1"]),
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
    run(["train", "evaluate"], folder, dataset_dir=str(cohort), **{"evaluate#evaluator#compare_with": others})

    def degrade(hr):
        return truncate(hr, 2), np.meshgrid(*[np.arange(n) / 2 for n in hr.shape], indexing="ij")

    assert runs.check_evaluation(folder, cohort / f"{case}.nii.gz", degrade, "UDEAN").shape == (40, 36, 44)
    rows = runs.table(folder)
    assert rows.keys() == {(method, case) for method in ("cubic", "UDEAN", "again")}
    assert {**rows["again", case], "method": "UDEAN"} == rows["UDEAN", case]


@pytest.mark.parametrize(
    ("overlay", "expected"), [("paper", PAPER), ("anchored", ANCHORED), ("train_supervised", ADVERSARIAL)]
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
    run(names, tmp_path, **data)
    # What is evaluated is in plane across AP, as was trained: subject 5 has 41 voxels along LR, of which 40 are used.
    assert nib.load(out / "sub-5_t1w_sr.nii.gz").shape == (40, 36, 44)
    summary = json.loads((out / "table.json").read_text())["summary"]
    assert summary.keys() == {"cubic", method} and summary[method]["psnr"]["mean"] > 10
    assert (out / "features.png").is_file() == adapted
    if overlay == "paper":
        # A panel for the training with adaptation, and one for that without, where it is given.
        alone, before = imread(out / "tsne.png"), tmp_path / "before.pt"
        shutil.copy(tmp_path / "models" / "training_state.pt", before)
        run(names, tmp_path, before=str(before), **data)
        assert imread(out / "tsne.png").shape[1] == 2 * alone.shape[1]
        refused(names, tmp_path, "model.pt", "not the state", before=str(tmp_path / "models" / "model.pt"), **data)
        # Inference knows the form by its weights' overlay: it would make no sense on top of cubic interpolation.
        lr = runs.degrade(runs.phantom(0), runs.AFFINE, KSpaceTruncation((2, 1, 2)))
        scan = {"dataset_dir": str(runs.save(tmp_path / "scans" / "a.nii.gz", *lr))}
        run(["inference"], tmp_path, output_dir=str(tmp_path / "sr"), **scan)
        # AP, which is not upsampled, is across the slab.
        assert nib.load(tmp_path / "sr" / "a_sr.nii.gz").shape == (40, 44, 36)
        words = "model.pt: residual is True, but these weights were trained with False"
        refused(["inference"], tmp_path, words, residual=True, **scan)


def test_running_mean(cohort, tmp_path):
    """What is validated and kept is the mean of the weights, of a run that was continued too."""
    options = {"dataset_dir": str(cohort), "epoch_length": 2, "momentum": 0.25, "save_minutes": 0}
    # A cosine would end sooner in the shorter run.
    options["cosine"] = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "_mode_": "callable", "factor": 1.0}
    names, whole, parts = ["train", "window", "running_mean"], tmp_path / "whole", tmp_path / "parts"

    def weights(folder):
        kept, state = (torch.load(folder / "models" / f, weights_only=True) for f in ("model.pt", "training_state.pt"))
        mean = {key.split(".mean.")[1]: value for key, value in state["graph"].items() if ".mean." in key}
        now = {key: state["graph"][f"networks.{'lr' if key[0] == 'e' else 'sr'}_{key}"] for key in mean}
        return kept, mean, now

    seldom = {"max_epochs": 2, "val_interval": 2}
    run(names, whole, **seldom, **options)
    assert terms(whole) == WINDOW and (whole / "out" / "degradation.json").is_file()
    kept, mean, now = weights(whole)
    assert mean and runs.same({key: kept[key] for key in mean}, mean)
    assert not any(torch.equal(now[key], value) for key, value in mean.items() if ".base." not in key)
    run(names, parts, max_epochs=1, **options)
    run(names, parts, resume=True, **seldom, **options)
    assert runs.same(weights(parts)[1], mean)


def test_a_loss_row_is_dropped_by_a_word_of_the_command_line(cohort, tmp_path):
    """The term is not trained, and all others are."""
    row = {"players#generator#losses#image_cycle/ssim": "$None"}
    done = runs.command("udean", ["train"], tmp_path, dataset_dir=cohort, **SHORT, **row)
    assert done.returncode == 0, done.stderr
    assert terms(tmp_path) == PAPER - {"generator/image_cycle/ssim"}


def test_misaligned_and_registered(cohort, tmp_path):
    """Source and target of the same subjects, HR moved; table I's supervised rows on them, and one registered first."""
    pairs = [{"hr": cohort / f"sub-{i}_t1w.nii.gz"} for i in (0, 2)]
    entries = {**runs.listed(cohort, UDEAN), "source": pairs, "target": pairs}
    short = {"dataset_dir": str(runs.datalist(tmp_path / "data", misaligned=True, **entries)), **SHORT}
    for name in ("unsupervised", "again"):
        run(["train"], tmp_path / name, **short, **{"data#misaligned": True})
    assert terms(tmp_path / "unsupervised") == PAPER
    assert runs.history(tmp_path / "again") == runs.history(tmp_path / "unsupervised")  # or no run could be resumed
    l1 = []
    for moved, registered in ((False, False), (True, True), (True, False)):
        folder = tmp_path / f"{moved}_{registered}"
        options = {"data#misaligned": moved, "data#registered": registered}
        run(["train", "train_supervised"], folder, **short, **options)
        assert terms(folder) == ADVERSARIAL and runs.history(folder)[-1]["validation/psnr"] > 25
        l1.append(runs.history(folder)[0]["generator/image/l1"])
    assert l1[0] < l1[1] < l1[2]


def test_authentic_lr(cohort, tmp_path):
    """Target scans that are LR already, and validation and test pairs of HR and LR."""
    entries = runs.listed(cohort, UDEAN)
    for entry in (entry for group in ("target", "validation", "test") for entry in entries[group]):
        image = nib.as_closest_canonical(nib.load(entry["hr"]))
        volume = image.get_fdata()[tuple(slice(n // 2 * 2) for n in image.shape)]
        lr = runs.degrade(volume, image.affine, UDEAN.degradation)
        entry["lr"] = runs.save(tmp_path / "lr" / entry["hr"].name.replace("t1w", "lr"), *lr, np.int16)
    entries["target"] = [{"lr": entry["lr"]} for entry in entries["target"]]
    short = {"dataset_dir": str(runs.datalist(tmp_path / "data", **entries)), **SHORT}
    run(["train", "window"], tmp_path, **short)
    run(["train", "window", "evaluate"], tmp_path, **short)
    assert terms(tmp_path) == WINDOW and runs.history(tmp_path)[-1]["validation/psnr"] > 20
    assert (tmp_path / "out" / "table.csv").is_file()


def test_how_sure_results_are(cohort, tmp_path):
    """Fitted on cases with known HR, kept in the weights, written beside a result: in its units and grid."""
    overlay = tmp_path / "models" / "model.json"
    run(["train", "window"], tmp_path, dataset_dir=str(cohort))
    run(["train", "window", "evaluate", "evaluate_uncertainty"], tmp_path, dataset_dir=str(cohort))
    report = json.loads((tmp_path / "out" / "uncertainty.json").read_text())
    a, b = report["scale"]
    assert a >= 0 and b >= 0 and a + b > 0 and len(report["predicted"]) == len(report["rms_error"]) == 20
    assert all(-1 <= rank <= 1 for rank in report["rank_correlation"].values()) and report["rank_correlation"]
    np.testing.assert_allclose(report["predicted"], report["rms_error"], rtol=1.0)
    assert imread(tmp_path / "out" / "uncertainty.png").shape[2] in (3, 4)

    scan, out = UDEAN.save_lr(tmp_path / "scans", "a", runs.phantom(0)), tmp_path / "sr"
    name = scan.name.removesuffix(".nii.gz")
    options = {"dataset_dir": str(scan), "output_dir": str(out), "uncertainty": True}
    refused(["inference"], tmp_path, "--uncertainty_scale", **options)
    overlay.write_text(json.dumps({**json.loads(overlay.read_text()), "uncertainty_scale": [a, b]}))
    refused(["inference"], tmp_path, "with other axes", axes=[2], **options)
    run(["inference"], tmp_path, **options)
    sr, sd = (nib.load(out / f"{name}_{kind}.nii.gz") for kind in ("sr", "sd"))
    np.testing.assert_allclose(sd.affine, sr.affine)
    assert sd.shape == sr.shape and sd.get_data_dtype() == np.float32
    values, errors = sr.get_fdata(), sd.get_fdata()
    assert errors.min() >= 0 and errors.max() < 0.5 * values.max()
    said = json.loads((out / f"{name}_sd.json").read_text())
    assert "measured" in said["Description"]
    assert said["MeasuredKSpace"] == [n / m for n, m in zip(nib.load(scan).shape, sr.shape, strict=True)]
    # A standard error is no scan.
    refused(["inference"], tmp_path, "results", dataset_dir=str(out), output_dir=str(tmp_path / "again"))
