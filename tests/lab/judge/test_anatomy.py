"""Volumes and places of the brain's tissues, and of a user's own regions."""

import csv
import sys

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from scipy.ndimage import affine_transform

from common.__main__ import main
from common.lab.judge import segmentation
from common.lab.judge.anatomy import draw_bland_altman
from common.lab.judge.person import Person
from common.lab.judge.segmentation import TISSUES, classify_brightness, name_tissues, order_tissues, segment_brain
from common.program.commands.judge import judge
from common.program.volume import Volume

from ...bundles.runs import save
from ...refused import refused

SHRUNK = 0.98  # of the volume


def make_ball(size: int, radius: float) -> np.ndarray:
    """A ball of label 7 with a core of label 9 of half its radius, 48 mm across its field of view."""
    at = (np.arange(size) + 0.5) * 48 / size - 24
    distance = np.sqrt(sum(x**2 for x in np.meshgrid(at, at, at, indexing="ij")))
    return np.where(distance < radius / 2, 9, np.where(distance < radius, 7, 0)).astype(np.int16)


@pytest.fixture
def files(tmp_path):
    """HR, its scan with voxels twice as large, and a result, with label maps of them; all named x."""
    radius = 18.0
    balls = {"hr": (48, radius), "scan": (24, radius), "result": (48, radius * SHRUNK ** (1 / 3))}
    fine = np.diag([1.0, 1, 1, 1])
    coarse = np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1.0]])
    texture = np.random.default_rng(0).random((24, 24, 24)) + 1
    for name, (size, r) in balls.items():
        (tmp_path / name).mkdir()
        labels, affine = make_ball(size, r), coarse if size == 24 else fine
        voxels = np.kron(texture, np.ones((2, 2, 2))) if size == 48 else texture
        save(tmp_path / name / "x.nii.gz", (voxels * (labels > 0)).astype(np.float32), affine)
        save(tmp_path / f"{name}_labels.nii.gz", labels, affine)
    return {name: str(tmp_path / name / "x.nii.gz") for name in balls} | {
        "labels": f"{tmp_path}/{{folder}}_labels.nii.gz"
    }


def read(folder) -> dict[tuple[str, str], dict[str, str]]:
    """The lines of a table by result and region."""
    with (folder / "anatomy.csv").open(newline="") as table:
        return {(row["result"], row["region"]): row for row in csv.DictReader(table)}


def test_regions_of_a_user_show_how_much_they_shrank(files, tmp_path):
    out = tmp_path / "out"
    options = [f"--{name}={files[name]}" for name in ("scan", "hr", "labels")]
    main(["judge", files["result"], *options, "--output_dir", str(out), "--report"])
    rows = read(out)
    assert {result for result, _ in rows} == {"HR", "scan", "x.nii.gz"}  # cubic has no file
    maps = {name: np.asarray(nib.load(tmp_path / f"{name}_labels.nii.gz").dataobj) for name in ("hr", "scan", "result")}
    for region, is_in in (("7", lambda m: m == 7), ("9", lambda m: m == 9), ("all labels", lambda m: m > 0)):
        found, scan = rows["x.nii.gz", region], rows["scan", region]
        hr, sr = is_in(maps["hr"]), is_in(maps["result"])
        assert float(scan["ml"]) == pytest.approx(8e-3 * is_in(maps["scan"]).sum(), rel=1e-3)
        assert float(found["bias_ml"]) == pytest.approx(1e-3 * (sr.sum() - float(hr.sum())), rel=1e-3)
        assert float(found["dice"]) == pytest.approx(2 * (hr & sr).sum() / (hr.sum() + sr.sum()), rel=1e-3)
        assert found["against"] == "HR" and float(found["hd95_mm"]) <= 1.0 and not scan["dice"]
    assert float(rows["x.nii.gz", "all labels"]["bias_percent"]) == pytest.approx(-2, abs=0.5)
    assert (out / "anatomy.png").is_file() and "anatomy_x" in (out / "judge.html").read_text()
    judge(files["result"], scan=files["scan"], labels=files["labels"], output_dir=str(tmp_path / "alone"))
    assert read(tmp_path / "alone")["x.nii.gz", "7"]["against"] == "scan"


def test_a_command_segments_all_volumes_and_its_failure_is_told(files, tmp_path):
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import sys, nibabel as nib, numpy as np\nimage = nib.load(sys.argv[1])\n"
        "nib.save(nib.Nifti1Image((image.get_fdata() > 0.5).astype('int16'), image.affine), sys.argv[2])\n"
    )
    out = tmp_path / "out"
    given = {"scan": files["scan"], "hr": files["hr"]}
    judge(files["result"], **given, labels=f"{sys.executable} {tool} {{input}} {{output}}", output_dir=str(out))
    assert {result for result, _ in read(out)} == {"HR", "scan", "cubic", "x.nii.gz"}
    tool.write_text("import sys; sys.exit('no licence')")
    other = str(tmp_path / "other")

    def refuse(labels: str, *words: str) -> None:
        refused(lambda: judge(files["result"], **given, labels=labels, output_dir=other), ValueError, *words)
        assert not (tmp_path / "other").exists()

    refuse(f"{sys.executable} {tool} {{input}} {{output}}", "no licence", "code 1", files["hr"])
    refuse("nosuchtool {input} {output}", "nosuchtool", "cannot be started")
    refuse(f"{sys.executable} -c 0 {{input}} {{output}}", "without a file")
    refuse("labels.nii.gz", "{name}", "{input}")
    refuse(f"{tmp_path}/{{name}}_no.nii.gz", "no file of labels", files["result"], "_no.nii.gz.")
    save(tmp_path / "result_labels.nii.gz", make_ball(24, 18), np.eye(4))
    refuse(files["labels"], "grid", "result_labels.nii.gz", files["result"])


def test_regions_of_a_person_are_those_of_the_labels_on_the_grid_of_the_results(files, tmp_path):
    hr, scan, result = (Volume.read(files[name], name) for name in ("hr", "scan", "result"))
    truth = make_ball(48, 18)
    regions = Person("x", [result], scan=scan, hr=hr, labels=files["labels"]).regions
    assert list(regions) == ["7", "9"] and all((mask == (truth == int(name))).all() for name, mask in regions.items())
    (tmp_path / "hr_labels.nii.gz").unlink()
    coarse = Person("x", [result], scan=scan, hr=hr, labels=files["labels"]).regions["9"]
    assert (coarse != (truth == 9)).sum() < 0.15 * coarse.sum()  # of a ball of 9 voxels


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (1, 3, 2)])  # T1w, T2w, FLAIR
def test_tissues_are_told_by_their_place(order):
    """CSF around grey matter, around white matter, around ventricles."""
    distance = np.sqrt(sum(x**2 for x in np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij")))
    tissues = np.select([distance < 5, distance < 13, distance < 17, distance < 19], [1, 3, 2, 1], 0)
    classes = np.array([0, *order])[tissues]
    assert order_tissues(classes, np.diag([3, 3, 3, 1])) == order
    assert (name_tissues(classes, order) == tissues).all()


def test_fine_voxels_are_segmented_at_1_mm(monkeypatch):
    """The volume lies where it lay, without the waves that 1 mm cannot hold; others stay as they are."""

    def sample(size, spacing) -> Volume:
        affine = np.diag([-spacing, spacing, 2.0, 1])
        affine[:2, 3] = [-spacing / 2, spacing / 2]  # the same first corner
        at = affine[:3, :3] @ np.indices((size, size, 10)).reshape(3, -1) + affine[:3, 3:]
        smooth, fine = np.sin(at / 4).sum(axis=0), np.cos(np.pi * at[0] / 0.5)
        return Volume("x", (smooth + (spacing < 1) * fine).reshape(size, size, 10).astype(np.float32), affine, {})

    fine, expected = sample(60, 0.5), sample(30, 1.0)
    seen = []
    monkeypatch.setattr(segmentation, "segment_brain", lambda voxels, affine: seen.append(voxels) or voxels > 0)
    monkeypatch.setattr(segmentation, "classify_brightness", lambda voxels, brain: (brain + 1, np.array([1.0, 2, 3])))
    found = segmentation.Segmenter(None, fine).segment(fine)
    assert found.labels.shape == (30, 30, 10) and found.volume.is_on_grid_of(expected)
    assert found.measure("csf") + found.measure("grey matter") + found.measure("white matter") == pytest.approx(12e-3)
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(seen[0][inner], expected.voxels[inner], atol=0.06)
    coarse = segmentation.Segmenter(None, expected).segment(expected)
    assert coarse.volume is expected and seen[1] is expected.voxels


def test_a_brain_that_shrank_shows_it(tmp_path):
    """By 2 %: as the same voxels of a smaller size exactly, resampled within what segmentation repeats."""
    image = load_mni152_template(resolution=2)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    scale, centre = SHRUNK ** (-1 / 3), (np.array(voxels.shape) - 1) / 2
    small = affine_transform(voxels, np.full(3, scale), centre - scale * centre, order=1)
    hr, sr = (str(save(tmp_path / name, each, image.affine)) for name, each in (("hr.nii", voxels), ("sr.nii", small)))
    judge(sr, hr=hr, anatomy=True, output_dir=str(tmp_path / "out"))
    rows = read(tmp_path / "out")
    assert {region for _, region in rows} == {"brain", *TISSUES}
    assert float(rows["sr.nii", "brain"]["bias_percent"]) == pytest.approx(-2, abs=0.9)
    assert 1200 < float(rows["HR", "brain"]["ml"]) < 2200 and float(rows["sr.nii", "brain"]["dice"]) > 0.97
    smaller = image.affine @ np.diag([1 / scale] * 3 + [1])
    labels = []
    for affine in (image.affine, smaller):
        classes, _ = classify_brightness(voxels, segment_brain(voxels, affine))
        labels.append(name_tissues(classes, order_tissues(classes, affine)))
    for region, number in TISSUES.items():
        count, smaller_count = (int((each == number).sum()) for each in labels)
        assert smaller_count == pytest.approx(count, rel=1e-3)
        ml = count * abs(np.linalg.det(image.affine)) / 1000
        assert float(rows["HR", region]["ml"]) == pytest.approx(ml, rel=0.3), "voxels at a border count in part"
    parts = sum(float(rows["HR", region]["ml"]) for region in TISSUES)
    assert parts == pytest.approx(float(rows["HR", "brain"]["ml"]), rel=1e-3)


def test_without_the_extra_the_error_says_what_to_install(files, tmp_path, monkeypatch):
    monkeypatch.setattr("common.lab.judge.segmentation.find_spec", lambda package: None)
    out = tmp_path / "out"
    refused(lambda: judge("no.nii", anatomy=True, output_dir=str(out)), ModuleNotFoundError, "'.[judge]'", "--labels")
    judge(files["result"], hr=files["hr"], anatomy=True, labels=files["labels"], output_dir=str(out))  # needs no extra


def test_bland_and_altman():
    pairs = [(99.0, 100.0), (103.0, 101.0), (98.0, 102.0)]
    figure = draw_bland_altman({"brain": {"cubic": pairs, "result": pairs[:1]}}, "ml", "HR")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["cubic: -1 ± 5.9", "result: -1"]  # differences -1, 2, -4: standard deviation 3
    assert sorted(axes.collections[0].get_offsets().tolist()) == [[99.5, -1.0], [100.0, -4.0], [102.0, 2.0]]
