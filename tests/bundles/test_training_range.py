"""Inference tells which scans lie outside of what the weights were trained on, and super-resolves them all."""

from __future__ import annotations

import numpy as np
import pytest

from . import runs


@pytest.mark.parametrize("bundle", ["udean", "guided_rdn"], indirect=True, scope="session")
def test_scans_that_training_did_not_see(bundle, tiny, trained, tmp_path):
    lr = tmp_path / "lr"
    within = tiny.save_lr(lr, 7, runs.phantom(7))
    outside = [tiny.save_lr(lr, i, runs.phantom(i), runs.AFFINE @ np.diag([3, 3, 3, 1])) for i in (8, 9)]
    override = {"slice_axis": "SI"} if tiny.guided else {}
    done = runs.command(
        bundle,
        ["inference"],
        trained,
        dataset_dir=lr,
        output_dir=tmp_path / "sr",
        training_range={"slice_spacing": [0.5, 3.0]},
        **override,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sr").glob("*_sr.nii.gz"))) == 3
    assert str(within) not in done.stderr
    for scan in outside:
        assert done.stderr.count(f"{scan}: not like the scans") == 1
    assert done.stderr.count("in training 0.5 to 3 mm") == 2
