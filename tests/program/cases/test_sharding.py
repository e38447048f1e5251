"""What is done of a list: each entry once, by whatever number of jobs and processes, and nothing that is done."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from common.program.cases.case import Case
from common.program.cases.sharding import select_pending_cases
from common.program.naming import make_result_path
from tests.refused import refused


def named(image, name=None):
    return Case({"image": str(image), "name": name or image.name.split(".")[0]})


def names(*args, **options):
    cases = [named(Path(f"in/{i}.nii")) for i in range(5)]
    return [case.name for case in select_pending_cases(cases, *args, **options)]


def test_jobs_of_an_array_share_the_list(tmp_path):
    for jobs in (1, 3, 7):
        shares = [names(tmp_path, shard=f"{job}/{jobs}") for job in range(1, jobs + 1)]
        assert sorted(name for share in shares for name in share) == ["0", "1", "2", "3", "4"]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for shard in ("3/2", "0/4", "x", "1", 3, "1/0", "-1/2", "1.0/2"):
        refused(lambda shard=shard: names(tmp_path, shard=shard), ValueError, f"shard is {shard!r}", "--shard 3/16")


def scan(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 99, (3, 4, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def result(case, output):
    """A result with what its JSON says of the scan."""
    path = scan(make_result_path(output, case.name))
    described = {"SuperResolution": {"Inputs": case.describe_inputs()}}
    path.with_name(f"{case.name}_sr.json").write_text(json.dumps(described))
    return path


def test_what_is_done_is_left_out(tmp_path):
    """A result that was cut off, or is none, is not done; shares do not depend on what is done."""
    cases = [named(scan(tmp_path / f"{i}.nii")) for i in range(5)]
    paths = [result(case, tmp_path) for case in cases[:4]]
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    paths[2].write_bytes(b"no image")

    def left(skip=True, shard=None):
        return [case.name for case in select_pending_cases(cases, tmp_path, skip, shard)]

    assert left(True) == ["1", "2", "4"]
    assert [left(shard=f"{k}/2") for k in (1, 2)] == [["2", "4"], ["1"]]
    assert left(False) == ["0", "1", "2", "3", "4"]


def test_a_result_belongs_to_its_scan(tmp_path):
    """A scan that moved is done, one that changed is done again, and that of another scan is never touched."""
    first, out = scan(tmp_path / "a" / "t1.nii.gz"), tmp_path / "out"
    path = result(named(first), out)

    def state(image, skip=True):
        left = select_pending_cases([named(image, "t1")], out, skip)
        return left[0].problem or "to do" if left else "done"

    assert state(first) == "done" and state(first, skip=False) == "to do"
    moved = tmp_path / "moved.nii"  # and no longer compressed
    nib.save(nib.load(first), moved)
    assert state(moved) == "done" and state(moved, skip=False) == "to do"
    other = scan(tmp_path / "b" / "t1.nii.gz", seed=1)
    for skip in (True, False):
        assert f"{path} was made of {first}, expected {other}" in state(other, skip)
    image = nib.load(first)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([2, 1, 1, 1])), first)
    assert state(first) == "to do"
    assert state(tmp_path / "gone.nii").startswith(f"{tmp_path}/gone.nii: there is no such file")
    path.with_name("t1_sr.json").write_text("{}")
    assert str(path) in state(first)
    path.with_name("t1_sr.json").unlink()
    assert str(path) in state(first)
    path.unlink()
    assert state(other) == "to do"


def test_results_that_would_meet_are_refused(tmp_path):
    """Two resolutions of one person have one name as BIDS derivatives."""
    names = [f"sub-01_space-MNI_res-{n}_T1w" for n in (1, 2)] + ["sub-02_T1w"]
    cases = [named(Path(f"in/{name}.nii")) for name in names]
    assert not any(case.problem for case in select_pending_cases(cases, tmp_path))
    *both, alone = select_pending_cases(cases, tmp_path, bids=True)
    assert all("_res-high_desc-sr_T1w.nii.gz" in case.problem for case in both)
    assert alone.problem is None


def test_no_result_is_written_over_a_scan(tmp_path):
    first, *others = select_pending_cases([named(tmp_path / f"{name}.nii.gz") for name in ("a", "a_sr", "b")], tmp_path)
    assert "a.nii.gz: " in first.problem and f"over {tmp_path}/a_sr.nii.gz" in first.problem
    assert [(case.name, case.problem) for case in others] == [("a_sr", None), ("b", None)]
