"""The interval of weights, from its calibration to its test, through the command, on errors that are known."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter

from common.__main__ import main
from common.metrics import Interval, estimate_error_scale
from tests.refused import refused

FACTORS = (2, 2, 2)
TRAINED = {"bundle": "a", "version": "1", "network": "N", "offset": [0, 0, 0]}
OVERLAY = json.dumps({"checkpoint": "model.pt", "digest": "0" * 64, "trained": TRAINED, "scale": list(FACTORS)})


def save(path, voxels, spacing=1):
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([spacing, spacing, spacing, 1.0])), path)
    return str(path)


def make_person(folder, seed):
    """HR is a result plus errors, normal ones of a known size: it differs between places, and a little by person."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 36)] * 3, indexing="ij"))
    head = (np.sqrt((grid**2).sum(axis=0)) < 0.8) * (1 + 8 * gaussian_filter(rng.standard_normal((36,) * 3), 2))
    result = 500 * gaussian_filter(head, 0.7).clip(0)
    scan = result[::2, ::2, ::2] + 5 * rng.standard_normal((18,) * 3)
    size = 3 * np.exp(rng.normal(0, 0.1)) * estimate_error_scale(result, scan, FACTORS)
    hr = result + size * rng.standard_normal(size.shape)
    names = [save(folder / f"{kind}{seed}.nii.gz", v) for kind, v in (("sr", result), ("hr", hr))]
    return [f"p{seed}", names[0], save(folder / f"scan{seed}.nii.gz", scan, 2), names[1]]


def write_cases(path, people, columns=("person", "results", "scan", "hr")):
    with path.open("w", newline="") as table:
        csv.writer(table).writerows([columns, *people])
    return str(path)


def test_calibrated_intervals_hold_errors_of_other_people(tmp_path, capsys):
    people = [make_person(tmp_path, seed) for seed in range(14)]
    overlay = tmp_path / "model.json"
    overlay.write_text(OVERLAY)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(Path(people[8][3]).read_bytes()[:500])
    cases = write_cases(tmp_path / "cases.csv", [["lost", *people[8][1:3], broken], *people[:8]])
    with pytest.raises(SystemExit, match=r"1 of 9 persons failed:\n  lost: .*broken"):
        main(["judge", "--cases", cases, "--calibrate", str(overlay)])
    known = json.loads(overlay.read_text())
    assert known["scale"] == list(FACTORS) and known["interval"]["people"] == 8
    assert "90%" in capsys.readouterr().out
    # 3 times the scale is a standard deviation.
    np.testing.assert_allclose(list(known["interval"]["factors"].values()), 3 * 1.645, rtol=0.15)
    interval, rows = Interval.read(known["interval"]), []
    for name, result, scan, hr in people[8:]:
        width = interval.compute_half_width(nib.load(result).get_fdata(), nib.load(scan).get_fdata(), FACTORS)
        rows.append([name, result, hr, save(tmp_path / f"{name}_interval.nii.gz", width)])
    cases, out = write_cases(tmp_path / "others.csv", rows, ("person", "results", "hr", "interval")), tmp_path / "out"
    main(["judge", "--cases", cases, "--output_dir", str(out)])
    with (out / "interval.csv").open(newline="") as table:
        found = list(csv.DictReader(table))
    assert {row["region"] for row in found} == {"tissue", "air", "dark", "middle", "bright"} and len(found) == 40
    for region in ("tissue", "dark", "middle", "bright", "air"):
        *held, mean, _ = [float(row["coverage"]) for row in found if row["region"] == region]
        assert mean == pytest.approx(np.mean(held), abs=1e-3) and mean == pytest.approx(0.9, abs=0.03), region
    tissue = [row for row in found if row["region"] == "tissue" and row["person"][0] == "p"]
    assert all(float(row["sorted"]) > 0.2 and float(row["rank"]) > 0.1 for row in tissue)
    for name in ("interval_coverage", "interval_sparsification"):
        assert imread(out / f"{name}.png").std() > 0.05


def test_refused(tmp_path):
    from common.program.commands.judge import judge

    person = make_person(tmp_path, 0)
    overlay = tmp_path / "model.json"
    cases = write_cases(tmp_path / "cases.csv", [person])
    refused(lambda: judge(cases=cases, calibrate=str(overlay)), FileNotFoundError, "--calibrate", overlay)
    refused(lambda: judge("sr.nii.gz", calibrate=str(overlay)), ValueError, "--calibrate", "give --cases")
    overlay.write_text(OVERLAY)
    cases = write_cases(tmp_path / "cases.csv", [[person[0], person[1], person[3]]], ("person", "results", "hr"))
    refused(lambda: judge(cases=cases, calibrate=str(overlay)), ValueError, "--calibrate", "line 2", "scan")
    refused(lambda: judge(person[1], interval=person[3]), ValueError, "--interval", person[3], "--hr")
    assert overlay.read_text() == OVERLAY and not (tmp_path / "judged").exists()
