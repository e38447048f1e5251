"""What is done of a list: each entry once, by whatever number of jobs and processes, and nothing that is done."""

import nibabel as nib
import numpy as np

from common.data.lists.sharding import own_share
from common.io.naming import result_path
from tests.refused import refused

ENTRIES = [{"image": f"in/{i}.nii", "name": f"{i}"} for i in range(5)]


def names(*args, **options):
    return [entry["name"] for entry in own_share(ENTRIES, *args, **options)]


def test_jobs_of_an_array_share_the_list(tmp_path):
    for jobs in (1, 3, 7):
        shares = [names(tmp_path, shard=f"{job}/{jobs}") for job in range(1, jobs + 1)]
        assert sorted(name for share in shares for name in share) == ["0", "1", "2", "3", "4"]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for shard in ("3/2", "0/4", "x", "1", 3, "1/0", "-1/2", "1.0/2"):
        refused(lambda shard=shard: names(tmp_path, shard=shard), ValueError, f"shard is {shard!r}", "--shard 3/16")


def test_what_is_done_is_left_out(tmp_path, capsys):
    """A result that was cut off, or is none, is not done; shares do not depend on what is done."""
    for name in "0123":
        nib.save(nib.Nifti1Image(np.arange(60.0).reshape(3, 4, 5), np.eye(4)), result_path(tmp_path, name))
    result_path(tmp_path, "1").write_bytes(result_path(tmp_path, "1").read_bytes()[:-30])
    result_path(tmp_path, "2").write_bytes(b"no image")
    assert names(tmp_path, skip_existing="true") == ["1", "2", "4"]
    assert f"2 of 5 scans have their results in {tmp_path}" in capsys.readouterr().out
    assert [names(tmp_path, True, shard=f"{k}/2") for k in (1, 2)] == [["2", "4"], ["1"]]
    assert names(tmp_path) == ["0", "1", "2", "3", "4"]


def test_no_result_is_written_over_a_scan(tmp_path):
    found = [{"image": str(tmp_path / f"{name}.nii.gz"), "name": name} for name in ("a", "a_sr", "b")]
    first, *others = own_share(found, tmp_path)
    assert "a.nii.gz: " in first["problem"] and f"over {tmp_path}/a_sr.nii.gz" in first["problem"]
    assert others == found[1:]
