import subprocess
import sys

import numpy as np
import pytest

from .benchmarks.scan import main
from .bundles.runs import ROOT, save
from .refused import refused


def rows(*options):
    line = [sys.executable, "-m", "tests.benchmarks.scan", *options]
    said = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    heading, _, *others = (
        [cell.strip() for cell in row.split("|")[1:-1]] for row in said.splitlines() if row[:1] == "|"
    )
    return [dict(zip(heading, row, strict=True)) for row in others]


@pytest.mark.slow
def test_each_bundle_that_ships_weights_does_the_work_of_a_plain_loop():
    found = rows("--shape", "48,40,36")
    shipped = {path.parents[1].name for path in ROOT.glob("bundles/*/models/model.pt")}
    assert {row["bundle"] for row in found} == shipped - {"stacks"}  # which takes several scans
    for row in found:
        times = 2 if float(row["fine-tuning, s"]) else 1  # fine-tuned weights are compared with the shipped ones
        plain = float(row["plain loop, 1e9 multiply-adds"])
        assert times * plain == pytest.approx(float(row["this, 1e9"]), rel=0.1)
        parts = [float(row[f"{part}, s"]) for part in ("network", "agreement", "fine-tuning", "rest")]
        assert sum(parts) == pytest.approx(float(row["this, s"]), abs=0.03)
        assert all(
            float(row[key]) > 0 for key in ("network, s", "limit, s", "plain loop, s", "plain loop, GiB", "this, GiB")
        )
    assert {row["bundle"] for row in found if float(row["fine-tuning, s"])} == {"ct_guided"}
    assert {row["bundle"] for row in found if float(row["agreement, s"])} == {"guided_rdn", "udean_window"}


@pytest.mark.slow
def test_a_scan_of_ones_own_and_another_revision(tmp_path):
    save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((24, 24, 24)), np.diag([2, 2, 1, 1]))
    options = ["--scan", str(tmp_path / "scan.nii.gz"), "--revision", "HEAD"]
    (row,) = rows("--bundle", "downsampling_gan", *options)
    assert row["voxels"] == "24x24x24"
    assert float(row["before, s"]) / float(row["this, s"]) == pytest.approx(float(row["before / this"]), abs=0.01)
    refused(lambda: main(bundle="guided_rdn", scan=options[1]), ValueError, "--scan", "--bundle", "no guide")
