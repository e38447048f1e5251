"""BIDS: kinds of images by name, the raw files of datasets, and the command line of BIDS Apps."""

import json
from pathlib import Path

import pytest

from common.__main__ import main
from common.program.bids import find_other_datatype, list_raw_files, read_app_words
from common.program.exams.partners import find_paired_scans

from ..bundles import runs
from ..refused import has, refused

SUBJECTS = [f"sub-{label}/ses-{n}" for label in ("01", "02", "p3") for n in "12"]


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def dataset(tmp_path):
    """A raw dataset with derivatives of three kinds, and files that .bidsignore names."""
    root = tmp_path / "ds"
    write(root / "dataset_description.json", json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    write(root / ".bidsignore", "# not ours\n*_scout*\nextra/\n!sub-02*_scout*\n")
    for place in SUBJECTS:
        write(root / place / "anat" / f"{place.replace('/', '_')}_T1w.nii.gz")
    for name in ("sub-01/anat/sub-01_scout.nii.gz", "sub-02/anat/sub-02_scout.nii.gz", "extra/x.nii", "code/x.nii",
                 "sourcedata/1.dcm", "derivatives/a/sub-01/anat/sub-01_T1w.nii.gz"):  # fmt: skip
        write(root / name)
    write(root / "own" / "dataset_description.json", json.dumps({"DatasetType": "derivative"}))
    write(root / "own" / "sub-01_desc-x_T1w.nii.gz")
    write(root / "own" / "derivatives" / "sub-01_desc-y_T1w.nii.gz")
    return root


def list_scans(root):
    files, left_out = list_raw_files(root)
    return [name for name in files if name.endswith((".gz", ".nii", ".dcm"))], sorted(left_out)


def test_of_a_dataset_only_raw_files_are_listed_unless_a_folder_is_named(dataset):
    raw = [f"{place}/anat/{place.replace('/', '_')}_T1w.nii.gz" for place in SUBJECTS]
    others = ["code/", "derivatives/", "extra/", "own/", "sourcedata/", "sub-01/anat/sub-01_scout.nii.gz"]
    assert list_scans(dataset) == (sorted([*raw, "sub-02/anat/sub-02_scout.nii.gz"]), others)
    below, left_out = list_scans(dataset.parent)
    assert below == sorted(f"ds/{name}" for name in list_scans(dataset)[0]) and left_out == [f"ds/{o}" for o in others]
    assert list_scans(dataset / "sub-01")[1] == ["anat/sub-01_scout.nii.gz"]
    for name in ("extra", "code", "sourcedata", "derivatives", "derivatives/a/sub-01"):
        found, left_out = list_scans(dataset / name)
        assert len(found) == 1 and not left_out
    assert list_scans(dataset / "own") == (["sub-01_desc-x_T1w.nii.gz"], ["derivatives/"])  # by its own rules


def test_the_folder_decides_where_a_suffix_is_of_several_datatypes():
    expected = {"T1w": None, "MEGRE": None, "MP2RAGE": None, "t1w": None, "m0scan": "fmap or perf", "bold": "func"}
    expected |= {"TB1TFL": "fmap", "magnitude1": "fmap", "dwi": "dwi", "asl": "perf", "pet": "pet"}
    for suffix, datatype in expected.items():
        found = find_other_datatype(f"x/sub-1_{suffix}.nii", f"sub-1_{suffix}")
        assert found is None if datatype is None else {*found.split(" or ")} == {*datatype.split(" or ")}, suffix
    assert find_other_datatype("perf/sub-1_m0scan.nii", "sub-1_m0scan") == "perf"
    assert find_other_datatype("perf/scan_bold.nii", "scan_bold") is None
    assert find_other_datatype("func/sub-1_boldref.nii", "sub-1_boldref") == "func"
    assert find_other_datatype("func/sub-1_T1w.nii", "sub-1_T1w") is None
    assert find_other_datatype("swi/sub-1_part-mag_GRE.nii", "sub-1_part-mag_GRE") == "swi"
    for path in ("anat/sub-1_GRE", "x/sub-1_T1w.mnc", "ds/sub-3"):  # they are refused
        assert find_other_datatype(path, Path(path).name) is None


def test_guides_are_raw_too_unless_their_pattern_names_others(dataset):
    raw, derived = "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz", "derivatives/a/sub-01/sub-01_ses-1_desc-x_T2w.nii.gz"
    for name in (raw, derived):
        write(dataset / name)
    for pattern, guide in (("**/*_T2w.nii.gz", raw), ("derivatives/**/*_T2w.nii.gz", derived)):
        cases = find_paired_scans(dataset, guide=pattern)
        assert [case["guide"] for case in cases if "guide" in case][:1] == [str(dataset / guide)]


def test_folders_of_participants_and_sessions(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def choose(words, participants=None, sessions=None, output=None):
        *places, folders = read_app_words(words, output, participants, sessions)
        assert places == ["ds", "out"]
        return [folder.relative_to("ds").as_posix() for folder in folders]

    assert choose(["ds", "out", "participant"]) == ["."]
    assert choose(["ds", "out", "participant"], ("sub-02", "01")) == ["sub-01", "sub-02"]
    assert choose(["ds", "participant"], ("p3",), ("ses-2",), output="out") == ["sub-p3/ses-2"]
    assert choose(["ds", "out"], None, ("1",)) == [place for place in SUBJECTS if place.endswith("1")]
    refused(lambda: choose(["ds", "out", "participant"], ("01", "3")), ValueError, "label 3", "01, 02, p3")
    refused(lambda: choose(["ds", "out"], ("01",), ("9",)), ValueError, "session_label 9", "1, 2")
    refused(lambda: choose(["ds", "out", "group"]), ValueError, "group", "participant")
    refused(lambda: choose(["ds"], ("01",)), ValueError, "BIDS_DIR OUTPUT participant")
    refused(lambda: choose(["ds/extra", "out", "participant"]), ValueError, "ds/extra", "dataset_description.json")
    for words in (["ds", "out"], ["a.nii", "b.nii", "participant"], ["ds", "participant"]):
        assert read_app_words(words, None, None, None) is None
    (tmp_path / "participant").mkdir()  # a folder for results
    assert read_app_words(["ds", "sub-01", "participant"], None, None, None) is None


def test_a_bids_app(dataset, tmp_path, monkeypatch, capsys):
    """Anatomical images of the participants are done; what is no image of this kind is one line."""
    monkeypatch.chdir(tmp_path)
    (dataset / "sub-02/anat/sub-02_scout.nii.gz").unlink()
    for place in SUBJECTS:
        name = place.replace("/", "_")
        for kind in (
            "anat/{}_T1w",
            "func/{}_task-x_bold",
            "fmap/{}_magnitude1",
            "swi/{}_part-mag_GRE",
            "anat/{}_part-phase_MEGRE",
        ):
            runs.save(dataset / place / f"{kind.format(name)}.nii.gz", runs.phantom(0, (22, 20, 18)), runs.OBLIQUE)
    (dataset / "sub-p4/ses-1/eeg").mkdir(parents=True)
    for words, labels, numbers, left_out in (
        (["--participant_label", "01", "sub-02", "p4", "--session_label", "1"], ("01", "02"), "1", False),
        ([], ("01", "02", "p3"), "12", True),
    ):
        main(["ds", "out", "participant", *words, "--skip_bids_validation", "--dry_run"])
        said = capsys.readouterr().out
        count = len(labels) * len(numbers)
        results = [
            f"out/sub-{x}/ses-{n}/anat/sub-{x}_ses-{n}_res-high_desc-sr_T1w.nii" for x in labels for n in numbers
        ]
        has(said, *(f"would write {name}" for name in results))
        has(said, f"{count} of fmap (magnitude1); {count} of func (bold); {count} of swi (GRE)")
        has(said, f"{4 * count} files passed over")
        has(said, f"passed over, by their BIDS names: {count} files, such as ", ": a phase image")
        assert said.count("would write") == count and said.count("a phase image") == 1
        assert ("left out unless named: code/, derivatives/, extra/, own/, sourcedata/, 1 of" in said) == left_out
