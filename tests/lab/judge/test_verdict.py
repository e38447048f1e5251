"""The verdict of ``judge``: on results of unknown origin, by their JSON, and against HR."""

import csv
import html
import json

import numpy as np

from common.__main__ import main
from common.degradations import GaussianProfile
from tests.bundles.runs import OBLIQUE, degrade, phantom, save


def test_what_results_are_worth(tmp_path, capsys):
    hr, operator = phantom(3, (48, 44, 40)), GaussianProfile((1, 1, 4))
    lr, affine = degrade(hr, OBLIQUE, operator)
    rng = np.random.default_rng(0)
    near, wrong = hr + 0.01 * hr.max() * rng.standard_normal(hr.shape), 0.7 * hr
    volumes = {"unknown": near, "outside": near + 1e-3, "warned": near + 2e-3, "several": near + 3e-3, "dark": wrong}
    made = {"Degradation": {"Class": "GaussianProfile", "factors": [1, 1, 4]}}
    records = {
        "outside": {**made, "OutsideTraining": "voxels are 2.00 times smaller than in training"},
        "warned": {**made, "OutsideTraining": "", "Contradicts": True},
        "several": {"Verdict": "as its stacks say"},
    }
    files = [save(tmp_path / f"{name}_sr.nii.gz", volume, OBLIQUE, axes="SRA") for name, volume in volumes.items()]
    for name, record in records.items():
        (tmp_path / f"{name}_sr.json").write_text(json.dumps({"SuperResolution": record}))
    scan = save(tmp_path / "scan.nii.gz", lr, affine, axes="SRA")
    truth = save(tmp_path / "hr.nii.gz", hr, OBLIQUE, axes="SRA")
    for given in ([], ["--hr", truth]):
        out = tmp_path / f"out{len(given)}"
        main(["judge", *map(str, [*files, "--scan", scan, *given]), "--output_dir", str(out), "--report", "true"])
        said = capsys.readouterr().out
        assert said.index("What is the result worth?") < said.index("What was added")
        with (out / "verdict.csv").open(newline="") as file:
            found = {row["result"].removesuffix("_sr.nii.gz"): row["verdict"] for row in csv.DictReader(file)}
        assert all(html.escape(text) in (out / "judge.html").read_text() for text in found.values())
        if given:  # HR decides
            assert found.pop("dark").startswith("farther from HR than cubic: keep cubic; ")
            assert all(text.startswith("nearer to HR than cubic; ") for text in found.values())
            with (out / "scores.csv").open(newline="") as file:
                cubic, first, *_ = (float(row["nrmse_masked"]) for row in csv.DictReader(file))
            assert found["unknown"].endswith(f"nrmse in tissue {first:.3f}, cubic {cubic:.3f}")
            continue
        assert found["unknown"].startswith("finer than cubic") and found["unknown"].endswith("agrees with the scan")
        assert found["outside"].endswith("agrees with the scan, but voxels are 2.00 times smaller than in training")
        assert found["several"] == "by its JSON: as its stacks say"
        assert all(found[name].startswith("contradicts the scan: keep cubic") for name in ("warned", "dark"))
