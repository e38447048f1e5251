"""Copies of a volume in two groups are found, however they were written, and voxels of another size are said."""

import random

import numpy as np
import pytest

from common.data.lists.datalist import GROUPS, load_datalist
from common.program.datalist.assignment import write_datalist
from tests.bundles import runs
from tests.refused import has, refused

NAMES = [f"{group}{i}" for group in GROUPS for i in (0, 1)]
MOVED = {"affine": runs.AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 0.01}


def volume(name):
    return runs.phantom(NAMES.index(name), (20, 24, 18))


@pytest.fixture
def write(tmp_path):
    """A cohort of two subjects in each group, and a function that writes its datalist by the command."""
    for name in NAMES:
        runs.save(tmp_path / f"{name}.nii.gz", volume(name))
    return lambda: write_datalist(str(tmp_path), hr="*.nii*", **{group: f"{group}*" for group in GROUPS})


@pytest.mark.parametrize("change", [lambda v: v, lambda v: 1e-3 * v, lambda v: np.rint(v / 5), lambda v: v[:, ::-1]])
@pytest.mark.parametrize("options", [{}, {"dtype": np.float64}, {"axes": "PSL"}, MOVED])
def test_a_copy_in_another_group_is_refused(write, tmp_path, change, options):
    write()
    first, second = random.sample(GROUPS, 2)
    (tmp_path / f"{second}1.nii.gz").unlink()
    copy = runs.save(tmp_path / f"{second}1.nii{random.choice(['', '.gz'])}", change(volume(f"{first}0")), **options)
    words = f"{first}0.nii.gz ({first})", f"{copy} ({second})"
    refused(write, ValueError, "datalist", *words)
    files = {name: {"hr": tmp_path / f"{name}.nii.gz"} for name in NAMES} | {f"{second}1": {"hr": copy}}
    data = str(runs.datalist(tmp_path, **{group: [files[f"{group}{i}"] for i in (0, 1)] for group in GROUPS}))
    refused(lambda: load_datalist(data, "target"), ValueError, "dataset.json", *words)
    shared = {"source": [files[f"{first}0"]], "target": [files[f"{second}1"]]}
    assert load_datalist(str(runs.datalist(tmp_path, misaligned=True, **shared)), "target")


def test_repeated_scans_are_no_copies_and_other_voxel_sizes_and_cut_lists_are_said(write, tmp_path, capsys):
    noise = np.random.default_rng(0).normal(0, 0.03 * volume("source0").max(), (20, 24, 18))
    runs.save(tmp_path / "test1.nii.gz", volume("source0") + noise)
    other = random.choice([name for name in NAMES if name != "test1"])
    runs.save(tmp_path / f"{other}.nii.gz", volume(other), runs.AFFINE @ np.diag([3, 3, 3, 1]))
    for call in (write, lambda: load_datalist(str(tmp_path), "source")):
        call()
        said = capsys.readouterr().err.partition("warning: ")[2]
        has(said, "[1.0, 1.1, 1.2] mm", f"{other}.nii.gz ({other[:-1]}): [3.0, 3.3, 3.6] mm")
        assert said.count(".nii.gz") == 1
    text = (tmp_path / "dataset.json").read_text()
    (tmp_path / "dataset.json").write_text(text[: random.randrange(1, len(text) - 2)])
    refused(lambda: load_datalist(str(tmp_path), "source"), ValueError, tmp_path / "dataset.json", "JSON")
