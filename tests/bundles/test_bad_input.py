"""Input that cannot be used: a message names it and says what to do, the exit code is not 0, nothing is left behind."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import torch

from . import runs, spoilt


@runs.of("udean_window", "guided_rdn")
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

    done = runs.command(bundle, runs.CASES, trained, dataset_dir=scans, output_dir=tmp_path / "sr")
    assert done.returncode != 0
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert f"{len(patterns)} of {len(patterns) + 3} cases failed, the others are done" in last
    spoilt.said(last, patterns)
    assert runs.written(tmp_path / "sr") == [f"{tiny.case(name)}_sr.nii.gz" for name in ("0good", "unplaced", "zgood")]
    spacing = ", ".join(str(round(n, 4)) for n in np.diag(runs.AFFINE)[:3] * tiny.degradation.factors)
    assert re.search(
        rf"{tiny.case('unplaced')}: the header gives no orientation.*assumed.*spacing \({spacing}\)", done.stdout
    )


# One for each way to load what is learned from.
@runs.of("guided_rdn", "ct_guided", "downsampling_gan")
def test_bad_volumes_of_a_cohort(bundle, tiny, cohort, trained, tmp_path):
    """Training and evaluation name every bad volume of a group before they compute anything."""
    patterns = spoilt.spoil(tmp_path / "scans", runs.phantom(9), tiny.contrast)
    entries, first = runs.listed(cohort, tiny), next(iter(tiny.groups))

    def with_bad(group):
        guide = {kind: path for kind, path in entries[first][0].items() if kind == "guide"}
        bad = [{"hr": path, **guide} for path in patterns]
        bad = [*entries[group], *(map(tiny.as_source, bad) if group == "source" else bad)]
        return str(runs.datalist(tmp_path / group, **{**entries, group: bad}))

    for group in (first, "validation"):
        spoilt.said(runs.fails(bundle, ["train"], tmp_path / "run", dataset_dir=with_bad(group)), patterns)
    spoilt.said(runs.fails(bundle, ["train", "evaluate"], trained, dataset_dir=with_bad("test")), patterns)

    small = tiny.save_hr(tmp_path / "small", "small", runs.phantom(0, (20, 44, 36)))
    data = runs.datalist(
        tmp_path / "patch", **{**entries, first: [tiny.as_source(small) if first == "source" else small]}
    )
    message = runs.fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(data))
    patch = "|".join(key for key in tiny.training if "patch" in key or "crop" in key)
    assert re.search(
        rf"{first}.*{small['hr'].name}.*\([12]0, \d\d, 36\) voxels, fewer than the patch.*smaller --({patch})\b",
        message,
    )


@runs.of("srcnn", "ct_guided")
def test_dataset_dir(bundle, tiny, cohort, trained, tmp_path):
    """A folder that is missing, empty, or without a datalist, and a group without volumes."""
    nowhere, empty, run = tmp_path / "nowhere", tmp_path / "empty", tmp_path / "run"
    done = runs.command(bundle, ["train"], run, dataset_dir=nowhere)
    assert done.returncode != 0 and not run.exists()
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert f"dataset_dir {nowhere} is not a folder" in last and "--dataset_dir DIR" in last

    empty.mkdir()
    runs.fails(bundle, ["train"], run, "dataset.json", "python -m common datalist", dataset_dir=str(empty))
    runs.fails(bundle, ["train"], run, "dataset_dir is empty", dataset_dir="")
    for place in (nowhere, empty):
        runs.fails(bundle, ["inference"], trained, place, dataset_dir=str(place))

    groups = json.loads((cohort / "dataset.json").read_text())
    for group in tiny.groups.keys() - set(tiny.optional):
        data = tmp_path / f"no_{group}"
        data.mkdir()
        (data / "dataset.json").write_text(json.dumps({**groups, group: []}))
        names = ["train", "evaluate"] if group == "test" else ["train"]
        words = f"group '{group}' has no volumes", data / "dataset.json"
        runs.fails(bundle, names, trained if group == "test" else run, *words, dataset_dir=str(data))


@runs.of("srcnn", "guided_rdn")
def test_checkpoints(bundle, tiny, cohort, trained, tmp_path):
    """Weights that are missing or of another architecture, and a state of another run, or that is none."""
    tiny.save_lr(tmp_path / "scans", "a", runs.phantom(0))
    weights = tmp_path / "model.pt"
    size, value = next(iter(tiny.network.items()))
    double = [2 * n for n in value] if isinstance(value, list) else 2 * value

    def refused(*words, **override):
        data = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "sr")}
        runs.fails(bundle, ["inference"], tmp_path, *words, checkpoint=str(weights), **data, **override)

    refused(f"no weights at {weights}", "--checkpoint")
    for name in ("model.pt", "model.json"):
        shutil.copy(trained / "models" / name, tmp_path)
    other = f"{weights}: {size} is {double}, but these weights were trained with {value}"
    refused(other, "Lay the weights' own overlay", **{size: double})
    evaluation = {"dataset_dir": str(cohort), size: double}
    runs.fails(bundle, ["train", "evaluate"], trained, f"model.pt: {size} is {double}", **evaluation)
    # Without its overlay the config must have the sizes.
    (tmp_path / "model.json").unlink()
    refused(f"{weights}: the weights are of another architecture", "model.json next to the weights", **{size: double})

    run, state = shutil.copytree(trained, tmp_path / "run"), f"training_state{tiny.stages[-1]}.pt"
    again = {"dataset_dir": str(cohort), "resume": True}
    words = "training_state", f"the run was started with {size} {value}, now it is {double}", "--overwrite True"
    runs.fails(bundle, ["train"], run, *words, **{**again, size: double})
    runs.fails(bundle, ["train"], run, "training_state", "started with epoch_length 4", epoch_length=3, **again)
    torch.save(tmp_path, run / "models" / state)  # what could be code
    runs.fails(bundle, ["train"], run, f"{state}: not a checkpoint that can be read", **again)


@runs.of("udean")
def test_misspelt_override(bundle, cohort, tmp_path):
    """Nothing is begun; each is answered with its neighbours, or with the component that takes it."""
    wrong = {"max_epoch": 3, "train#trainer#amo": True, "amp": True}
    done = runs.command(bundle, ["train"], tmp_path / "run", dataset_dir=cohort, **wrong)
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    lines = done.stderr[done.stderr.rindex("\nerror: ") :].splitlines()
    for key, meant in (("max_epoch", "max_epochs"), ("train#trainer#amo", "train#trainer#amp"), ("amp", "trainer#amp")):
        (line,) = (line for line in lines if f"--{key}:" in line)
        assert "did you mean --" in line and meant in line, line


@runs.of("srcnn")
def test_unwritable_output(bundle, tiny, cohort, trained, tmp_path):
    scans, taken, run = tmp_path / "scans", tmp_path / "taken", tmp_path / "run"
    tiny.save_lr(scans, "a", runs.phantom(0))
    taken.write_text("")
    weights, data = {"checkpoint": str(trained / "models" / "model.pt")}, {"dataset_dir": str(cohort)}
    for names, override in (
        (["inference"], {**weights, "dataset_dir": str(scans), "output_dir": str(taken)}),
        (["train"], {**data, "output_dir": str(taken / "below")}),
        (["train"], {**data, "ckpt_dir": str(taken)}),
        (["train", "evaluate"], {**weights, **data, "output_dir": str(taken)}),
    ):
        runs.fails(bundle, names, run, f"{taken} is a file; name another folder", **override)
        assert not run.exists()
