"""``judge --insert_lesions``: restorers that keep, remove or invent lesions are found out."""

import csv

import nibabel as nib
import numpy as np
import pytest

from common.lab.judge.inserted_lesions import compare_detection
from common.lab.judge.insertion import insert_lesions
from common.program.volume import Volume

from .test_lesions import judge

SPACING = np.full(3, 2.0)


def make_head():
    """Textured tissue of 400 in air, 2 mm voxels."""
    at = np.indices((48, 48, 48))
    inside = sum((a - 23.5) ** 2 for a in at) < 23.5**2
    texture = 8 * np.random.default_rng(0).normal(size=inside.shape)
    return np.where(inside, 400 + 60 * (at[0] > 30) + texture, 0).astype(np.float32)


def test_a_remover_loses_all_an_inventor_has_false_ones_and_the_ideal_is_as_hr():
    hr = make_head()
    with_lesions, _, lesions = insert_lesions(Volume("head", hr, np.diag([2.0, 2, 2, 1]), {}))
    truth, random = with_lesions - hr, np.random.default_rng(1)

    def add_noise(volume):
        return volume + random.normal(0, 8, volume.shape).astype(np.float32)

    pairs = {
        "HR": (add_noise(with_lesions), add_noise(hr)),
        "ideal": (add_noise(with_lesions), add_noise(hr)),
        "half": (add_noise(hr + truth / 2), add_noise(hr)),
        "remover": (add_noise(hr), add_noise(hr)),
        "inventor": (add_noise(with_lesions), add_noise(with_lesions)),
    }
    rows = [row for row in compare_detection(pairs, lesions, truth, SPACING) if row["diameter_mm"] > 4]

    def average(name, column):
        return np.mean([row[column] for row in rows if row["result"] == name])

    expected = {"HR": (0.95, 1, 0, 0.1, 1), "ideal": (0.95, 1, 0, 0.1, 1), "half": (0.9, 1, 0, 0.4, 0.5)}
    for name, (auc, most, lost, most_lost, recovered) in expected.items():
        assert auc <= average(name, "auc") <= most and lost <= average(name, "lost") <= most_lost
        assert average(name, "recovered") == pytest.approx(recovered, abs=0.05)
        assert average(name, "false") == pytest.approx(1, abs=1)
    assert average("remover", "auc") == pytest.approx(0.5, abs=0.15) and average("remover", "lost") > 0.85
    assert average("remover", "recovered") == pytest.approx(0, abs=0.05)
    # It puts lesions of all kinds everywhere; a quarter of them are of the kind that is looked for, or larger.
    assert average("inventor", "false") > 3 and average("inventor", "lost") > 0.5


@pytest.fixture
def head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Slices along the first axis, one more than factors divide, and a mirrored axis.
    stored = np.pad(make_head(), [(0, 0), (0, 0), (0, 1)]).transpose(2, 0, 1)[:, ::-1]
    affine = np.array([[0.0, -2, 0, 104], [0, 0, 2, -20], [2, 0, 0, 30], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(stored, affine), "head.nii.gz")
    return np.array([[2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])


def read_rows(folder="judged"):
    with open(f"{folder}/inserted_lesions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_results_of_another_tool_are_judged_on_the_scans_that_a_run_before_wrote(head):
    options = ["--insert_lesions", "head.nii.gz", "--scale", "[2,1,1]", "--noise", "0.01"]
    assert not judge(*options, "--bundle", "cubic")
    assert {row["result"] for row in read_rows()} == {"HR", "cubic"}
    for kind in ("with", "without"):  # a tool that repeats each slice
        scan = nib.load(f"judged/head_{kind}_lesions.nii.gz")
        assert scan.affine[2] == pytest.approx([0, 0, 4, 31]) and scan.shape == (48, 48, 24)
        nib.save(nib.Nifti1Image(np.repeat(scan.get_fdata(), 2, axis=2).astype(np.float32), head), f"{kind}.nii.gz")
    assert nib.load("judged/head_inserted.nii.gz").get_fdata().max() >= 32
    assert not judge("with.nii.gz", "without.nii.gz", *options, "--output_dir", "theirs")
    rows = read_rows("theirs")
    assert rows[:2] == read_rows()[:2]  # HR and cubic, from the same scans
    recovered = [float(row["recovered"]) for row in rows if row["result"] == "with.nii.gz"]
    assert 0.2 < recovered[0] < recovered[-1] < 1.05
    for names, reason in {
        ("without.nii.gz", "with.nii.gz"): "name the result with lesions first",
        ("with.nii.gz",): "expected pairs",
        ("with.nii.gz", "judged/head_without_lesions.nii.gz"): "does not lie on the grid of",
    }.items():
        assert reason in judge(*names, *options, "--output_dir", "refused")


def test_the_weights_that_fit_restore_the_scans(head):
    assert not judge("--insert_lesions", "head.nii.gz", "--scale", "[1,2,2]", "--bundle", "udean_window")
    rows = read_rows()
    assert {row["result"] for row in rows} == {"HR", "cubic", "udean_window 2x2x1"}
    assert nib.load("judged/head_with_lesions_sr.nii.gz").shape == (48, 48, 49)


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--insert_lesions", "head.nii.gz"], "--scale is None"),
        (["--insert_lesions", "head.nii.gz", "--scale", "[1,1,1]"], "--scale is [1, 1, 1]"),
        (["--insert_lesions", "head.nii.gz", "--scale", "[2,2,2]", "--noise", "3"], "--noise is 3"),
        (["--insert_lesions", "head.nii.gz", "--scale", "[2,2,2]", "--hr", "head.nii.gz"], "goes without --hr"),
        (["head.nii.gz", "--noise", "0.1"], "that is for --insert_lesions"),
        (["--insert_lesions", "head.nii.gz", "--scale", "[7,7,7]"], "There are weights for"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(head, words, reason):
    assert reason in judge(*words)


def test_too_little_tissue_is_refused_by_name(head):
    nib.save(nib.load("head.nii.gz").slicer[:20, :20, :20], "small.nii.gz")
    message = judge("--insert_lesions", "small.nii.gz", "--scale", "[2,2,2]", "--bundle", "cubic")
    assert "small.nii.gz: found" in message
