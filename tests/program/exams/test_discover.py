"""Which of the paths are scans, and which is the output."""

from pathlib import Path

import numpy as np
import pytest

from common.program.exams.discover import find_common_folder, split_output
from tests.bundles.runs import save
from tests.refused import refused


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
