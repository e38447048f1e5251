"""Input that cannot be used: a message names it and says what to do, the exit code is not 0, nothing is left behind."""

from __future__ import annotations

import json
import pickle
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from . import runs, spoilt


class Spoilt:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@runs.each_form
def test_bad_volumes_in_a_batch(bundle, tiny, trained, tmp_path):
    """By the real command line: good cases finish, and each bad one is named with the reason."""
    scans, hr = tmp_path / "scans", runs.phantom(0)
    for name in ("0good", "zgood"):
        tiny.save_lr(scans, name, hr)
    patterns = spoilt.spoil(scans, runs.degrade(hr, runs.AFFINE, tiny.degradation)[0], tiny.contrast)
    guides = {path.name.replace(tiny.contrast, "t1w") for path in patterns} if tiny.guided else ()
    for guide in guides:
        shutil.copyfile(scans / "sub-0good_t1w.nii.gz", scans / guide)
    # Where neither file of a pair has a place, both are put in the middle.
    tiny.save_hr(scans, "unplaced", hr)
    runs.save(scans / f"{tiny.case('unplaced')}.nii.gz", *runs.degrade(hr, runs.AFFINE, tiny.degradation))
    for path in scans.glob("sub-unplaced_*"):
        placed = nib.load(path)
        unplaced = nib.Nifti1Image(placed.get_fdata(dtype=np.float32), None)
        unplaced.header.set_zooms(placed.header.get_zooms())
        unplaced.header["sform_code"] = unplaced.header["qform_code"] = 0
        nib.save(unplaced, path)

    done = runs.command(bundle, ["inference"], trained, dataset_dir=scans, output_dir=tmp_path / "sr")
    assert done.returncode != 0
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert f"{len(patterns)} of {len(patterns) + 3} cases failed, the others are done" in last
    spoilt.said(last, patterns)
    assert runs.written(tmp_path / "sr") == [f"{tiny.case(name)}_sr.nii.gz" for name in ("0good", "unplaced", "zgood")]
    spacing = ", ".join(str(round(n, 4)) for n in np.diag(runs.AFFINE)[:3] * tiny.degradation.factors)
    assert re.search(
        rf"{tiny.case('unplaced')}: the header gives no orientation.*assumed.*spacing \({spacing}\)", done.stdout
    )


@runs.each_form
def test_bad_volumes_of_a_cohort(bundle, tiny, cohort, trained, tmp_path):
    """Training names every bad volume of a group before it trains; evaluation does the good ones and names the bad."""
    patterns = spoilt.spoil(tmp_path / "scans", runs.phantom(0), tiny.contrast)
    entries, first = runs.listed(cohort, tiny), next(iter(tiny.groups))

    def with_bad(group):
        guide = {kind: path for kind, path in entries[first][0].items() if kind == "guide"}
        bad = [{"hr": path, **guide} for path in patterns]
        bad = [*entries[group], *(map(tiny.as_source, bad) if group == "source" else bad)]
        return str(runs.datalist(tmp_path / group, **{**entries, group: bad}))

    for group in (first, "validation"):
        spoilt.said(runs.fails(bundle, ["train"], tmp_path / "run", dataset_dir=with_bad(group)), patterns)
    run = shutil.copytree(trained, tmp_path / "evaluated")
    with pytest.raises(RuntimeError) as caught:
        runs.run(bundle, ["train", "evaluate"], run, dataset_dir=with_bad("test"))
    spoilt.said(str(runs.first_cause(caught.value)), patterns)
    cases = {row["case"] for row in json.loads((run / "out" / "table.json").read_text())["cases"]}
    assert cases == {path.name.removesuffix("_sr.nii.gz") for path in (run / "out").glob("*.nii.gz")} == {tiny.case(5)}

    small = tiny.save_hr(tmp_path / "small", "small", runs.phantom(0, (20, 44, 36)))
    data = runs.datalist(
        tmp_path / "patch", **{**entries, first: [tiny.as_source(small) if first == "source" else small]}
    )
    message = runs.fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(data))
    patch = "|".join(key for key in tiny.training if "patch" in key or "crop" in key)
    assert re.search(
        rf"{first}.*{small['hr'].name}.*\([12]0, \d\d, 36\) voxels, fewer than the patch.*smaller ({patch})\b",
        message,
    )


@runs.each_form
def test_dataset_dir(bundle, tiny, cohort, trained, tmp_path):
    """A folder that is missing, empty, or without a datalist, and a group without volumes."""
    done = runs.command(bundle, ["train"], tmp_path / "run", dataset_dir=tmp_path / "nowhere")
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert f"dataset_dir {tmp_path / 'nowhere'} is not a folder" in last and "--dataset_dir DIR" in last

    (tmp_path / "empty").mkdir()
    message = runs.fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(tmp_path / "empty"))
    assert "dataset.json does not exist" in message and "python -m common datalist" in message
    assert "dataset_dir is empty" in runs.fails(bundle, ["train"], tmp_path / "run", dataset_dir="")
    for place in ("nowhere", "empty"):
        message = runs.fails(bundle, ["inference"], trained, dataset_dir=str(tmp_path / place))
        assert re.search(
            rf"{tmp_path / place}\b.*(no .nii|(not|neither) a folder)|no files match .*{tmp_path / place}", message
        )

    groups = json.loads((cohort / "dataset.json").read_text())
    for group in tiny.groups.keys() - set(tiny.optional):
        data = tmp_path / f"no_{group}"
        data.mkdir()
        (data / "dataset.json").write_text(json.dumps({**groups, group: []}))
        names = ["train", "evaluate"] if group == "test" else ["train"]
        message = runs.fails(bundle, names, tmp_path / "run", dataset_dir=str(data))
        assert f"group '{group}' has no volumes" in message and str(data / "dataset.json") in message


@runs.each_form
def test_checkpoints(bundle, tiny, cohort, trained, tmp_path):
    """Weights that are missing, corrupt, of another architecture, or code, and a state of another run."""
    tiny.save_lr(tmp_path / "scans", "a", runs.phantom(0))
    data = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "sr")}
    weights = tmp_path / "model.pt"
    message = runs.fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
    assert f"no weights at {weights}" in message and "--checkpoint" in message

    whole = (trained / "models" / "model.pt").read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    message = runs.fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
    assert f"{weights}: not a checkpoint that can be read" in message

    weights.write_bytes(whole)
    size, value = next(iter(tiny.network.items()))
    version = json.loads((runs.ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())["version"]
    double = [2 * n for n in value] if isinstance(value, list) else 2 * value
    said = f", of {bundle} {version}: {size} is {double}, but these weights were trained with {value}. Leave out what"
    message = runs.fails(bundle, ["inference"], tmp_path, **{"checkpoint": str(weights), **data, size: double})
    assert f"{weights}{said}" in message
    message = runs.fails(bundle, ["train", "evaluate"], trained, dataset_dir=str(cohort), **{size: double})
    assert f"model.pt{said}" in message
    # Older files say nothing, so that sizes are told, and the architecture must do.
    torch.save(torch.load(weights, weights_only=True), weights)
    message = runs.fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
    assert f"{weights}: the weights are of another architecture" in message and "sizes" in message
    torch.save([1, 2], weights)
    assert "expected a dictionary of weights, found list" in runs.fails(
        bundle, ["inference"], tmp_path, checkpoint=str(weights), **data
    )

    for write in (
        lambda file: pickle.dump(Spoilt(tmp_path / "ran"), file),
        lambda f: torch.save(Spoilt(tmp_path / "ran"), f),
    ):
        with weights.open("wb") as file:
            write(file)
        message = runs.fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
        assert f"{weights}: not a checkpoint that can be read" in message and not (tmp_path / "ran").exists()

    run, state = shutil.copytree(trained, tmp_path / "run"), f"training_state{tiny.stages[-1]}.pt"
    again = {"dataset_dir": str(cohort), "resume": True}
    message = runs.fails(bundle, ["train"], run, **{**again, size: double})
    said = re.escape(f"the run was started with {size} {value}, now it is {double}")
    assert re.search(rf"training_state\w*.pt: {said}", message)
    assert "--overwrite true" in message
    message = runs.fails(bundle, ["train"], run, epoch_length=3, **again)
    assert re.search(r"training_state\w*.pt: the run was started with epoch_length 4", message)
    (run / "models" / state).write_bytes(pickle.dumps(Spoilt(tmp_path / "ran")))
    message = runs.fails(bundle, ["train"], run, **again)
    assert f"{state}: not a checkpoint that can be read" in message and not (tmp_path / "ran").exists()


@runs.each_form
def test_misspelt_override(bundle, cohort, tmp_path):
    """By the real command line: MONAI takes any key, the bundle does not."""
    within = {"train#trainer#amo": True, "train#trainer#max_epochs": 3, "train#handlers#0#path": "x"}
    done = runs.command(bundle, ["train"], tmp_path / "run", dataset_dir=cohort, max_epoch=3, **within)
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert "--max_epoch: the configs have no such key; did you mean max_epochs" in last
    block = "is the block common/configs/training.json::"
    assert f"--train#trainer#amo: train#trainer {block}trainer, which has no such key; did you mean amp" in last
    assert re.search(f"--train#trainer#max_epochs: train#trainer {block}trainer, .*; set --max_epochs", last)
    assert re.search(f"--train#handlers#0#path: train#handlers#0 {block}history, .*; set --output_dir or --suf", last)


@runs.each_form
def test_unwritable_output(bundle, tiny, cohort, trained, tmp_path):
    """A file stands where the output folder should be."""
    scans = tmp_path / "scans"
    tiny.save_lr(scans, "a", runs.phantom(0))
    taken = tmp_path / "taken"
    taken.write_text("")
    weights = str(trained / "models" / "model.pt")
    for names, override in (
        (["inference"], {"dataset_dir": str(scans), "output_dir": str(taken), "checkpoint": weights}),
        (["train"], {"dataset_dir": str(cohort), "output_dir": str(taken / "below")}),
        (["train"], {"dataset_dir": str(cohort), "ckpt_dir": str(taken)}),
        (["train", "evaluate"], {"dataset_dir": str(cohort), "output_dir": str(taken), "checkpoint": weights}),
    ):
        message = runs.fails(bundle, names, tmp_path / "run", **override)
        assert f"{taken} is a file; name another folder" in message and not (tmp_path / "run").exists()
