"""Input that cannot be used: a message names it and says what to do, the exit code is not 0, nothing is left behind."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from . import runs


class Spoilt:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def spoil(folder, volume):
    """Volumes that cannot be used, and a pattern of what must be said of each."""

    def image(array, affine=runs.AFFINE):
        header = nib.Nifti1Header()
        header.set_data_shape(array.shape)
        header.set_data_dtype(array.dtype)
        header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        header["sform_code"] = 1
        return nib.Nifti1Image(array, None, header)

    holes, blown, few = volume.astype(np.float32), volume.astype(np.float32), volume[:, :, :2].astype(np.float32)
    holes[3, 4, 5] = np.nan
    blown[1:3, 4, 5] = np.inf
    colour = np.zeros(volume.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    images = {
        "flat": (image(volume[..., 0].astype(np.float32)), "expected a 3-D volume"),
        "single": (image(volume[..., :1].astype(np.float32)), "expected a 3-D volume"),
        "series": (
            image(np.stack([volume] * 2, axis=-1).astype(np.float32)),
            "3-D volume; save each volume",
        ),
        "colour": (image(colour), "not colour"),
        "nan": (image(holes), "1 of .* voxels are NaN or infinite; set them to 0"),
        "infinite": (image(blown), "2 of .* voxels are NaN or infinite; set them to 0"),
        "constant": (image(np.full(volume.shape, 7, np.int16)), "every voxel is 7"),
        "thin": (image(few), "fewer than a slab: 3 on each axis"),
        "singular": (
            image(volume.astype(np.float32), np.diag([1, 1, 0, 1])),
            "affine is not invertible.*sform or qform",
        ),
    }
    patterns = {}
    for name, (found, pattern) in images.items():
        nib.save(found, folder / f"{name}.nii.gz")
        patterns[f"{name}.nii.gz"] = pattern
    whole = gzip.compress(image(volume.astype(np.float32)).to_bytes())
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.nii.gz").write_text("no image")
    return {
        **patterns,
        "truncated.nii.gz": "the file is damaged, get a whole copy",
        "text.nii.gz": "not a readable image.*expected NIfTI",
    }


def said(message, patterns):
    """Whether each file has a line that names it and says what is wrong."""
    for name, pattern in patterns.items():
        assert re.search(rf"{re.escape(name)}: .*{pattern}", message), f"nothing on {name} in:\n{message}"


def leavings(folder):
    """Files that a run left, but for TensorBoard's, which is opened first."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if "tensorboard" not in path.parts)


def fails(bundle, names, folder, **override):
    """The message of a run in this process that must fail and leave nothing."""
    before = leavings(folder) if folder.exists() else []
    with pytest.raises(Exception) as caught:
        runs.run(bundle, names, folder, **override)
    assert (leavings(folder) if folder.exists() else []) == before
    return str(runs.first_cause(caught.value))


def test_bad_volumes_in_a_batch(bundle, trained, tmp_path):
    """By the real command line: good cases finish, and each bad one is named with the reason."""
    scans = tmp_path / "scans"
    lr, affine = runs.degrade(runs.phantom(0), runs.AFFINE)
    for name in ("a_good", "z_good"):
        runs.save(scans / f"{name}.nii.gz", lr, affine)
    patterns = spoil(scans, lr)
    unplaced = nib.Nifti1Image(lr.astype(np.float32), None)
    unplaced.header.set_zooms((2, 2.2, 2.4))
    unplaced.header["sform_code"] = unplaced.header["qform_code"] = 0
    nib.save(unplaced, scans / "unplaced.nii.gz")

    done = runs.command(bundle, ["inference"], trained, dataset_dir=scans, output_dir=tmp_path / "sr")
    assert done.returncode != 0
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert f"{len(patterns)} of {len(patterns) + 3} cases failed, the others are done" in last
    said(last, patterns)
    assert leavings(tmp_path / "sr") == ["a_good_sr.nii.gz", "unplaced_sr.nii.gz", "z_good_sr.nii.gz"]
    assert re.search(
        r"unplaced.nii.gz: the header gives no orientation.*assumed.*spacing \(2.0, 2.2, 2.4\)", done.stderr
    )


def test_bad_volumes_of_a_cohort(bundle, cohort, trained, tmp_path):
    """Training names every bad volume of a group before it trains; evaluation does the good ones and names the bad."""
    scans = tmp_path / "scans"
    scans.mkdir()
    patterns = spoil(scans, runs.phantom(0))
    groups = json.loads((cohort / "dataset.json").read_text())
    entries = {group: [{"hr": e["hr"]} for e in groups[group]] for group in ("source", "target", "validation", "test")}
    entries = {group: [{"hr": cohort / e["hr"]} for e in found] for group, found in entries.items()}
    for group in ("source", "validation"):
        bad = [*entries[group], *({"hr": scans / name} for name in patterns)]
        data = runs.datalist(tmp_path / group, **{**entries, group: bad})
        said(fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(data)), patterns)
    run = shutil.copytree(trained, tmp_path / "evaluated")
    bad = [*entries["test"], *({"hr": scans / name} for name in patterns)]
    with pytest.raises(RuntimeError) as caught:
        data = runs.datalist(tmp_path / "test", **{**entries, "test": bad})
        runs.run(bundle, ["train", "evaluate"], run, dataset_dir=str(data))
    said(str(runs.first_cause(caught.value)), patterns)
    cases = {row["case"] for row in json.loads((run / "out" / "table.json").read_text())["cases"]}
    assert cases == {path.name.removesuffix("_sr.nii.gz") for path in (run / "out").glob("*.nii.gz")} == {"sub-5_t1w"}
    small = runs.save(tmp_path / "small.nii.gz", runs.phantom(0, (20, 44, 36)))
    data = runs.datalist(tmp_path / "patch", **{**entries, "source": [{"hr": small}]})
    message = fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(data))
    assert re.search(r"source.*small.nii.gz.*\(20, 44, 36\) voxels, fewer than the patch.*smaller lr_patch", message)


def test_dataset_dir(bundle, cohort, trained, tmp_path):
    """A folder that is missing, empty, or without a datalist, and a group without volumes."""
    done = runs.command(bundle, ["train"], tmp_path / "run", dataset_dir=tmp_path / "nowhere")
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert f"dataset_dir {tmp_path / 'nowhere'} is not a folder" in last and "--dataset_dir DIR" in last

    (tmp_path / "empty").mkdir()
    message = fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(tmp_path / "empty"))
    assert "dataset.json does not exist" in message and "python -m common datalist" in message
    assert "dataset_dir is empty" in fails(bundle, ["train"], tmp_path / "run", dataset_dir="")
    for place in ("nowhere", "empty"):
        message = fails(bundle, ["inference"], trained, dataset_dir=str(tmp_path / place))
        assert str(tmp_path / place) in message and ("no .nii" in message or "neither a folder nor a file" in message)

    groups = json.loads((cohort / "dataset.json").read_text())
    for group in ("source", "target", "validation", "test"):
        data = tmp_path / f"no_{group}"
        data.mkdir()
        (data / "dataset.json").write_text(json.dumps({**groups, group: []}))
        names = ["train", "evaluate"] if group == "test" else ["train"]
        message = fails(bundle, names, tmp_path / "run", dataset_dir=str(data))
        assert f"group '{group}' has no volumes" in message and str(data / "dataset.json") in message


def test_scale_contradicts_spacing(bundle, cohort, tmp_path):
    """LR scans whose voxels are not the scale factor times as large."""
    lr, affine = runs.degrade(runs.phantom(2), runs.AFFINE, (2, 2, 1))
    scan = runs.save(tmp_path / "lr_221.nii.gz", lr, affine)
    files = [{"hr": cohort / f"sub-{i}_t1w.nii.gz"} for i in (0, 4, 5)]
    data = runs.datalist(
        tmp_path / "data", source=files[:1], target=[{"lr": scan}], validation=files[1:2], test=files[2:]
    )
    message = fails(bundle, ["train"], tmp_path / "run", dataset_dir=str(data))
    assert "lr_221.nii.gz: [2.0, 2.2, 1.2] mm" in message and "[2.0, 2.2, 2.4] mm" in message and "Set scale" in message


def test_checkpoints(bundle, cohort, trained, tmp_path):
    """Weights that are missing, corrupt, of another architecture, or code, and a state of another run."""
    scan = runs.save(tmp_path / "scans" / "a.nii.gz", *runs.degrade(runs.phantom(0), runs.AFFINE))
    data = {"dataset_dir": str(scan), "output_dir": str(tmp_path / "sr")}
    weights = tmp_path / "model.pt"
    message = fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
    assert f"no weights at {weights}" in message and "--checkpoint" in message

    whole = (trained / "models" / "model.pt").read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    message = fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
    assert f"{weights}: not a checkpoint that can be read" in message

    weights.write_bytes(whole)
    size, value = next(iter(runs.NETWORK[bundle].items()))
    message = fails(bundle, ["inference"], tmp_path, **{"checkpoint": str(weights), **data, size: 2 * value})
    assert f"{weights}: the weights are of another architecture" in message and "sizes" in message
    torch.save([1, 2], weights)
    assert "expected a dictionary of weights, found list" in fails(
        bundle, ["inference"], tmp_path, checkpoint=str(weights), **data
    )

    for write in (
        lambda file: pickle.dump(Spoilt(tmp_path / "ran"), file),
        lambda f: torch.save(Spoilt(tmp_path / "ran"), f),
    ):
        with weights.open("wb") as file:
            write(file)
        message = fails(bundle, ["inference"], tmp_path, checkpoint=str(weights), **data)
        assert f"{weights}: not a checkpoint that can be read" in message and not (tmp_path / "ran").exists()

    run = shutil.copytree(trained, tmp_path / "run")
    again = {"dataset_dir": str(cohort), "resume": True}
    message = fails(bundle, ["train"], run, **{**again, size: 2 * value})
    assert "training_state.pt: the run was started with other networks" in message and "without --resume" in message
    message = fails(bundle, ["train"], run, epoch_length=3, **again)
    assert "training_state.pt: the run was started with epoch_length 4" in message
    (run / "models" / "training_state.pt").write_bytes(pickle.dumps(Spoilt(tmp_path / "ran")))
    message = fails(bundle, ["train"], run, **again)
    assert "training_state.pt: not a checkpoint that can be read" in message and not (tmp_path / "ran").exists()


def test_misspelt_override(bundle, cohort, tmp_path):
    """By the real command line: MONAI takes any key, the bundle does not."""
    done = runs.command(
        bundle, ["train"], tmp_path / "run", dataset_dir=cohort, max_epoch=3, **{"train#trainer#amo": True}
    )
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    last = done.stderr[done.stderr.rindex("\nerror: ") :]
    assert "--max_epoch: the configs have no such key; did you mean max_epochs" in last
    assert "--train#trainer#amo: the configs have no such key; did you mean amp" in last


def test_unwritable_output(bundle, cohort, trained, tmp_path):
    """A file stands where the output folder should be."""
    scans = tmp_path / "scans"
    runs.save(scans / "a.nii.gz", *runs.degrade(runs.phantom(0), runs.AFFINE))
    taken = tmp_path / "taken"
    taken.write_text("")
    weights = str(trained / "models" / "model.pt")
    for names, override in (
        (["inference"], {"dataset_dir": str(scans), "output_dir": str(taken), "checkpoint": weights}),
        (["train"], {"dataset_dir": str(cohort), "output_dir": str(taken / "below")}),
        (["train"], {"dataset_dir": str(cohort), "ckpt_dir": str(taken)}),
        (["train", "evaluate"], {"dataset_dir": str(cohort), "output_dir": str(taken), "checkpoint": weights}),
    ):
        message = fails(bundle, names, tmp_path / "run", **override)
        assert f"{taken} is a file; name another folder" in message and not (tmp_path / "run").exists()
