"""Each table of the papers by its one command, at tiny size: all rows that the paper has, on equal terms."""

import csv
import json

import pytest

from common.program.commands.ablate import ablate
from tests.bundles import runs

SLABS = "untrained slab network; CycleGAN; DASR; Pseudo SR; Blind-SR; UDEAN; UDEAN, window"
ROWS = {
    ("udean", "I"): "Supervised without Rigid-Registration; Supervised with Rigid-Registration; "
    "Unsupervised with DA in Feature Space; Unsupervised with DA in Image Space; Unsupervised with DA in Both Spaces",
    ("udean", "III"): f"ZSSR; {SLABS}",
    ("udean", "III, misaligned"): SLABS,
    ("guided_rdn", "I"): "SRCNN; 2D DCSRN; 2D mDCSRN-GAN (b4u4); 2D Pham et al. (10L-ReCNN); "
    "Proposed (supervised), no guide; Proposed (supervised)",
    ("guided_rdn", "II"): "ZSSR; Model 1; Model 2; Proposed (unsupervised)",
    ("guided_rdn", "III"): "1 stage; 2 stages; 3 stages",
    ("guided_rdn", "IV"): "L1; L2",
    ("guided_rdn", "V"): "0 mm; 1 mm; 2 mm; 3 mm; ZSSR; no guide",
    ("downsampling_gan", "2"): "ZF + EDSR; GB + EDSR; DSGAN + EDSR",
    ("downsampling_gan", "3"): "DSN + EDSR; DSGAN + EDSR",
    ("ct_guided", "I"): "TSCN; ZSSR; SMORE; Ours; Supervised; ReconResNet",
    ("ct_guided", "II"): "stages 1 to 3; stage 1; stages 1 and 2",
}
# What the tests' phantoms are not, and the factors where a rival has others of its own.
OPTIONS = {
    "udean": {"scale": [2, 2, 2]},
    "guided_rdn": {"scale": [2, 2, 1], "measurement": "@degradation"},
    "downsampling_gan": {},
    "ct_guided": {"scale": [1, 1, 4], "ct_offset": 0, "window": [0, 900]},
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), ROWS)
def test_table(name, table, tiny_bundles, tmp_path, capsys):
    tiny, data = runs.TINY[name], tmp_path / "data"
    misaligned = name == "udean" and table in ("I", "III, misaligned")
    # Model 2 learns from two test scans.
    groups = {**tiny.groups, "test": (5, 6) if (name, table) == ("guided_rdn", "II") else (5,)}
    if (name, table) == ("downsampling_gan", "3"):
        groups["source"] = (0, 1, 7)
    made = {group: [tiny.save_hr(data, i, runs.phantom(i, (40, 44, 36))) for i in of] for group, of in groups.items()}
    made["source"] = [tiny.as_source(entry) for entry in made.get("source", [])]
    if misaligned:
        made["target"] = made["source"]
    runs.datalist(data, misaligned=misaligned, **{k: v for k, v in made.items() if v})
    options = {"slice_axis": "SI", "device": "$torch.device('cpu')", **OPTIONS[name]}
    ablate(table, str(data), str(tmp_path / "out"), f"bundles/{name}", size="tiny", **options)
    assert name != "udean" or (tmp_path / "out" / f"{tiny.case(5)}.png").is_file()
    rows = csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines())
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert methods == ["cubic", *ROWS[name, table].split("; ")]
    assert "equal terms" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert None not in [summary[method]["psnr"]["mean"] for method in methods]
