"""Copies of a volume in two groups are found, however they were written, and voxels of another size are said."""

import random

import numpy as np
import pytest

from common.data.lists.assignment import write_datalist
from common.data.lists.datalist import GROUPS, load_datalist
from tests.bundles import runs
from tests.refused import has, refused

SHAPE = (20, 24, 18)


def _write(path, voxels, affine=runs.AFFINE, **options):
    return {"hr": runs.save(path, voxels, affine, **options)}


@pytest.fixture
def listed(tmp_path):
    """A cohort of two subjects in each group, and a function that writes its datalist by the command."""
    volumes = {f"{group}{i}": runs.phantom(2 * k + i, SHAPE) for k, group in enumerate(GROUPS) for i in (0, 1)}
    entries = {name: _write(tmp_path / f"{name}.nii.gz", voxels) for name, voxels in volumes.items()}

    def write(**options):
        write_datalist(str(tmp_path), hr="*.nii*", **{group: f"{group}*" for group in GROUPS}, **options)

    return volumes, entries, write


COPIES = {
    "renamed": ({}, {}),
    "other type": ({"dtype": np.int16}, {}),
    "8 bits": ({"dtype": np.uint8}, {"scale": 0.2}),
    "scaled": ({}, {"scale": 1e-3}),
    "turned": ({"axes": "PSL"}, {}),
    "flipped, with the same affine": ({}, {"flip": 1}),
    "moved": ({"affine": runs.AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 0.01}, {}),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_in_another_group_is_refused(listed, tmp_path, how):
    volumes, entries, write = listed
    options, change = COPIES[how]
    first, second = random.sample(GROUPS, 2)
    voxels = volumes[f"{first}0"] * change.get("scale", 1)
    if "flip" in change:
        voxels = np.flip(voxels, change["flip"])
    (tmp_path / f"{second}1.nii.gz").unlink()
    copy = _write(tmp_path / f"{second}1.nii{random.choice(['', '.gz'])}", voxels, **options)
    words = f"{first}0.nii.gz ({first})", f"{copy['hr']} ({second})"
    refused(write, ValueError, "datalist", *words)
    entries[f"{second}1"] = copy
    groups = {group: [entries[f"{group}{i}"] for i in (0, 1)] for group in GROUPS}
    data = str(runs.datalist(tmp_path, **groups))
    refused(lambda: load_datalist(data, "target"), ValueError, "dataset.json", *words)
    # Source and target of a misaligned cohort may share scans, and a group may have one twice.
    data = str(runs.datalist(tmp_path, misaligned=True, **{**groups, first: [copy], second: [copy]}))
    if {first, second} == {"source", "target"}:
        assert load_datalist(data, "target")


def test_repeated_scans_and_other_people_are_no_copies_and_other_voxel_sizes_are_said(listed, tmp_path, capsys):
    volumes, _, write = listed
    again = volumes["source0"] + np.random.default_rng(0).normal(0, 0.03 * volumes["source0"].max(), SHAPE)
    other = random.choice([name for name in volumes if name not in ("source0", "test1")])
    _write(tmp_path / "test1.nii.gz", again)
    _write(tmp_path / f"{other}.nii.gz", volumes[other], runs.AFFINE @ np.diag([3, 3, 3, 1]))
    write()
    said = capsys.readouterr().out.partition("warning: ")[2]
    has(said, "[1.0, 1.1, 1.2] mm", f"{other}.nii.gz ({other[:-1]}): [3.0, 3.3, 3.6] mm")
    assert said.count(".nii.gz") == 1
    load_datalist(str(tmp_path), "source")
    assert f"{other}.nii.gz" in capsys.readouterr().out
    text = (tmp_path / "dataset.json").read_text()
    (tmp_path / "dataset.json").write_text(text[: random.randrange(1, len(text) - 2)])
    refused(lambda: load_datalist(str(tmp_path), "source"), ValueError, tmp_path / "dataset.json", "JSON")
