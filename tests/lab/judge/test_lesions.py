"""``judge --lesions``: which lesions stay, by results whose truth is known."""

import csv

import nibabel as nib
import numpy as np
import pytest

from common.__main__ import main
from tests.transforms.grids import stored_as

SITES = [(10, 10, 20), (10, 30, 20), (30, 10, 20), (30, 30, 20)]


def make_exam(folder):
    """Scan, HR, mask, and results that keep all lesions, lose one, and halve all. Air, then tissue of 100."""
    at = np.indices((40, 40, 40))
    random = np.random.default_rng(0)
    balls = [np.sqrt(sum((a - s) ** 2 for a, s in zip(at, site, strict=True))) <= 4 for site in SITES]
    tissue = np.where(at[2] < 8, 0.0, 100.0) + random.normal(0, 1, at[0].shape)
    tissue += 20 * (at[0] < 3) + 10 * (at[1] < 3)  # other classes of tissue
    hr = tissue + 30 * sum(balls)
    affine = np.diag([1.0, 1, 1, 1])
    lost, halved = hr - 30 * balls[1], tissue + 15 * sum(balls)
    # Mirrored axes and half the voxels: the mask lies on a grid of its own.
    mask = np.any(balls, axis=0)[::-1, :, ::2].astype(np.uint8)
    mask_affine = np.diag([-1.0, 1, 2, 1])
    mask_affine[0, 3] = 39
    volumes = {"hr": hr, "kept_sr": hr + random.normal(0, 0.3, hr.shape), "lost_sr": lost, "halved_sr": halved}
    for name, voxels in volumes.items():
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(hr[:, :, ::2].astype(np.float32), np.diag([1.0, 1, 2, 1])), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(mask, mask_affine), folder / "mask.nii.gz")
    mask_affine[:3, 3] += 400
    nib.save(nib.Nifti1Image(mask, mask_affine), folder / "elsewhere.nii.gz")
    nib.save(nib.Nifti1Image(0 * mask, mask_affine), folder / "empty.nii.gz")


def judge(*words):
    """Run the command, and return what it exits with: the message of an error, else nothing."""
    try:
        main(["judge", *words])
    except SystemExit as end:
        return end.code
    return None


def test_a_lesion_that_was_taken_out_is_lost_and_the_others_keep_contrast_and_volume(tmp_path, monkeypatch):
    make_exam(tmp_path)
    monkeypatch.chdir(tmp_path)
    results = [f"{name}_sr.nii.gz" for name in ("kept", "lost", "halved")]
    assert not judge(*results, "--scan", "scan.nii.gz", "--hr", "hr.nii.gz", "--lesions", "mask.nii.gz")
    with open("judged/lesions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    each = {(row["result"], row["lesion"]): row for row in rows}
    assert [row["lesion"] for row in rows if row["result"] == "scan"] == ["1", "2", "3", "4", "4 of 4"]
    for name, ratio in (("kept", 1), ("halved", 0.5)):
        row = each[f"{name}_sr.nii.gz", "4 of 4"]
        assert float(row["contrast_ratio"]) == pytest.approx(ratio, abs=0.03) and row["lost"] == "0"
        assert float(row["volume_ratio"]) == pytest.approx(1, abs=0.05)
    lost = [row["lost"] for row in rows if row["result"] == "lost_sr.nii.gz"]
    assert sorted(lost[:4]) == ["0", "0", "0", "1"] and lost[4] == "1"
    assert not judge("kept_sr.nii.gz", "--hr", "lost_sr.nii.gz", "--lesions", "mask.nii.gz", "--output_dir", "put_in")
    with open("put_in/lesions.csv", newline="") as file:
        false = [row["false"] for row in csv.DictReader(file) if row["result"] == "kept_sr.nii.gz"]
    assert sorted(false) == ["", "", "", "1", "1"]
    contrasts = [float(each["scan", str(n)]["contrast_percent"]) for n in (1, 2, 3, 4)]
    assert contrasts == pytest.approx([30] * 4, abs=1)
    assert float(each["HR", "1"]["diameter_mm"]) == pytest.approx(8, rel=0.05)
    assert list((tmp_path / "judged").glob("*_lesions.png"))


@pytest.mark.parametrize("mask, reason", [("empty", "is empty"), ("elsewhere", "no voxel above 0 lies on")])
def test_a_mask_that_shows_nothing_here_is_refused_by_name(tmp_path, monkeypatch, mask, reason):
    make_exam(tmp_path)
    monkeypatch.chdir(tmp_path)
    message = judge("kept_sr.nii.gz", "--hr", "hr.nii.gz", "--lesions", f"{mask}.nii.gz")
    assert f"--lesions {mask}.nii.gz" in message and reason in message
    assert not (tmp_path / "judged").exists()


def test_labels_stay_what_they_are_and_a_lesion_beyond_the_volume_is_listed_without_values(tmp_path, monkeypatch):
    make_exam(tmp_path)
    monkeypatch.chdir(tmp_path)
    labels = np.zeros((40, 40, 60), np.uint8)
    for number, (x, y, z) in {7: SITES[0], 9: (10, 10, 55)}.items():
        labels[x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3] = number
    labels[28:33, 8:13, 21] = 11  # between two slices of the scan
    nib.save(nib.Nifti1Image(labels, np.eye(4)), "labels.nii.gz")
    message = judge("kept_sr.nii.gz", "--lesions", "labels.nii.gz")
    assert "labels.nii.gz" in message and "give --scan or --hr" in message
    assert not judge("kept_sr.nii.gz", "--scan", "scan.nii.gz", "--lesions", "labels.nii.gz")
    with open("judged/lesions.csv", newline="") as file:
        rows = {(row["result"], row["lesion"]): row for row in csv.DictReader(file)}
    own = {lesion: row for (result, lesion), row in rows.items() if result == "kept_sr.nii.gz"}
    assert list(own) == ["7", "9", "11", "2 of 3"]
    assert own["7"]["lost"] == "0" and own["9"]["contrast_percent"] == own["9"]["lost"] == ""
    assert rows["cubic", "11"]["lost"] == rows["scan", "11"]["lost"] == "0", "what cubic keeps, the scan has"


@pytest.mark.parametrize("codes", ["LPS", "SRA", "IPL"])
def test_a_mask_lies_where_it_lies_in_any_order_of_storage(tmp_path, monkeypatch, codes):
    """Half a voxel from the results' grid, where each of their voxels shares those of the mask alike."""
    make_exam(tmp_path)
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((40, 40, 40), np.uint8)
    for number, (x, y, z) in enumerate(SITES, 1):
        mask[x - 2 : x + 4, y - 3 : y + 3, z - 2 : z + 3] = number
    mask[22, 22, 22] = 9  # smaller than a voxel of the scan
    affine = np.eye(4)
    affine[:3, 3] = 0.5
    image = nib.Nifti1Image(mask, affine)
    nib.save(image, "plain.nii.gz")
    nib.save(stored_as(image, codes), "turned.nii.gz")
    tables = []
    for name in ("plain", "turned"):
        words = "--scan", "scan.nii.gz", "--hr", "hr.nii.gz", "--lesions", f"{name}.nii.gz", "--output_dir", name
        assert not judge("kept_sr.nii.gz", *words)
        with open(f"{name}/lesions.csv", newline="") as file:
            tables.append([[row["result"], row["lesion"], row["contrast_percent"]] for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    assert all(contrast for _, lesion, contrast in tables[0] if "of" not in lesion)
