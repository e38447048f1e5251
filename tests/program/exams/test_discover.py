"""Which of the paths are scans, and which is the output."""

import shutil
import sys
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.program.dicom import mosaics
from common.program.dicom.recognition import enter_dicomdir
from common.program.dicom.search import find_series
from common.program.exams.discover import discover_cases, find_common_folder, split_output
from tests.bundles.runs import save
from tests.clients import dicom
from tests.refused import has, refused


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Files a and b, a result, folders of scans, and earlier outputs."""
    monkeypatch.chdir(tmp_path)
    for name in "a.nii b.nii A/a.nii B/b.nii C/c.nii done/log_1of2.jsonl done/a.nii other/notes.txt".split():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("empty").mkdir()
    image = save(Path("result.nii"), np.ones((4, 4, 4)), np.eye(4), dtype=np.int16)
    with image.open("r+b") as file:
        file.seek(148)
        file.write(b"super-resolved")


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("a.nii", None),
        ("A", None),
        ("a.nii new", "new"),
        ("a.nii new.nii", "new.nii"),
        ("a.nii result.nii", "result.nii"),
        ("a.nii b.nii", None),
        ("a.nii b.nii result.nii", None),
        ("a.nii b.nii other", "other"),
        ("a.nii other", "other"),
        ("A other", "other"),
        ("A/a.nii A", "A"),
        ("A B new", "new"),
        ("A B empty", "empty"),
        ("A a.nii done", "done"),
        ("A B a.nii", None),
    ],
)
def test_the_last_path_may_be_the_output(place, line, output):
    paths = [Path(word) for word in line.split()]
    expected = (paths, None) if output is None else (paths[:-1], Path(output))
    assert split_output(paths) == expected


@pytest.mark.parametrize("line", ["a.nii C", "B C", "A B C", "a.nii b.nii C", "A B other"])
def test_a_folder_may_be_either(place, line):
    *_, last = paths = [Path(word) for word in line.split()]
    refused(lambda: split_output(paths), ValueError, f"{last}: ", "-o")


def test_a_new_file_after_several_scans(place):
    refused(lambda: split_output([Path("A"), Path("B"), Path("new.nii")]), ValueError, "new.nii: ")


def test_the_folder_of_all(place):
    assert find_common_folder([Path("a.nii"), Path("b.nii")]) == Path()
    assert find_common_folder([Path("a.nii"), Path("B").absolute(), Path("C/c.nii")]) == Path.cwd()


def find(*paths, guide=None):
    return discover_cases([*map(Path, paths)], Path("converted").absolute(), guide)


def test_a_series_and_its_nifti_are_one_scan_in_any_order_of_axes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scan = dicom.Series(angles=(8, -5, 12), slopes=(0.25, 0.5))
    scan.save(Path("in/series"))
    image = nib.Nifti1Image(scan.values.astype(np.float32), dicom.LPS_TO_RAS @ scan.lps)
    for axes in ([[0, 1], [1, -1], [2, 1]], [[2, 1], [0, -1], [1, 1]]):
        nib.save(image.as_reoriented(np.array(axes)), "in/scan.nii")
        (case,) = find("in")
        assert case.series and "scan.nii: the same volume as in/series" in capsys.readouterr().out
    (case,) = find("in/series", "in/scan.nii")
    assert case.series
    nib.save(nib.Nifti1Image(image.get_fdata() + scan.stored % 2 * 9, image.affine), "in/scan.nii")
    assert len(find("in")) == 2


def test_a_guide_may_be_a_series_but_not_the_scan(tmp_path, monkeypatch):
    """Of a scan that is a file or a series, alone or in the folder of the guide; not that of another person."""
    monkeypatch.chdir(tmp_path)
    scan, guide = dicom.Series(), dicom.Series(seed=1, spacing=(0.5, 0.5, 2.0))
    scan.save(Path("in/scan"))
    images = guide.save(Path("in/guide"))
    save(Path("scan.nii"), scan.values, dicom.LPS_TO_RAS @ scan.lps, dtype=np.int16)
    for path, name in product(("in/scan", "in", "scan.nii"), ("in/guide", "in/guide/0004.dcm")):
        (case,) = find(path, guide=name)
        assert case.problem is None
        assert case.sources[case["guide"]] == f"in/guide (DICOM series {images[0].SeriesInstanceUID})"
        np.testing.assert_array_equal(nib.load(case["guide"]).dataobj, guide.values)
        assert case.inputs[case["guide"]]["SeriesInstanceUID"] == images[0].SeriesInstanceUID
    for path, name in product(("in/scan", "scan.nii"), repeat=2):
        (case,) = find(path, guide=name)
        assert "its guide is the scan itself" in case.problem and case.failure.startswith(path)
    for paths in (("in/scan", "in/guide"), ("scan.nii", "in/guide"), ("in/guide/0002.dcm", "scan.nii")):
        (case,) = find(*paths, guide="in/guide")
        assert case.problem is None and "guide" in case
    refused(lambda: find("scan.nii", guide="in"), ValueError, "--guide in holds 2 DICOM series", "in/scan/0000.dcm")
    Path("empty").mkdir()
    refused(lambda: find("scan.nii", guide="empty"), ValueError, "--guide empty holds no DICOM series")
    dicom.Series(seed=1, attributes={"PatientID": "another"}).save(Path("other"))
    (case,) = find("in/scan", guide="other")
    has(case.problem, "PatientID another", "the guide other (DICOM series")
    dicom.Series(seed=1, attributes={"StudyInstanceUID": "1.2.3"}).save(Path("visit"))
    (case,) = find("in/scan", guide="visit")
    has(case.warnings[0], "the guide visit (DICOM series", "of the study 1.2.3")


def test_a_dicomdir_is_its_folder(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert enter_dicomdir(tmp_path / "DICOMDIR") == tmp_path
    assert enter_dicomdir(tmp_path / "a") == tmp_path / "a"


CONVERTER = """#!{python}
import sys, shutil
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
shutil.copy("volumes.nii", options["-o"] + "/" + options["-f"] + ".nii")
"""


def test_mosaics_are_opened_by_dcm2niix_if_it_is_there(tmp_path, monkeypatch):
    """As NIfTI, without a derived series; without it, or if it does not split them, it is said what to do."""
    monkeypatch.chdir(tmp_path)
    dicom.save(dicom.Series(attributes={"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}).images()[:4], Path("in"))
    (series,) = find_series("in")
    monkeypatch.setattr(mosaics, "find_converter", lambda: None)
    (case,) = find("in")
    has(case.problem, "a mosaic", "pip install dcm2niix")
    converter = tmp_path / "dcm2niix"
    converter.write_text(CONVERTER.format(python=sys.executable))
    converter.chmod(0o755)
    monkeypatch.setattr(mosaics, "find_converter", lambda: converter)
    for shape in ((8, 8, 6, 4), (8, 8, 6), (8, 8, 1, 4)):
        save(Path("volumes.nii"), np.random.default_rng(0).integers(0, 99, shape), np.eye(4), dtype=np.int16)
        (case,) = find("in")
        shutil.rmtree("converted")
        if shape[2] == 1:
            has(case.problem, "does not split", "one file a slice")
            continue
        assert (case.problem, case.name, case.series) == (None, "3_t2_tse", {}) and "dcm2niix" in case.notices[0]
        described = case.inputs[case["image"]]
        assert described["SeriesInstanceUID"] == series.uid and len(described["Instances"]) == 4
