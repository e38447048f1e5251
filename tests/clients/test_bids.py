"""What ``mri-sr`` makes of a BIDS dataset, by BIDS's own validator (of the environment, VALIDATOR)."""

import json
import os
import subprocess

import numpy as np

from common.__main__ import main
from common.program.commands.super_resolve import super_resolve

from ..bundles import runs

NAMES = "acq-x_rec-norm_run-01_T1w echo-1_part-mag_MEGRE flip-2_mt-on_MPM inv-1_part-mag_MP2RAGE T2starw".split()


def list_errors(dataset):
    """Errors of the validator, and the places where they are."""
    words = [os.environ["VALIDATOR"], str(dataset), "--format", "json", "--ignoreWarnings"]
    found = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout)["issues"]["issues"]
    return [(one["code"], one.get("subCode"), one["location"]) for one in found if one["severity"] == "error"]


def test_results_are_a_valid_dataset(tmp_path, monkeypatch):
    """With label maps, error bars, pages and a 4-D scan; also among the derivatives of the dataset."""
    monkeypatch.chdir(tmp_path)
    raw, affine = tmp_path / "my ds", np.diag([1.5, 1.5, 1.5, 1])
    volume = runs.phantom(0, (22, 20, 18))
    for place in ("sub-01/ses-1", "sub-02"):
        start = place.replace("/", "_")
        for name in NAMES:
            path = runs.save(raw / place / "anat" / f"{start}_{name}.nii.gz", volume, affine)
            path.with_name(f"{path.name.removesuffix('.nii.gz')}.json").write_text('{"EchoTime": 0.003}')
        runs.save(raw / place / "func" / f"{start}_task-rest_bold.nii.gz", volume, affine)
        runs.save(raw / "derivatives" / "seg" / f"{start}_dseg.nii.gz", (volume > 100).astype(np.uint8), affine)
    runs.save(raw / "sub-03/anat/sub-03_T2w.nii.gz", np.stack([volume, 0.9 * volume], 3), affine)
    (raw / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.9.0"}')
    words = ["--participant_label", "01", "02", "--label", "derivatives/**/*_dseg.nii.gz", "--report", "--uncertainty"]
    main(["my ds", "out", "participant", *words])
    main(["my ds", "out", "participant", "--participant_label", "03", "--uncertainty"])
    super_resolve(str(raw), str(raw / "derivatives" / "sr"), bids=True)
    for folder, count in (("out", 11), ("my ds/derivatives/sr", 11)):
        assert len([*(tmp_path / folder).rglob("*_desc-sr_*.nii.gz")]) == count
        assert list_errors(tmp_path / folder) == []
