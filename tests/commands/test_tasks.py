"""The comparison of all methods, at tiny size: four tables, evaluated again elsewhere, and what they have in common."""

import csv
import json
from pathlib import Path

import pytest

from common.commands.ablate import ablate
from common.commands.overview import print_overview
from common.errors import RunsFailedError
from tests.bundles import runs
from tests.refused import refused

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
def test_all_tasks(commands, tmp_path, capsys):
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
    trained = len(commands)
    table_of("in_plane", "in_plane_noisy", trained=str(tmp_path / "in_plane"), **{"scan_degradation": NOISY})
    assert all("evaluate.json" in line[0] for line in commands[trained:])
    print_overview(",".join(str(tmp_path / name) for name in (*TASKS, "in_plane_noisy")), str(tmp_path / "overview"))
    printed = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "overview" / "overview.csv").open()))
    by_name = {(row["table"], row["method"]): row for row in rows}
    assert len(by_name) == len(rows)
    for task, (bundle, table) in TASKS.items():
        tables = json.loads(Path(f"bundles/{bundle}/configs/tables.json").read_text())
        names = [row["name"] for row in tables[table]]
        assert [row["method"] for row in rows if row["table"] == task] == names
        for name in names:
            row = by_name[task, name]
            assert name in printed and 5 < float(row["psnr"]) < 60 and float(row["seconds"]) > 0
            assert (int(row["parameters"]) == 0) == (name.removesuffix(", with data consistency") in NEEDS_NO_NETWORK)
            # Agreement is a gain wherever the operator is the right one, and the same cubic stands beside all.
            assert row["cubic_psnr"] == by_name[task, names[0]]["cubic_psnr"]
        if task in ("isotropic", "in_plane", "through_plane"):
            agreeing = by_name[task, "cubic, with data consistency"]
            assert float(agreeing["psnr"]) > float(agreeing["cubic_psnr"])
    for name in ("CycleGAN", "UDEAN"):
        # The same weights, which were trained once, on noisier scans.
        before, after = by_name["in_plane", name], by_name["in_plane_noisy", name]
        assert float(after["cubic_psnr"]) < float(before["cubic_psnr"]) - 0.1
        assert after["training_seconds"] == before["training_seconds"] != "0.0"
        assert after["iterations"] == before["iterations"] == "8"
    agreeing = by_name["isotropic", "UDEAN, with data consistency"]
    assert agreeing["iterations"] == "8" and agreeing["psnr"] != by_name["isotropic", "UDEAN"]["psnr"]
    start = by_name["isotropic", "untrained slab network"]
    assert start["iterations"] == start["trained"] == "" and start["training_seconds"] == "0.0"


def test_what_is_not_done_is_named_and_left_out(tmp_path, capsys, monkeypatch):
    table, a, out = tmp_path / "table", tmp_path / "table" / "a", tmp_path / "out"
    for folder in (a / "models", table / "b"):
        folder.mkdir(parents=True)
    shift = {f"displacement_{axis}": 0.0 for axis in "xyz"}
    cases = [{"case": "s", "method": m, "psnr": p, "ssim": 0.9, **shift} for m, p in (("cubic", 30), ("a", 31))]
    (a / "table.json").write_text(json.dumps({"cases": cases}))
    (a / "cost.json").write_text(json.dumps({"parameters": 12, "seconds": {"s": 2.0}}))
    (a / "training_seconds.txt").write_text("10.0\n5.5\n")
    (a / "models" / "model.pt").touch()
    rows = {n: [{"seed": None, "folder": n, "trained": n, "command": []}] for n in "ab"}
    (table / "rows.json").write_text(json.dumps(rows))

    def only_row(tables):
        refused(lambda: print_overview(tables, str(out)), RunsFailedError, "not done", table / "b")
        (row,) = csv.DictReader((out / "overview.csv").open())
        return row

    expected = {"method": "a", "training_seconds": "15.5", "seconds": "2.0", "parameters": "12", "cubic_psnr": "30.0"}
    assert only_row(str(table)).items() >= {**expected, "psnr_sd": ""}.items()
    assert "+1.00" in capsys.readouterr().out
    (a / "models" / "model.pt").unlink()
    assert only_row(str(table))["training_seconds"] == "0.0", "a run that leaves no weights is no training"
    monkeypatch.chdir(table)
    assert only_row(".")["table"] == "table"
    refused(lambda: print_overview(str(out), str(out)), FileNotFoundError, "no rows")
    refused(lambda: print_overview(f"{table},{tmp_path}/x/table", str(out)), ValueError, "end alike")
