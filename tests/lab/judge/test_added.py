"""What was added to a scan, by ``judge``: results whose added part is known."""

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from common.__main__ import main
from common.degradations import GaussianProfile, KSpaceTruncation
from tests.bundles.runs import OBLIQUE, degrade, phantom, save

SCANS = {"cubes": KSpaceTruncation((2, 2, 2)), "slices": GaussianProfile((1, 1, 4))}


def judge(folder, *options) -> dict[tuple[str, str], dict[str, float]]:
    """Rows of the table by result and region."""
    main(["judge", *map(str, options), "--output_dir", str(folder), "--report", "true"])
    with (folder / "added.csv").open(newline="") as file:
        rows = {(row.pop("result"), row.pop("region")): row for row in csv.DictReader(file)}
    assert "data:image/png" in (folder / "judge.html").read_text()
    for row in rows.values():
        row.pop("person")
        row.pop("method")
        row.pop("degradation")
    return {key: {name: float(value) for name, value in row.items() if value} for key, row in rows.items()}


@pytest.mark.parametrize(("kind", "axes"), [("cubes", "LSP"), ("slices", "SRA")])
def test_the_parts_of_known_results(kind, axes, tmp_path):
    """In files whose axes the network has turned, which their JSON does not say."""
    operator, hr = SCANS[kind], phantom(3, (48, 44, 40))
    lr, affine = degrade(hr, OBLIQUE, operator)
    factors = operator.factors
    band = KSpaceTruncation(factors)
    bandlimited = math.prod(factors) * band.adjoint(band(torch.from_numpy(hr))).numpy()
    invented = np.random.default_rng(0).standard_normal(hr.shape) * 0.1 * hr.max()
    nearly = hr + 0.002 * hr.max() * (np.arange(hr.size) == 0).reshape(hr.shape)  # HR itself is refused
    results = {"hr2": nearly, "flat": bandlimited, "wrong": hr + invented}
    files = [save(tmp_path / f"{name}_sr.nii.gz", volume, OBLIQUE, axes=axes) for name, volume in results.items()]
    record = {"Class": type(operator).__name__, "factors": list(factors)}
    for file in files * (kind == "slices"):  # truncation is known by the grids
        sidecar = file.with_name(file.name.replace(".nii.gz", ".json"))
        sidecar.write_text(json.dumps({"SuperResolution": {"Degradation": record}}))
    truth = save(tmp_path / "hr.nii.gz", hr, OBLIQUE, axes=axes)
    scan = save(tmp_path / "scan.nii.gz", lr, affine, axes=axes)
    rows = judge(tmp_path / "out", *files, "--scan", scan, "--hr", truth)
    right, flat, wrong = (rows[file.name, "all"] for file in files)
    missing = rows["HR", "all"]
    assert right["added"] == pytest.approx(missing["added"], rel=1e-3) and missing["added"] > 0.5
    assert right["correlation"] == pytest.approx(1) and right["restored"] == pytest.approx(100)
    if kind == "cubes":
        assert flat["added"] < 1e-4 * missing["added"] and abs(flat["restored"]) < 5
    assert wrong["restored"] < 0 < wrong["correlation"] < 0.9
    assert abs(rows["cubic", "all"]["correlation"]) < 0.9 and rows["cubic", "all"]["added"] < missing["added"]
    # The scan hardly sees it, in its own units, where the result lies; a ramp changes a little at the border.
    added = nib.as_closest_canonical(nib.load(tmp_path / "out" / "hr2_sr_added.nii.gz"))
    np.testing.assert_allclose(added.affine, OBLIQUE, atol=1e-4)
    assert operator(torch.from_numpy(added.get_fdata().copy())).norm() < 3e-3 * np.linalg.norm(lr)
