"""The comparison of all methods, at tiny size: five tables, one of them evaluated again on noisier scans."""

import csv
import json
from pathlib import Path

import pytest

from common.lab.tables.rows import make_folder_name
from common.program.commands.ablate import ablate
from tests.bundles import runs

# Folders of the tables, the bundles whose tables.json has them, and their names there.
TASKS = {
    "isotropic": ("udean", "isotropic"),
    "in_plane": ("guided_rdn", "in plane"),
    "known": ("guided_rdn", "in plane, known degradation"),
    "through_plane": ("ct_guided", "through plane"),
    "unknown_blur": ("downsampling_gan", "unknown blur"),
}
NEEDS_NO_NETWORK = ["zero filling", "cubic", "total variation"]
NOISY = {
    "_target_": "common.degradations.ComposeDegradations",
    "degradations": ["@degradation", {"_target_": "common.degradations.RicianNoise", "sigma": 0.05, "seed": 0}],
}


@pytest.mark.slow
def test_all_tasks(tiny_bundles, tmp_path, capsys):
    """On one cohort: HR scans, guides, and CT of the subjects of the source group."""
    data, tiny = tmp_path / "data", runs.TINY["guided_rdn"]
    entries = [tiny.save_hr(data, subject, runs.phantom(subject, (40, 44, 36))) for subject in range(6)]
    for i in (0, 1):
        entries[i]["ct"] = runs.save(data / f"sub-{i}_ct.nii.gz", runs.phantom(i), runs.AFFINE)
    runs.datalist(data, source=entries[:2], target=entries[2:4], validation=entries[4:5], test=entries[5:])
    options = {"slice_axis": "SI", "device": "$torch.device('cpu')", "size": "tiny"}
    phantoms = {"through_plane": {"ct_offset": 0, "window": [0, 900]}}  # are no CT

    def table_of(task, folder, **more):
        bundle, table = TASKS[task]
        ablate(table, str(data), str(tmp_path / folder), f"bundles/{bundle}", **options, **more)

    for task in TASKS:
        table_of(task, task, **phantoms.get(task, {}))
        assert "equal terms" not in capsys.readouterr().out
    trained = len(tiny_bundles)
    table_of("in_plane", "in_plane_noisy", trained=str(tmp_path / "in_plane"), **{"scan_degradation": NOISY})
    assert all("evaluate.json" in line[0] for line in tiny_bundles[trained:])
    by_name = {}
    for task, (bundle, table) in {**TASKS, "in_plane_noisy": TASKS["in_plane"]}.items():
        names = [row["name"] for row in json.loads(Path(f"bundles/{bundle}/configs/tables.json").read_text())[table]]
        rows = {row["method"]: row for row in csv.DictReader((tmp_path / task / "table.csv").open())}
        assert list(rows) == ["cubic", *names]  # the same cubic stands beside all
        for name in names:
            cost = json.loads((tmp_path / task / make_folder_name(name) / "cost.json").read_text())
            assert 5 < float(rows[name]["psnr"]) < 60 and min(cost["seconds"].values()) > 0
            assert (cost["parameters"] == 0) == (name.removesuffix(", with data consistency") in NEEDS_NO_NETWORK)
        if task in ("isotropic", "in_plane", "through_plane"):  # agreement is a gain where the operator is right
            assert float(rows["cubic, with data consistency"]["psnr"]) > float(rows["cubic"]["psnr"])
        by_name |= {(task, name): row for name, row in rows.items()}
    assert float(by_name["in_plane_noisy", "cubic"]["psnr"]) < float(by_name["in_plane", "cubic"]["psnr"]) - 0.1
    for name in ("CycleGAN", "UDEAN"):
        # The same weights, which were trained once.
        before, after = by_name["in_plane", name], by_name["in_plane_noisy", name]
        assert after["seconds"] == before["seconds"] != ""
        assert after["iterations"] == before["iterations"] == "8"
    agreeing = by_name["isotropic", "UDEAN, with data consistency"]
    assert agreeing["iterations"] == "8" and agreeing["psnr"] != by_name["isotropic", "UDEAN"]["psnr"]
    start = by_name["isotropic", "untrained slab network"]
    assert start["iterations"] == start["trained"] == start["seconds"] == ""
