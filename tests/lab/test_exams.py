"""The real exams, and how they come from git clones."""

import json
import subprocess

import nibabel as nib
import numpy as np
import pytest

from common.degradations import GaussianProfile
from common.lab.queue.clones import check_clones
from common.lab.queue.exams import read_exams, write_exam
from common.lab.queue.exams_left_out import find_plane, write_classical
from common.lab.queue.exams_simulated import write_exam as simulate_exam

from ..bundles.runs import degrade, phantom, save

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
    (line,) = write_exam(exam, clones, tmp_path / "exam")
    assert line.startswith("one: 4x5x6 voxels of 1x1x4 mm, noise ") and "width unknown (the scan is too small" in line
    assert np.array_equal(nib.load(tmp_path / "exam" / "one.nii.gz").dataobj, np.arange(120).reshape(4, 5, 6))
    assert (tmp_path / "exam" / "one_mask.nii.gz").read_bytes() == b"a mask"
    assert json.loads((tmp_path / "exam" / "one.json").read_text()) == {"SliceThickness": 3.5}


def test_a_missing_clone_or_commit_is_named(clones, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder P\+Q/repo"):
        check_clones(clones, ["O+N", "P+Q"])
    exam = {"repository": "O/N", "commit": 40 * "0", "stacks": {"one": "a/of one.nii.gz"}}
    with pytest.raises(FileNotFoundError, match=r"O\+N/repo lacks a/of one.nii.gz at 00000000"):
        write_exam(exam, clones, tmp_path / "exam")
    assert not (tmp_path / "exam" / "exam.json").exists()


def test_each_exam_has_two_stacks_a_source_and_a_licence():
    """People who are held back for judging are in none."""
    for name, exam in read_exams().items():
        assert len(exam["stacks"]) > 1 and exam["licence"] and exam["body"] and exam["kind"], name
        assert len(exam["commit"]) == 40 and exam["repository"].count("/") == 1, name
        assert exam["person"] not in HELD_BACK and not any(word in str(exam) for word in HELD_BACK), name


def test_what_needs_no_network_lies_on_the_results_grid_and_controls_are_worse(tmp_path):
    hr, operator = phantom(3, (32, 30, 40)), GaussianProfile((1, 1, 4), fwhm=0.8)
    lr, affine = degrade(hr, np.eye(4), operator)
    scan, result = save(tmp_path / "scan.nii.gz", lr, affine), save(tmp_path / "result.nii.gz", hr, np.eye(4))
    (tmp_path / "scan.json").write_text('{"SliceThickness": 3.2}')
    errors = {}
    for name, file in write_classical(scan, result, tmp_path).items():
        image = nib.load(file)
        assert np.array_equal(image.affine, np.eye(4))
        errors[name] = np.sqrt(np.square(image.get_fdata() - hr).mean())
    assert errors["total_variation"] < errors["cubic"] < min(errors["blurred"], errors["shifted"])
    assert errors["zero_filling"] < errors["shifted"]


def test_simulated_stacks_lie_in_two_planes_and_between_each_others_slices(tmp_path):
    simulate_exam(save(tmp_path / "hr.nii.gz", 100 * phantom(3, (48, 40, 44)), np.eye(4)), tmp_path / "exam")
    stacks = {name: nib.load(tmp_path / "exam" / f"{name}.nii.gz") for name in ("tra", "cor", "tra_2")}
    tra, cor, again = stacks.values()
    assert (tra.shape, cor.shape, again.shape) == ((48, 40, 11), (48, 10, 44), (48, 40, 10))
    assert again.affine[2, 3] - tra.affine[2, 3] == pytest.approx(2)
    planes = [find_plane(tmp_path / "exam", "tra", other) for other in ("cor", "tra_2")]
    assert planes == ["another", "the same"]
    simulate_exam(tmp_path / "hr.nii.gz", tmp_path / "moved", True)
    same = [
        np.allclose(nib.load(tmp_path / "moved" / f"{n}.nii.gz").dataobj, known.dataobj) for n, known in stacks.items()
    ]
    assert same == [False, True, True]
    known = json.loads((tmp_path / "exam" / "exam.json").read_text())
    assert [*known["stacks"]] == ["tra", "cor", "tra_2"] and not (tmp_path / "exam" / "hr.nii.gz").exists()
