"""Scans and guides are found, paired by subject, and named where they cannot be; results are no scans."""

import gzip
from functools import partial

import nibabel as nib
import numpy as np

from common.program.exams.partners import find_paired_scans as find_scans
from tests.refused import has, refused

PACKED = {".nii": bytes, ".gz": gzip.compress}


def touch(root, *names):
    """Write files, of which no two scans have the same voxels."""
    for name in names:
        voxels = np.random.default_rng([*name.encode()]).integers(0, 1000, (3, 3, 3), np.int16)
        scan = nib.Nifti1Image(voxels, np.eye(4)).to_bytes()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PACKED.get((root / name).suffix, lambda scan: b"")(scan))


def images(root):
    return {entry["name"]: entry["image"].removeprefix(f"{root}/") for entry in find_scans(str(root))}


def pairs(root, *patterns, **options):
    """The entries of pairs, with their problems, if any."""
    found = find_scans(str(root), *patterns, **options)
    entries = [case.entry | ({"problem": case.problem} if case.problem else {}) for case in found]
    return [{key: value.removeprefix(f"{root}/") for key, value in entry.items()} for entry in entries]


def test_images_are_found_in_a_folder_and_below_in_order(tmp_path, capsys):
    touch(tmp_path, "b.nii", "sub/a.nii.gz", "sub/C.NII.GZ", ".hidden.nii", ".git/d.nii", "notes.txt", "c.nii.bak")
    assert list(images(tmp_path).items()) == [("b", "b.nii"), ("C", "sub/C.NII.GZ"), ("a", "sub/a.nii.gz")]
    touch(tmp_path, "study.ZIP", "sub/dicom.tar.gz")
    images(tmp_path)
    has(capsys.readouterr().out, tmp_path / "study.ZIP", tmp_path / "sub/dicom.tar.gz")
    assert find_scans(str(tmp_path / "b.nii")) == [{"image": str(tmp_path / "b.nii"), "name": "b"}]


def test_linked_folders_are_followed_once_also_in_circles_and_by_patterns(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    touch(elsewhere, "x/t2.nii", "x/t1.nii")
    data.mkdir()
    (data / "linked").symlink_to(elsewhere)
    (data / "again").symlink_to(elsewhere / "x")
    (elsewhere / "x" / "up").symlink_to(elsewhere)
    (data / "gone").symlink_to(tmp_path / "nowhere")
    assert images(data) == {"t1": "again/t1.nii", "t2": "again/t2.nii"}
    for pattern in ("linked/x/t2.nii", "l*/**/t2.nii"):
        assert pairs(data, pattern) == [{"image": "linked/x/t2.nii", "name": "t2"}]


def test_equal_names_get_their_folders_or_else_a_problem(tmp_path):
    touch(tmp_path, "ann/1/t1.nii", "ann/2/t1.nii.gz", "t1.nii", "ann/t2.nii", "bob/flair.nii", "bob/flair.nii.gz")
    named = {"ann_1_t1": "ann/1/t1.nii", "ann_2_t1": "ann/2/t1.nii.gz", "t1": "t1.nii", "t2": "ann/t2.nii"}
    assert images(tmp_path) == {**named, "bob_flair": "bob/flair.nii.gz"}
    first, _ = (case.problem for case in find_scans(str(tmp_path)) if case.problem)
    has(first, f"{tmp_path}/bob/flair.nii: ", "bob_flair", "bob/flair.nii.gz")


def test_results_are_no_scans_wherever_they_lie(tmp_path, capsys):
    results = "a_sr.nii.gz", "out/deep/b_sr.nii.gz", "results/a_t1_sr.nii"
    touch(tmp_path, "a.nii.gz", "a_t1.nii.gz", *results)
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    image.header["descrip"] = b"super-resolved 2x2x2 by udean 0.5.0"
    for name in results:
        nib.save(image, tmp_path / name)
    assert images(tmp_path) == {"a": "a.nii.gz", "a_t1": "a_t1.nii.gz"}
    has(capsys.readouterr().out, "3 of 5 files", f"{tmp_path}/a_sr")
    (entry,) = pairs(tmp_path, "a.*,a_s*", "**/a_t1*")
    assert entry["guide"] == "a_t1.nii.gz"
    for path in ("a_sr.nii.gz", "out"):
        refused(lambda path=path: find_scans(tmp_path / path), ValueError, "_sr.nii.gz: ", "results")


def test_what_is_no_scan_is_passed_over_and_what_cannot_be_read_has_a_problem(tmp_path, capsys):
    """In a folder and by a pattern; by itself, or with no scan beside it, it is refused."""
    touch(tmp_path, "a_t2.nii", "a_t1.hdr", "a_t1.img", "sub-a_mask.nii", "m/sub-b_mask.nii", "b_t2.mnc", "a_t2.json")
    touch(tmp_path, *"e+orig.HEAD e+orig.BRIK.gz g.nii g.nii.bz2 i.img".split())
    (tmp_path / "c_t2.nii").symlink_to("../annex/objects/c")
    for n in range(3):
        (tmp_path / f"IM{n}.dcm").symlink_to("../annex/objects/d")
    found = {case.name: case.problem or "" for case in find_scans(tmp_path)}
    assert list(found) == "IM0.dcm a_t1 a_t2 b_t2.mnc c_t2 e+orig g i".split() and not found["a_t1"] + found["a_t2"]
    assert "nib-convert" in found["b_t2.mnc"] and "datalad get" in found["c_t2"]
    (tmp_path / "series").mkdir()
    (tmp_path / "away").mkdir()
    touch(tmp_path, "series/notes.txt", "series/1.dcm")
    for name in ("series/I0", "series/I1", "away/I0", "away/1.2.3", "README"):
        (tmp_path / name).symlink_to("../annex/objects/d")
    for n in range(2):
        (tmp_path / "series" / f"{n}.2.84").write_bytes(bytes(128) + b"DICM")
    first, second = (
        {c["image"]: c.problem or "" for c in call(tmp_path)} for call in (find_scans, partial(find_scans, dicom=True))
    )
    series = {path.removeprefix(f"{tmp_path}/"): text for path, text in first.items() if path not in second}
    # README may be an image as well as IM0.dcm, next to which it is.
    names = "IM0.dcm away/1.2.3 series/0.2.84 series/1.dcm series/I0".split()
    assert list(series) == names and "3 more" in series["IM0.dcm"]
    assert "datalad get" in series["away/1.2.3"] and "datalad get" not in series["series/1.dcm"]
    has(capsys.readouterr().out, f"{tmp_path}/sub-a_mask.nii: a mask", f"{tmp_path}/m/sub-b_mask.nii: a mask")
    whole, *others = pairs(tmp_path, "*_t2*", "a_t1.*,*_mask.nii", subject="^a|(.)_")
    assert whole["guide"] == "a_t1.hdr" and [bool(entry["problem"]) for entry in others] == [True, True]
    for path in ("sub-a_mask.nii", "m"):
        refused(lambda path=path: find_scans(tmp_path / path), ValueError, "_mask.nii: a mask")
    for guide, words in (("sub-a_mask.nii", "a mask"), ("c_t2.nii", "datalad get"), ("a_t2.json", "format")):
        path = str(tmp_path / guide)
        refused(lambda path=path: find_scans(tmp_path, "a_t2.nii", path), ValueError, f"--guide {path}", words)


def test_scans_and_guides_are_paired_by_subject_in_any_order(tmp_path):
    touch(tmp_path, "brainix_t1.nii.gz", "brainix_t2.nii.gz", "brainix_t2.json")
    alone = {"image": "brainix_t2.nii.gz", "name": "brainix_t2"}
    assert pairs(tmp_path, "**/brainix_t2*", "brainix_t1*") == [{**alone, "guide": "brainix_t1.nii.gz"}]
    assert pairs(tmp_path, "*t2.nii.gz", None) == [alone]
    touch(tmp_path, *[f"{s}/{s}_t2w.nii" for s in ("sub-1", "sub-2")], "t1/0_sub-2.nii", "t1/1_sub-1.nii")
    touch(tmp_path, "sub-2/sub-2_flair.nii")
    assert pairs(tmp_path, "sub-*/*", "t1/*") == [
        {"image": "sub-1/sub-1_t2w.nii", "guide": "t1/1_sub-1.nii", "name": "sub-1_t2w"},
        {"image": "sub-2/sub-2_flair.nii", "guide": "t1/0_sub-2.nii", "name": "sub-2_flair"},
        {"image": "sub-2/sub-2_t2w.nii", "guide": "t1/0_sub-2.nii", "name": "sub-2_t2w"},
    ]
    touch(tmp_path, *[f"p/{s}/{c}.nii" for s in ("ann", "bob") for c in ("t1", "t2")])
    expected = [{"image": f"p/{s}/t2.nii", "guide": f"p/{s}/t1.nii", "name": f"p_{s}_t2"} for s in ("ann", "bob")]
    assert pairs(tmp_path, "p/*/t2.nii", "p/*/t1.nii", subject="p/(.*)/") == expected
    # One scan, and a guide by its path or a pattern.
    touch(tmp_path, "x/a_t2.nii", "x/a_t1.nii", "x/b_t2.nii", "y/other.nii")
    scan, other = tmp_path / "x" / "a_t2.nii", str(tmp_path / "y" / "other.nii")
    entry = {"image": str(scan), "name": "a_t2"}
    assert find_scans(str(scan), "**/*_t2w.nii.gz", None) == [entry]
    assert find_scans(str(scan), "nothing", "*_t1.nii") == [{**entry, "guide": str(tmp_path / "x" / "a_t1.nii")}]
    assert find_scans(str(scan), "nothing", other) == [{**entry, "guide": other}]


def test_a_label_map_is_paired_as_a_guide_is_and_is_no_scan(tmp_path, capsys):
    touch(tmp_path, *(f"sub-1_{name}.nii" for name in ("t2w", "t1w", "dseg")), "x/sub-1_mask.nii")
    expected = {key: str(tmp_path / f"sub-1_{key}.nii") for key in ("t2w", "t1w", "dseg")}
    (entry,) = find_scans(tmp_path, guide="*_t1w.nii", label="*_dseg.nii", dicom=True)
    assert entry == {
        "image": expected["t2w"], "name": "sub-1_t2w", "guide": expected["t1w"], "label_map": expected["dseg"]
    }  # fmt: skip
    assert "dseg" not in capsys.readouterr().out
    first, second = find_scans(tmp_path, label="*_dseg.nii")
    assert first["label_map"] == second["label_map"] == expected["dseg"]
    (entry,) = find_scans(tmp_path / "sub-1_t2w.nii", label=str(tmp_path / "x" / "sub-1_mask.nii"))
    assert entry["label_map"] == str(tmp_path / "x" / "sub-1_mask.nii")
    *_, other = find_scans(tmp_path, label="*_dseg.nii", subject="(t2w|dseg|t1w)")
    assert "--label" in other.problem


def test_scans_without_one_guide_have_a_problem_and_the_others_are_paired(tmp_path, capsys):
    touch(tmp_path, *(f"{name}.nii" for name in ("a_t2", "b_t2", "d_t2", "a_t1", "c_t1", "d_t1", "d2_t1")))
    paired, none, several = pairs(tmp_path, "*_t2*", "*_t1*", subject="^(.)")
    assert paired["guide"] == "a_t1.nii" and "guide" not in none | several
    has(none["problem"], "b_t2.nii: b ", "--guided False", "--subject")
    has(several["problem"], "d_t2.nii: d ", "(d2_t1.nii, d_t1.nii)", "--guide")
    has(capsys.readouterr().out, "1 of 4 guides", "c_t1.nii")
    touch(tmp_path, "p/sub-01_t2w.nii.gz", "p/sub-02_t1w.nii.gz")
    (entry,) = pairs(tmp_path / "p", "*_t2w*", "*_t1w*")
    has(entry["problem"], "sub-01_t2w.nii.gz: ", "sub-02_t1w.nii.gz of sub-02")


def test_refused(tmp_path):
    touch(tmp_path, "a_t2.nii", "a_t1.nii", "notes.txt", "empty/notes.txt")
    for call, kind, words in (
        (lambda: find_scans(tmp_path / "nowhere"), FileNotFoundError, ["dataset_dir", "nowhere"]),
        (lambda: find_scans(""), FileNotFoundError, ["dataset_dir ''"]),
        (lambda: find_scans(tmp_path / "empty"), FileNotFoundError, ["dataset_dir", "empty", ".nii.gz"]),
        (lambda: find_scans(tmp_path, "*_t3*", "*_t1*"), FileNotFoundError, ["--lr '*_t3*'", tmp_path]),
        (lambda: find_scans(tmp_path, "*_t2*", "notes*"), FileNotFoundError, ["--guide 'notes*'", ".nii.gz"]),
        (lambda: find_scans(tmp_path, ""), ValueError, ["no --lr"]),
        (lambda: find_scans(tmp_path, "*.nii", "*_t1*"), ValueError, ["a_t1.nii", "--lr and --guide"]),
        (lambda: find_scans(tmp_path, None, str(tmp_path / "no.nii")), FileNotFoundError, ["--guide", "no.nii: there"]),
    ):
        refused(call, kind, *words)
