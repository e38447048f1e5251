"""The real exams, and how they come from git clones."""

import json
import subprocess

import nibabel as nib
import numpy as np
import pytest

from common.lab.clones import check_clones
from common.lab.exams import read_exams, write_exam

HELD_BACK = {"ProstateX-0001", "ProstateX-0218"}


@pytest.fixture
def clones(tmp_path):
    """A clone whose folder ``a`` has a stack of one more axis, its mask and a sidecar."""
    work = tmp_path / "clones" / "O+N" / "repo"
    (work / "a").mkdir(parents=True)
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6, 1)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 4, 1])), work / "a" / "of one.nii.gz")
    (work / "a" / "mask.nii.gz").write_bytes(b"a mask")
    (work / "a" / "of one.json").write_text('{"SliceThickness": 3.5, "InstitutionName": "X"}')
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", work, *words], check=True)
    return tmp_path / "clones"


def test_a_stack_comes_with_its_mask_and_what_is_known(clones, tmp_path):
    exam = {
        "repository": "O/N",
        "commit": "HEAD",
        "stacks": {"one": "a/of one.nii.gz"},
        "masks": {"one": "a/mask.nii.gz"},
    }
    assert write_exam(exam, clones, tmp_path / "exam") == ["one: 4x5x6 voxels of 1x1x4 mm"]
    assert np.array_equal(nib.load(tmp_path / "exam" / "one.nii.gz").dataobj, np.arange(120).reshape(4, 5, 6))
    assert (tmp_path / "exam" / "one_mask.nii.gz").read_bytes() == b"a mask"
    assert json.loads((tmp_path / "exam" / "one.json").read_text()) == {"SliceThickness": 3.5}


def test_a_missing_clone_is_named(clones):
    with pytest.raises(FileNotFoundError, match=r"no folder P\+Q/repo"):
        check_clones(clones, ["O+N", "P+Q"])


def test_each_exam_has_two_stacks_a_source_and_a_licence():
    """People who are held back for judging are in none."""
    for name, exam in read_exams().items():
        assert len(exam["stacks"]) > 1 and exam["licence"] and exam["body"] and exam["kind"], name
        assert len(exam["commit"]) == 40 and exam["repository"].count("/") == 1, name
        assert exam["person"] not in HELD_BACK and not any(word in str(exam) for word in HELD_BACK), name
