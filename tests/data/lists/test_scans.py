"""Scans and guides are found, paired by subject, and named where they cannot be; results are no scans."""

import nibabel as nib
import numpy as np
import pytest

from common.data import find_images, find_pairs


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def write_result(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4))
    image.header["descrip"] = b"super-resolved 2x2x2 by udean 0.5.0"
    nib.save(image, path)


def images(path, root):
    return {entry["name"]: entry["image"].removeprefix(f"{root}/") for entry in find_images(str(path))}


def test_images_are_found_in_a_folder_and_below_in_order(tmp_path):
    touch(tmp_path, "b.nii", "sub/a.nii.gz", "sub/C.NII.GZ", ".hidden.nii", ".git/d.nii", "notes.txt", "c.nii.bak")
    entries = find_images(str(tmp_path))
    assert [(e["image"], e["name"]) for e in entries] == [
        (str(tmp_path / path), name) for path, name in (("b.nii", "b"), ("sub/C.NII.GZ", "C"), ("sub/a.nii.gz", "a"))
    ]
    assert find_images(str(tmp_path / "b.nii")) == [{"image": str(tmp_path / "b.nii"), "name": "b"}]


def test_linked_folders_are_followed_once(tmp_path):
    """Also where links lead in circles; and patterns reach what is linked under either name."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    touch(elsewhere, "x/t2.nii", "x/t1.nii")
    data.mkdir()
    (data / "linked").symlink_to(elsewhere)
    (data / "again").symlink_to(elsewhere / "x")
    (elsewhere / "x" / "up").symlink_to(elsewhere)
    (data / "gone").symlink_to(tmp_path / "nowhere")
    assert images(data, data) == {"t1": "again/t1.nii", "t2": "again/t2.nii"}
    for pattern in ("linked/x/t2.nii", "l*/**/t2.nii"):
        assert find_pairs(str(data), pattern) == [{"image": str(data / "linked/x/t2.nii"), "name": "t2"}]


def test_what_holds_no_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_dir '.*nowhere' is neither a folder nor a file"):
        find_images(str(tmp_path / "nowhere"))
    touch(tmp_path, "notes.txt")
    with pytest.raises(FileNotFoundError, match=r"holds no \.nii or \.nii\.gz"):
        find_images(str(tmp_path))


def test_equal_names_get_their_folders(tmp_path):
    """And where that does not tell them apart, a problem; names that are alone stay as they are."""
    touch(tmp_path, "ann/1/t1.nii", "ann/2/t1.nii.gz", "t1.nii", "ann/t2.nii", "bob/flair.nii", "bob/flair.nii.gz")
    assert images(tmp_path, tmp_path) == {
        "ann_1_t1": "ann/1/t1.nii",
        "ann_2_t1": "ann/2/t1.nii.gz",
        "t1": "t1.nii",
        "t2": "ann/t2.nii",
        "bob_flair": "bob/flair.nii.gz",
    }
    problems = [entry["problem"] for entry in find_images(str(tmp_path)) if "problem" in entry]
    assert len(problems) == 2
    assert (
        f"{tmp_path}/bob/flair.nii: its result would have the same name, bob_flair, as of {tmp_path}/bob" in problems[0]
    )


def test_results_are_no_scans(tmp_path, capsys):
    """Wherever they lie, beside their scans too; a folder or a file that is nothing else is refused."""
    touch(tmp_path, "a.nii.gz", "a_t1.nii.gz")
    for name in ("a_sr.nii.gz", "out/deep/b_sr.nii.gz", "results/a_t1_sr.nii"):
        write_result(tmp_path / name)
    assert images(tmp_path, tmp_path) == {"a": "a.nii.gz", "a_t1": "a_t1.nii.gz"}
    assert (
        f"3 of 5 files are results of super-resolution and are passed over: {tmp_path}/a_sr" in capsys.readouterr().out
    )
    (entry,) = find_pairs(str(tmp_path), "a.*,a_s*", "**/a_t1*")
    assert entry["guide"] == str(tmp_path / "a_t1.nii.gz")
    for path in ("a_sr.nii.gz", "out"):
        with pytest.raises(ValueError, match=r"_sr.nii.gz: found results .* only, expected scans; there is nothing to"):
            find_images(str(tmp_path / path))


def pairs(root, lr, guide, **options):
    """What find_pairs finds, relative to ``root``."""
    found = find_pairs(str(root), lr, guide, **options)
    return [{key: value.removeprefix(f"{root}/") for key, value in entry.items()} for entry in found]


def test_scans_and_guides_are_paired_by_subject(tmp_path):
    """Subjects tell what belongs together, whatever the order; sidecars are no scans."""
    touch(tmp_path, "brainix_t1.nii.gz", "brainix_t2.nii.gz", "brainix_t2.json")
    lone = {"image": "brainix_t2.nii.gz", "guide": "brainix_t1.nii.gz", "name": "brainix_t2"}
    assert pairs(tmp_path, "**/brainix_t2*", "brainix_t1*") == [lone]
    assert pairs(tmp_path, "*t2.nii.gz", None) == [{"image": "brainix_t2.nii.gz", "name": "brainix_t2"}]

    touch(tmp_path, *[f"{s}/{s}_t2w.nii" for s in ("sub-1", "sub-2")], "t1/0_sub-2.nii", "t1/1_sub-1.nii")
    touch(tmp_path, "sub-2/sub-2_flair.nii")
    assert pairs(tmp_path, "sub-*/*", "t1/*") == [
        {"image": "sub-1/sub-1_t2w.nii", "guide": "t1/1_sub-1.nii", "name": "sub-1_t2w"},
        {"image": "sub-2/sub-2_flair.nii", "guide": "t1/0_sub-2.nii", "name": "sub-2_flair"},
        {"image": "sub-2/sub-2_t2w.nii", "guide": "t1/0_sub-2.nii", "name": "sub-2_t2w"},
    ]

    touch(tmp_path, *[f"p/{s}/{c}.nii" for s in ("ann", "bob") for c in ("t1", "t2")])
    assert pairs(tmp_path, "p/*/t2.nii", "p/*/t1.nii", subject="p/(.*)/") == [
        {"image": f"p/{s}/t2.nii", "guide": f"p/{s}/t1.nii", "name": f"p_{s}_t2"} for s in ("ann", "bob")
    ]


def test_one_scan_is_paired_with_a_guide_by_its_path_or_a_pattern(tmp_path):
    touch(tmp_path, "x/a_t2.nii", "x/a_t1.nii", "x/b_t2.nii", "y/other.nii")
    scan = tmp_path / "x" / "a_t2.nii"
    entry = {"image": str(scan), "name": "a_t2"}
    assert find_pairs(str(scan), "**/*_t2w.nii.gz", None) == [entry]
    assert find_pairs(str(scan), "nothing", "*_t1.nii") == [{**entry, "guide": str(tmp_path / "x" / "a_t1.nii")}]
    guide = str(tmp_path / "y" / "other.nii")
    assert find_pairs(str(scan), "nothing", guide) == [{**entry, "guide": guide}]


def test_scans_without_one_guide_have_a_problem_and_the_others_are_paired(tmp_path, capsys):
    touch(tmp_path, *(f"{name}.nii" for name in ("a_t2", "b_t2", "d_t2", "a_t1", "c_t1", "d_t1", "d2_t1")))
    found = pairs(tmp_path, "*_t2*", "*_t1*", subject="^(.)")
    assert [entry.get("guide") for entry in found] == ["a_t1.nii", None, None]
    assert "b_t2.nii: b has no guide; add it, use --guided false, or say with --subject" in found[1]["problem"]
    assert "d_t2.nii: d has several guides (d2_t1.nii, d_t1.nii); narrow --guide" in found[2]["problem"]
    assert "1 of 4 guides have no scan and are not used: c_t1.nii" in capsys.readouterr().out

    touch(tmp_path, "p/sub-01_t2w.nii.gz", "p/sub-02_t1w.nii.gz")
    (entry,) = find_pairs(str(tmp_path / "p"), "*_t2w*", "*_t1w*")
    assert "sub-01_t2w.nii.gz is of sub-01 and the guide sub-02_t1w.nii.gz of sub-02" in entry["problem"]


def test_patterns_that_find_nothing_to_pair_are_named(tmp_path):
    touch(tmp_path, "a_t2.nii", "a_t1.nii", "notes.txt")
    for patterns, error, message in (
        (("*_t3*", "*_t1*"), FileNotFoundError, r"no files match --lr '\*_t3\*' in"),
        (("*_t2*", "notes*"), FileNotFoundError, r"no \.nii or \.nii\.gz file matches --guide 'notes\*'"),
        (("",), ValueError, "no --lr pattern"),
        (("*.nii", "*_t1*"), ValueError, "a_t1.nii matches --lr and --guide; make the patterns exclusive"),
    ):
        with pytest.raises(error, match=message):
            find_pairs(str(tmp_path), *patterns)
