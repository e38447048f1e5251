"""Values that the command line alone shows to be wrong, and those that it must let through."""

import pytest

from common.program.value_checks import find_wrong_values

OPTIONS = {
    "amp": (["True", "false", "$None"], ["maybe"]),
    "adapt_iterations": (["0", "20"], ["-1", "many", "2.5"]),
    "scale": (["2", "2x2x1", "2X2X1", "[1,1,4]", "1,1,2.5", "(1, 1, 4)"], ["1x1xq", "2x2", ""]),
    "spacing": (["0.8", "1", "None"], ["fine", "0", "-1"]),
    "slice_axis": (["SI", "auto", "[SI,auto]", "['LR', 'AP']", "si"], ["XX", "[SI,X]"]),
    "shard": (["3/16"], ["3", "0/2", "3/2"]),
    "device": (["cpu", "cuda:1", "mps"], ["gpu", "cuda:x"]),
    "acquired_matrix": (["header", "[256,205,44]"], ["3,4", "none"]),
    "checkpoint": (["{file}"], ["MISSING"]),
    "output_dir": (["{folder}", "{folder}/new", "{file}"], ["{other}", "{file}/below"]),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_values_of_options(tmp_path, option):
    places = {"file": tmp_path / "a.nii.gz", "other": tmp_path / "b.txt", "folder": tmp_path}
    for name in ("file", "other"):
        places[name].touch()
    good, bad = ([value.format(**places) for value in values] for values in OPTIONS[option])
    for value in good:
        assert find_wrong_values("super-resolve", ["scan", f"--{option}", value]) == []
    for value in bad:
        (problem,) = find_wrong_values("super-resolve", ["scan", f"--{option}={value}"])
        assert problem.startswith(f"--{option} ") and value in problem


def test_files_that_are_not_there(tmp_path):
    (scan := tmp_path / "scan.nii.gz").touch()
    for words, missing in (
        (f"compare {scan} gone.nii.gz out.png", "--result gone.nii.gz"),
        (f"compare --scan {scan} --result {scan} --output out.png --hr no.nii", "--hr no.nii"),
        (f"judge {scan} gone.nii.gz --scan {scan}", "gone.nii.gz"),
        (f"label {scan} gone.nii.gz out.nii.gz", "--reference gone.nii.gz"),
        ("simulate --output_dir new --labels gone", "--labels gone"),
        ("degrade gone.nii.gz --scale 2x2x2", "gone.nii.gz"),
        ("export --bundle gone", "--bundle gone"),
    ):
        command, *rest = words.split()
        (problem,) = find_wrong_values(command, rest)
        assert problem.startswith(f"{missing}: ")
    assert find_wrong_values("compare", f"{scan} {scan} -o {scan}".split()) == []
    assert find_wrong_values("degrade", f"{scan} -o {scan}/x --scale 2".split())
