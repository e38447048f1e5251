"""The window form of UDEAN: its losses, sizes and forms, and the noise it measures."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from . import runs

pytestmark = runs.only("udean_window")
TINY = runs.TINY["udean_window"]
SHORT = {"max_epochs": 1, "epoch_length": 1}
run, refused, content = (partial(do, "udean_window") for do in (runs.run, runs.fails, runs.content))
IN_PLANE = {"scale": [2, 2, 1]}
WINDOW = {
    "degradation/image_adaptation/fake", "degradation/image_adaptation/real", "degradation/ours/anchor",
    "generator/image_cycle/l1", "generator/image_cycle/ssim", "discriminator/lr/real", "discriminator/lr/fake",
}  # fmt: skip
# Forms that no other test here trains.
FORMS = {
    "drawn noise, 2x2x1": ([], {**IN_PLANE, "training_noise": [0.0, 0.04]}, WINDOW),
    "2x2x1": ([], IN_PLANE, WINDOW),
    "as the weights were trained": (["release"], {}, WINDOW),
    "supervised": (["train_supervised"], {}, {"generator/image/l1", "generator/image/ssim"}),
}


def terms(folder):
    """Names of the loss terms of a run."""
    found = set().union(*runs.history(folder)) - {"epoch", "iteration", "validation/psnr"}
    return {name for name in found if not name.endswith(("/total", "/learning_rate"))}


@pytest.mark.parametrize("form", FORMS)
def test_forms(cohort, tmp_path, form):
    """Every form trains, with its own terms and no others."""
    overlays, override, expected = FORMS[form]
    if "release" in overlays:
        override = {"initial": str(tmp_path / "start.pt")}
        torch.save(
            content("network_def", "train", "release", **runs.TINY["udean_window"].network).state_dict(),
            override["initial"],
        )
    options = {"dataset_dir": str(cohort), "max_epochs": 1, "epoch_length": 2, **override}
    run(["train", *overlays], tmp_path, pictures=form == "2x2x1", **options)
    assert terms(tmp_path) == expected
    assert runs.history(tmp_path)[-1]["validation/psnr"] > 25
    learned = tmp_path / "out" / "degradation.json"
    assert learned.is_file() == (form != "supervised")
    if learned.is_file():
        about = json.loads(learned.read_text())
        assert len(about["axes"]) == 3
        # Of the target's scans, which have none, whatever is drawn for the network.
        assert max(about["noise"]) < (0.02 if "release" in overlays else 0.01)
        level = "release" in overlays  # without blur
        assert [axis["window"][-1] == 1 for axis in about["axes"]] == [level, level, level or "2x2x1" in form]
        assert form != "2x2x1" or imread(learned.with_suffix(".png")).std() > 0.01


def test_adapt(cohort, tmp_path):
    """It starts from the shipped weights, needs no validation, and turns data consistency off."""
    entries = {group: volumes for group, volumes in runs.listed(cohort, TINY).items() if group in ("source", "target")}
    sizes = {key: content(key, "train", "../models/model") for key in TINY.network}
    options = {"dataset_dir": str(runs.datalist(tmp_path / "data", **entries)), **SHORT, **sizes, "learning_rate": 0.0}
    run(["train", "../models/model", "adapt"], tmp_path, **options)
    shipped, adapted = (f"{folder}/models/model" for folder in (runs.ROOT / "bundles/udean_window", tmp_path))
    first, last = (torch.load(f"{path}.pt", weights_only=True) for path in (shipped, adapted))
    assert first.keys() == last.keys() and all(torch.equal(first[name], last[name]) for name in first)
    about = json.loads(Path(f"{adapted}.json").read_text())
    assert about["data_consistency_iterations"] == 0 and about["highest_consistency_error"] is None
    assert terms(tmp_path) == WINDOW


def test_parameter_counts():
    """Those of UDEAN, and a vector of a number for each feature and each axis that may lie across a slab."""
    for names, expected in (
        (["train"], 2_457_002 + 3 * 64),
        (["inference"], 672_081),  # of the shipped weights, which know no axes
        (["train", "release"], 672_081),
        (["train", "release", "large"], 2_457_002),
    ):
        assert sum(p.numel() for p in content("network_def", *names).parameters()) == expected
    assert content("slab_orientations", "train", **IN_PLANE) == 1


def test_refused(cohort, tmp_path):
    """Settings that are none."""
    for override, words in (
        ({"training_noise": "[]"}, ["training_noise", "'[]'", "a list"]),
        ({"noise_levels": 0.02}, ["noise_levels", "0.02", "a list"]),
        ({"any_axis": True, "fourier_encoded": [True, True, False]}, ["not encoded alike"]),
        ({"anchor": -0.1}, ["ours/anchor", "the weight is -0.1"]),
    ):
        refused(["train"], tmp_path / "run", *words, **{"dataset_dir": str(cohort), **override})


def test_authentic_lr(cohort, tmp_path):
    """Target scans that are LR already, and validation and test pairs of HR and LR."""
    entries = runs.listed(cohort, TINY)
    for entry in (entry for group in ("target", "validation", "test") for entry in entries[group]):
        image = nib.as_closest_canonical(nib.load(entry["hr"]))
        volume = image.get_fdata()[tuple(slice(n // 2 * 2) for n in image.shape)]
        lr = runs.degrade(volume, image.affine, TINY.degradation)
        entry["lr"] = runs.save(tmp_path / "lr" / entry["hr"].name.replace("t1w", "lr"), *lr, np.int16)
    entries["target"] = [{"lr": entry["lr"]} for entry in entries["target"]]
    short = {"dataset_dir": str(runs.datalist(tmp_path / "data", **entries)), **SHORT}
    run(["train"], tmp_path, **short)
    run(["train", "evaluate"], tmp_path, **short)
    assert terms(tmp_path) == WINDOW and runs.history(tmp_path)[-1]["validation/psnr"] > 20
    assert (tmp_path / "out" / "table.csv").is_file()
