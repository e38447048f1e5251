"""Training writes the range of its scans, and inference says which scans lie outside of it."""

import json

import numpy as np
import pytest
import torch

from common.transforms import compute_scan_statistics
from common.weights.loading import read_overlay

from . import runs

SEEN = {"srcnn": "source", "udean_window": "target", "ct_guided": "target", "downsampling_gan": "target"}


@pytest.mark.parametrize("bundle", [*SEEN, pytest.param("guided_rdn", marks=pytest.mark.slow)], indirect=True)
def test_weights_know_the_range_of_the_scans_in_training(bundle, tiny, trained):
    """A quarter more to both sides than LR of the group that the network learns from."""
    found, spacings, details = read_overlay(trained / "models" / "model.pt")["training_range"], [], []
    for subject in tiny.groups[SEEN.get(bundle, "target")]:
        hr = runs.phantom(subject)
        lr = tiny.degradation(torch.from_numpy(hr / np.quantile(hr, 0.999))[None])
        statistics = compute_scan_statistics(lr, tiny.degradation.compute_lr_affine(runs.AFFINE))
        spacings += statistics["slice_spacing"]
        details += statistics["in_plane_detail"]
    assert found["slice_spacing"] == pytest.approx([min(spacings) / 1.25, max(spacings) * 1.25], rel=0.01)
    assert found["in_plane_detail"] == pytest.approx([min(details) / 1.25, max(details) * 1.25], rel=0.1)
    assert found.keys() == {"in_plane_spacing", "slice_spacing", "noise", "in_plane_detail", "slice_detail"}


@pytest.mark.parametrize(
    "bundle", ["udean_window", pytest.param("guided_rdn", marks=pytest.mark.slow)], indirect=True, scope="session"
)
def test_scans_that_training_did_not_see(bundle, tiny, trained, tmp_path):
    lr = tmp_path / "lr"
    within = tiny.save_lr(lr, 7, runs.phantom(7))
    outside = [tiny.save_lr(lr, i, runs.phantom(i), runs.AFFINE @ np.diag([3, 3, 3, 1])) for i in (8, 9)]
    override, overlay = {"slice_axis": "SI"} if tiny.guided else {}, trained / "models" / "model.json"
    overlay.write_text(json.dumps(json.loads(overlay.read_text()) | {"training_range": {"slice_spacing": [0.5, 3.0]}}))
    done = runs.command(bundle, runs.CASES, trained, dataset_dir=lr, output_dir=tmp_path / "sr", **override)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sr").glob("*_sr.nii.gz"))) == 3
    lines = done.stdout.splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith(("1/3 ", "2/3 ", "3/3 "))]
    # One line a scan without another between them, nor what Ignite says of epochs, and no bar in a pipe.
    assert at == list(range(at[0], at[0] + 3)) and "poch" not in done.stdout and "\r" not in done.stdout + done.stderr
    for line, scan in zip(lines[at[0] :], (within, *outside), strict=False):
        assert scan.name.removesuffix(".nii.gz") in line
        assert ("; warning: unlike the training scans in spacing across slabs or slices" in line) == (scan != within)
    assert "trained on 0.5 to 3 mm" in done.stdout and "unlike" not in done.stderr
    assert f"are in {tmp_path / 'sr'}" in done.stdout and "3 of 3 done in " in done.stdout
