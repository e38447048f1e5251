"""Scans and guides are found, paired by subject, and named where they cannot be."""

import pytest

from common.data import find_images, find_pairs


def test_images_are_found_in_a_folder_and_below_in_order(tmp_path):
    for name in ("b.nii", "sub/a.nii.gz", ".hidden.nii", "notes.txt", "c.nii.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert find_images(str(tmp_path)) == [{"image": str(tmp_path / n)} for n in ("b.nii", "sub/a.nii.gz")]
    assert find_images(str(tmp_path), str(tmp_path / "sub")) == [{"image": str(tmp_path / "b.nii")}]
    assert find_images(str(tmp_path / "b.nii")) == [{"image": str(tmp_path / "b.nii")}]


def test_what_holds_no_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_dir '.*nowhere' is neither a folder nor a file"):
        find_images(str(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"holds no \.nii or \.nii\.gz"):
        find_images(str(tmp_path))
    for name in ("1/t1.nii", "2/t1.nii.gz", "2/t2.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"same name: .*1/t1\.nii, .*2/t1\.nii\.gz$"):
        find_images(str(tmp_path))


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def pairs(root, lr, guide, **options):
    """What find_pairs finds, relative to ``root``."""
    found = find_pairs(str(root), lr, guide, **options)
    return [{k: v if k == "subject" else v.removeprefix(f"{root}/") for k, v in entry.items()} for entry in found]


def test_scans_and_guides_are_paired_by_subject(tmp_path):
    """Subjects tell what belongs together, whatever the order; sidecars and results are no scans."""
    touch(tmp_path, "brainix_t1.nii.gz", "brainix_t2.nii.gz", "brainix_t2.json", "out/brainix_t2_sr.nii.gz")
    output_dir = str(tmp_path / "out")
    lone = {"image": "brainix_t2.nii.gz", "guide": "brainix_t1.nii.gz"}
    assert pairs(tmp_path, "**/brainix_t2*", "brainix_t1*", output_dir=output_dir) == [lone]
    assert pairs(tmp_path, "*t2.nii.gz", None) == [{"image": "brainix_t2.nii.gz"}]

    touch(tmp_path, *[f"{s}/{s}_t2w.nii" for s in ("sub-1", "sub-2")], "t1/0_sub-2.nii", "t1/1_sub-1.nii")
    assert pairs(tmp_path, "sub-*/*", "t1/*") == [
        {"image": "sub-1/sub-1_t2w.nii", "guide": "t1/1_sub-1.nii"},
        {"image": "sub-2/sub-2_t2w.nii", "guide": "t1/0_sub-2.nii"},
    ]

    touch(tmp_path, *[f"p/{s}/{c}.nii" for s in ("ann", "bob") for c in ("t1", "t2")])
    assert pairs(tmp_path, "p/*/t2.nii", "p/*/t1.nii", subject="p/(.*)/") == [
        {"image": f"p/{s}/t2.nii", "guide": f"p/{s}/t1.nii", "subject": s} for s in ("ann", "bob")
    ]


def test_scans_that_cannot_be_paired_are_named(tmp_path):
    touch(tmp_path, "a_t2.nii", "b_t2.nii", "a_t1.nii", "c_t1.nii", "x/a_t2.nii", "notes.txt")
    folder, first = str(tmp_path), r"^(?:x/)?(.)_"
    for patterns, options, error, message in (
        (("*_t3*", "*_t1*"), {}, FileNotFoundError, r"no files match --lr '\*_t3\*' in"),
        (("*_t2*", "notes*"), {}, FileNotFoundError, r"no \.nii or \.nii\.gz file matches --guide 'notes\*'"),
        (("x/*",), {"output_dir": str(tmp_path / "x")}, FileNotFoundError, "matches --lr 'x/.*below output_dir"),
        (("",), {}, ValueError, "no --lr pattern"),
        (("*.nii", "*_t1*"), {}, ValueError, "a_t1.nii matches --lr and --guide; make the patterns exclusive"),
        (("*_t2*", "a_t1*"), {"subject": first}, ValueError, r"2 scans but 1 guide; without a guide: b\. .*--subject"),
        (("*_t2*", "*_t1*"), {"subject": first}, ValueError, "2 guides; without a guide: b; without a scan: c"),
        (
            ("**/*_t2*", "*_t1*"),
            {"subject": first},
            ValueError,
            r"--lr matches several volumes of a \(a_t2.nii, x/a_t2",
        ),
        (("**/*_t2*",), {}, ValueError, r"have the same: a_t2\.nii, x/a_t2\.nii; say with --subject"),
    ):
        with pytest.raises(error, match=message):
            find_pairs(folder, *patterns, **options)


def test_a_pair_of_two_people_is_refused(tmp_path):
    """One scan and one guide need no rule, but labels that contradict each other are believed."""
    for name in ("sub-01_t2w.nii.gz", "sub-02_t1w.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"sub-01_t2w.nii.gz is of sub-01 and the guide sub-02_t1w.nii.gz of sub-02"):
        find_pairs(str(tmp_path), "*_t2w*", "*_t1w*")
