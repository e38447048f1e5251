"""Each table of the papers by its one command, at tiny size: all rows that the paper has, on equal terms."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from common.commands.ablate import ablate
from tests.bundles import runs

MISALIGNED = {"I", "III, misaligned"}
ROWS = {
    ("udean", "I"): [
        "Supervised without Rigid-Registration", "Supervised with Rigid-Registration",
        "Unsupervised with DA in Feature Space", "Unsupervised with DA in Image Space",
        "Unsupervised with DA in Both Spaces",
    ],
    ("udean", "III"): ["ZSSR", "DASR", "Pseudo SR", "Blind-SR", "UDEAN (ours), the paper's form", "UDEAN (ours)"],
    ("udean", "III, misaligned"): [
        "DASR", "Pseudo SR", "Blind-SR", "UDEAN (ours), the paper's form", "UDEAN (ours)"
    ],
    ("guided_rdn", "I"): [
        "SRCNN", "2D DCSRN", "2D mDCSRN-GAN (b4u4)", "2D Pham et al. (10L-ReCNN)", "Proposed (supervised), no guide",
        "Proposed (supervised)",
    ],
    ("guided_rdn", "II"): ["ZSSR", "Model 1", "Model 2", "Proposed (unsupervised)"],
    ("guided_rdn", "III"): ["1 stage", "2 stages", "3 stages"],
    ("guided_rdn", "IV"): ["L1", "L2"],
    ("guided_rdn", "V"): ["0 mm", "1 mm", "2 mm", "3 mm", "ZSSR", "no guide"],
    ("downsampling_gan", "2"): ["ZF + EDSR", "GB + EDSR", "DSGAN + EDSR"],
    ("downsampling_gan", "3"): ["DSN + EDSR", "DSGAN + EDSR"],
    ("ct_guided", "I"): ["TSCN", "ZSSR", "SMORE", "Ours", "Supervised", "ReconResNet"],
    ("ct_guided", "II"): ["stage 1", "stages 1 and 2", "stages 1 to 3"],
}  # fmt: skip
# What the tests' phantoms are not, and the factors where a rival has others of its own.
OPTIONS = {
    "udean": {"scale": [2, 2, 2]},
    "guided_rdn": {"scale": [2, 2, 1], "measurement": "@degradation"},
    "downsampling_gan": {},
    "ct_guided": {"scale": [1, 1, 4], "ct_offset": 0, "window": [0, 900]},
}


@pytest.fixture
def data(request, tmp_path) -> Path:
    """A cohort of phantoms with the groups that the table's bundle learns from; Model 2 learns from two test scans."""
    name, table = request.param
    tiny, folder = runs.TINY[name], tmp_path / "data"
    groups = {**tiny.groups, "test": (5, 6) if (name, table) == ("guided_rdn", "II") else (5,)}
    if (name, table) == ("downsampling_gan", "3"):
        groups["source"] = (0, 1, 7)
    made = {group: [tiny.save_hr(folder, i, runs.phantom(i, (40, 44, 36))) for i in of] for group, of in groups.items()}
    made["source"] = [tiny.as_source(entry) for entry in made.get("source", [])]
    if name == "udean" and table in MISALIGNED:
        made["target"] = made["source"]
    return runs.datalist(
        folder, misaligned=name == "udean" and table in MISALIGNED, **{k: v for k, v in made.items() if v}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "data, name, table", [pytest.param(row, *row, id=", table ".join(row)) for row in ROWS], indirect=["data"]
)
def test_table(data, name, table, commands, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(runs.ROOT)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    options = {"slice_axis": "SI", "device": "$torch.device('cpu')", **OPTIONS[name]}
    ablate(table, str(data), str(tmp_path / "out"), f"bundles/{name}", size="tiny", **options)
    with (tmp_path / "out" / "table.csv").open() as file:
        methods = list(dict.fromkeys(row["method"] for row in csv.DictReader(file)))
    assert methods == ["cubic", *ROWS[name, table]]
    assert "equal terms" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert None not in [summary[method]["psnr"]["mean"] for method in methods]
