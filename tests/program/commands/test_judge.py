"""``python -m common judge``: what it refuses, several persons, and that nothing partial is left."""

import csv
import json
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter

from common.__main__ import main
from common.degradations import KSpaceTruncation
from common.lab.judge.inputs import read_person
from common.metrics.volume import compute_psnr, find_score_range, scale_to_range
from common.program.cases.inputs import describe_file
from common.program.commands.judge import judge
from common.program.dicom.search import find_series
from common.program.dicom.series import write_nifti
from common.runtime.errors import Notice, RunsFailedError

from ...bundles.runs import OBLIQUE, degrade, save
from ...clients.dicom import Series
from ...refused import refused

SHAPE = (48, 44, 40)


def make_head(seed: int) -> np.ndarray:
    """An ellipsoid with a texture of its own."""
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.5)
    inside = sum(x**2 for x in np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")) < 2
    return (inside * (400 + 400 * texture / texture.std()).clip(0)).astype(np.float32)


def write_person(folder, seed: int) -> dict[str, str]:
    """HR, its truncated scan, and nearly HR as a result."""
    folder.mkdir()
    hr = make_head(seed)
    return {
        "hr": str(save(folder / "hr.nii.gz", hr, OBLIQUE)),
        "scan": str(save(folder / "scan.nii.gz", *degrade(hr, OBLIQUE, KSpaceTruncation((2, 2, 2))))),
        "result": str(save(folder / "scan_sr.nii.gz", hr + np.random.default_rng(9).normal(0, 2, SHAPE), OBLIQUE)),
    }


@pytest.fixture
def persons(tmp_path):
    return [write_person(tmp_path / name, seed) for seed, name in enumerate("ab")]


def test_files_that_do_not_belong_together_are_refused_by_name(persons, tmp_path):
    (own, other), out = persons, str(tmp_path / "out")
    image = nib.load(own["hr"])
    shifted = str(save(tmp_path / "shifted.nii.gz", np.asarray(image.dataobj), OBLIQUE + 20 * np.eye(4, k=3)))
    empty = str(save(tmp_path / "empty.nii.gz", np.zeros(SHAPE), OBLIQUE))
    for given, words in (
        ({"scan": other["scan"]}, ("--scan", other["scan"], own["result"], "correlation")),
        ({"hr": other["hr"]}, ("--hr", other["hr"], "correlation")),
        ({"hr": shifted}, ("--hr", shifted, "beyond its field of view", "in the tissue of")),
        ({"hr": own["scan"]}, ("--hr", own["scan"], "voxels of", "expected the same", "--grid_file")),
        ({"scan": shifted}, ("--scan", shifted, "does not lie on")),
        ({"hr": empty}, ("--hr", empty, "empty")),
        ({}, ("--scan", "--hr")),
        ({"scan": own["result"]}, ("--scan", "the same volume")),
        ({"hr": own["result"]}, ("--hr", "the same volume")),
        ({"left_out": own["result"]}, ("--left_out", "the same volume")),
        ({"hr": own["hr"], "interval": own["result"]}, ("--interval", "the same volume")),
        ({"repeated": f"{own['scan']},{own['scan']}"}, ("--repeated",)),
        ({"scan": own["scan"], "region": own["hr"]}, ("--region", "--hr")),
        ({"scan": own["scan"], "lpips": "nothing.pth"}, ("--lpips", "--hr")),
    ):
        refused(lambda given=given: judge(own["result"], output_dir=out, **given), ValueError, *words)
    refused(lambda: judge(own["result"], hr="nothing.nii.gz", output_dir=out), FileNotFoundError, "--hr nothing.nii.gz")
    refused(lambda: judge(hr=own["hr"], output_dir=out), ValueError, "no result")
    refused(lambda: judge(own["result"], hr=own["hr"], output_dir=str(tmp_path)), FileExistsError, "--overwrite")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("role", ["result", "hr", "scan"])
def test_what_is_not_finite_is_counted_and_refused_in_tissue(persons, tmp_path, role):
    own, value = persons[0], {"result": np.nan, "hr": np.inf, "scan": -np.inf}[role]
    image = nib.load(own[role])
    for corner, n in ((0, 2), (10, 3)):  # in air, and in the head
        voxels = np.asarray(image.dataobj).astype(np.float32)
        voxels[(slice(corner, corner + n),) * 3] = value
        given = own | {role: str(save(tmp_path / "lost.nii.gz", voxels, image.affine))}
        words = [given[role], f"{n**3} of {voxels.size} voxels are NaN or infinite"]
        out = str(tmp_path / f"out{corner}")
        run = partial(judge, given["result"], hr=given["hr"], scan=given["scan"], output_dir=out)
        if corner:
            refused(run, ValueError, *words)
        else:
            with pytest.warns(UserWarning) as caught:
                run()
            assert any(all(word in str(each.message) for word in [*words, "count as 0"]) for each in caught)


def resample(voxels, affine, target, order=5) -> np.ndarray:
    """A volume on HR's number of voxels with another affine, by scipy."""
    places = np.linalg.inv(affine) @ target
    moved = affine_transform(voxels, places[:3, :3], places[:3, 3], SHAPE, order=order, mode="nearest")
    return moved.astype(np.float32)


def read(folder, table: str) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of a table by result, and region if there are several."""
    with (folder / f"{table}.csv").open(newline="") as file:
        return {(row["result"], row.get("region", "")): row for row in csv.DictReader(file)}


def test_hr_on_a_shifted_grid_in_another_order_of_axes_is_resampled_and_the_shift_is_named(persons, tmp_path):
    own, _ = persons
    hr = np.asarray(nib.load(own["hr"]).dataobj)
    judge(own["result"], hr=own["hr"], output_dir=str(tmp_path / "same"))
    target = OBLIQUE @ np.array([[1, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 1, -0.5], [0, 0, 0, 1]])
    shifted = str(save(tmp_path / "shifted.nii.gz", resample(hr, OBLIQUE, target), target, axes="SLP"))
    with pytest.warns(Notice, match=r"shifted\.nii\.gz lie (-?0\.5,? ){3}voxels .* from those of .*scan_sr"):
        judge(own["result"], hr=shifted, output_dir=str(tmp_path / "out"))
    same, found = (float(read(tmp_path / name, "scores")["scan_sr.nii.gz", ""]["psnr"]) for name in ("same", "out"))
    assert same > 50 and found > 35


@pytest.mark.parametrize("kind", ["shifted", "turned", "beyond"])
def test_a_result_on_a_grid_of_its_own_is_judged_against_its_scan(persons, tmp_path, kind):
    """As --grid_file makes it: what it added is what it added on the grid of the weights."""
    own, _ = persons
    hr, result = (np.asarray(nib.load(own[name]).dataobj) for name in ("hr", "result"))
    turn = np.eye(4)
    if kind == "turned":
        turn[:2, :2] = [[0.9995, -0.03], [0.03, 0.9995]]
    target = OBLIQUE @ turn
    target[:3, 3] = (OBLIQUE @ [-0.5, -0.5, -6.5 if kind == "beyond" else -0.5, 1])[:3]
    empty = (..., slice(5 if kind == "beyond" else 0))  # where the result is 0, since the scan has ended
    truth = str(save(tmp_path / "truth.nii.gz", resample(hr, OBLIQUE, target), target))
    resampled = resample(result, OBLIQUE, target)
    resampled[empty] = 0
    moved = str(save(tmp_path / "moved_sr.nii.gz", resampled, target))
    known = {"Degradation": {"Class": "KSpaceTruncation", "factors": [2, 2, 2]}}
    record = known | {"Inputs": [describe_file(own["scan"])]}
    (tmp_path / "moved_sr.json").write_text(json.dumps({"SuperResolution": known}))
    words = "which does not lead to" if kind == "shifted" else "does not lie on"
    refused(lambda: judge(moved, scan=own["scan"]), ValueError, f"{words} --scan", own["scan"])
    (tmp_path / "moved_sr.json").write_text(json.dumps({"SuperResolution": record}))
    judge(own["result"], scan=own["scan"], hr=own["hr"], output_dir=str(tmp_path / "same"))
    judge(moved, scan=own["scan"], hr=truth, output_dir=str(tmp_path / "out"))
    scan, low, high = nib.load(own["scan"]), *find_score_range(nib.load(truth).get_fdata())
    cubic = resample(np.asarray(scan.dataobj), scan.affine, target, 3)
    cubic[empty] = 0
    expected = compute_psnr(*(scale_to_range(each, low, high) for each in (cubic, nib.load(truth).get_fdata())))
    assert float(read(tmp_path / "out", "scores")["cubic", ""]["psnr"]) == pytest.approx(expected, abs=0.01)
    expected, found = (read(tmp_path / name, "added") for name in ("same", "out"))
    for name in ("HR", "cubic"):
        assert float(found[name, "all"]["added"]) == pytest.approx(float(expected[name, "all"]["added"]), rel=0.25)
    assert float(found["moved_sr.nii.gz", "all"]["correlation"]) > 0.9
    assert nib.load(tmp_path / "out" / "moved_sr_added.nii.gz").shape == SHAPE


def test_a_result_of_another_scan_is_refused_by_its_json(persons, tmp_path):
    own, _ = persons
    image, inputs = nib.load(own["scan"]), [{"File": "first.nii.gz", "Sha256": "0"}]
    copy = str(save(tmp_path / "copy.nii.gz", 2 * np.asarray(image.dataobj), image.affine))
    (tmp_path / "a" / "scan_sr.json").write_text(json.dumps({"SuperResolution": {"Inputs": inputs}}))
    refused(lambda: judge(own["result"], scan=copy), ValueError, "first.nii.gz", copy)


def test_one_person_that_fails_does_not_stop_the_others(persons, tmp_path, monkeypatch):
    def read(results, options, name):
        return read_person(*({}[name] if name == "worse" else (results, options, name)))

    monkeypatch.setattr("common.lab.judge.inputs.read_person", read)
    table = tmp_path / "cases.csv"
    table.write_text(
        "person,results,scan,hr\nfirst,a/scan_sr.nii.gz,a/scan.nii.gz,a/hr.nii.gz\n"
        "wrong,a/scan_sr.nii.gz,b/scan.nii.gz,\nworse,a/scan_sr.nii.gz,a/scan.nii.gz,\nsecond,b/scan_sr.nii.gz;b/hr.nii.gz,b/scan.nii.gz,\n"
    )
    out = tmp_path / "out"
    with pytest.raises(RunsFailedError, match=r"2 of 4 persons.*\n.*wrong.*scan\.nii\.gz.*\n.*worse: KeyError"):
        judge(cases=str(table), output_dir=str(out), report=True)
    with (out / "scores.csv").open(newline="") as file:
        assert {row["person"] for row in csv.DictReader(file)} == {"first"}
    with (out / "added.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["person"], row["result"]) for row in rows} >= {("first", "scan_sr.nii.gz"), ("second", "hr.nii.gz")}
    of_hr = [float(row["added"]) for row in rows if row["method"] == "result 1" and row["region"] == "all"]
    *_, mean, deviation = of_hr
    assert mean == pytest.approx(np.mean(of_hr[:2]), rel=1e-3)
    assert deviation == pytest.approx(np.std(of_hr[:2], ddof=1), rel=1e-2)
    assert not [path for path in out.iterdir() if "wrong" in path.name or path.name.startswith(".")]
    page = (out / "judge.html").read_text()
    assert "first" in page and "data:image/png" in page and "http" not in page


def test_a_person_whose_pictures_cannot_be_written_leaves_no_rows(persons, tmp_path, monkeypatch):
    def save(writer, table, name, figure):
        if name.startswith("first"):
            raise OSError("no space left")

    monkeypatch.setattr("common.lab.judge.output.JudgementWriter._save", save)
    table = tmp_path / "cases.csv"
    table.write_text(
        "person,results,scan\nfirst,a/scan_sr.nii.gz,a/scan.nii.gz\nsecond,b/scan_sr.nii.gz,b/scan.nii.gz\n"
    )
    with pytest.raises(RunsFailedError, match=r"1 of 2 persons.*\n.*first: no space left"):
        judge(cases=str(table), output_dir=str(tmp_path / "o"))
    for name in ("verdict", "added"):
        with (tmp_path / "o" / f"{name}.csv").open(newline="") as file:
            assert {row["person"] for row in csv.DictReader(file)} == {"second"}, name


def test_a_list_of_persons_is_checked_before_anything_is_computed(persons, tmp_path, monkeypatch):
    monkeypatch.setattr("common.lab.judge.inputs.read_person", lambda *_: pytest.fail("it computes"))
    table = tmp_path / "cases.csv"
    judge_all = partial(judge, cases=str(table), output_dir=str(tmp_path / "o"))
    table.write_text(
        "person,results,scan,region,anatomy\none,a/scan_sr.nii.gz;a/none.nii.gz,a/scan.nii.gz,,\n\n"
        "two,a/scan_sr.nii.gz,,,\nthree,a/scan_sr.nii.gz,a/scan.nii.gz,a/hr.nii.gz,\n,a/scan_sr.nii.gz,,,\n"
        "five,a/scan_sr.nii.gz,a/scan.nii.gz,,perhaps\n6,a/hr.nii.gz,a/scan.nii.gz,,\n7,a/hr.nii.gz,a/scan.nii.gz,,\n"
    )
    problems = refused(judge_all, ValueError, table).splitlines()[1:]
    for problem, words in zip(
        problems,
        [("line 2", "results", "none.nii.gz"), ("line 4", "--scan"), ("line 5", "--left_out"), ("line 6", "person"),
         ("line 7", "perhaps"), ("line 9", "those of 6")],
        strict=True,
    ):  # fmt: skip
        assert all(word in problem for word in words), problem
    with pytest.raises(SystemExit) as ended:
        main(["judge", "--cases", str(table), "--output_dir", str(tmp_path / "o")])
    assert ended.value.code not in (0, None) and not (tmp_path / "o").exists()


def test_a_dicom_series_is_named_as_its_files_would_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Series().save(tmp_path / "1.2.3")
    write_nifti(find_series(tmp_path / "1.2.3")[0], tmp_path / "copy.nii.gz")
    image = nib.load("copy.nii.gz")
    save(tmp_path / "hr.nii.gz", np.asarray(image.dataobj) * np.linspace(0.98, 1.02, image.shape[2]), image.affine)
    judge("1.2.3", hr="hr.nii.gz", output_dir="out")
    (name,) = {find_series(tmp_path / "1.2.3")[0].stem}
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        assert [(row["person"], row["result"]) for row in csv.DictReader(file)] == [(name, name)]
