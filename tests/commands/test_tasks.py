"""The comparison of all methods, at tiny size: four tables, evaluated again elsewhere, and what they have in common."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.commands.ablate import ablate
from common.commands.overview import overview
from common.errors import RunsFailedError
from common.tables.rows import rows_of
from tests.bundles import runs

# Folders of the tables, and the bundles whose tables.json has them.
TASKS = {
    "isotropic": "udean",
    "in_plane": "guided_rdn",
    "through_plane": "ct_guided",
    "unknown_blur": "downsampling_gan",
}
NEEDS_NO_TRAINING = ["zero filling", "cubic made to agree", "total variation"]
NOISY = {
    "_target_": "common.degradations.ComposeDegradations",
    "degradations": ["@degradation", {"_target_": "common.degradations.RicianNoise", "sigma": 0.05, "seed": 0}],
}


@pytest.fixture
def data(tmp_path) -> Path:
    """One cohort for all methods: HR scans, guides, and CT of the subjects of the source group."""
    folder = tmp_path / "data"
    groups = {"source": (0, 1), "target": (2, 3), "validation": (4,), "test": (5,)}
    listed = {}
    for group, subjects in groups.items():
        for subject in subjects:
            entry = runs.TINY["guided_rdn"].save_hr(folder, subject, runs.phantom(subject, (40, 44, 36)))
            if group == "source":
                entry["ct"] = runs.save(folder / f"sub-{subject}_ct.nii.gz", runs.phantom(subject), runs.AFFINE)
            listed.setdefault(group, []).append(entry)
    return runs.datalist(folder, **listed)


def test_lengths_at_small_size(monkeypatch):
    """Each length in a small.json, some of which hang on what overlays call a row, is that of some row and stage."""
    monkeypatch.chdir(runs.ROOT)
    written, found = {}, {}
    for task, bundle in TASKS.items():
        for row in rows_of(f"bundles/{bundle}", task.replace("_", " ")):
            if row["bundle"] in ("bundles/zssr", "bundles/smore"):
                continue  # they train on each case
            parser = ConfigParser()
            names = ["train", *row["overlays"], "small"]
            parser.read_config([f"{row['bundle']}/configs/{name}.json" for name in names])
            parser.update(row["override"])
            own = found.setdefault(row["bundle"], set())
            for stage in (1, 2, 3) if "stage" in parser else (1,):
                parser["stage"] = stage
                parser.parse(reset=True)
                own.add(parser.get_parsed_content("epoch_length"))
            length = ConfigParser.load_config_file(f"{row['bundle']}/configs/small.json")["epoch_length"]
            written[row["bundle"]] = {int(n) for n in re.findall(r"\b\d+\b", str(length).replace("@stage - 1", ""))}
    assert found == written


@pytest.mark.slow
def test_all_tasks(data, commands, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(runs.ROOT)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    options = {"slice_axis": "SI", "device": "$torch.device('cpu')"}
    phantoms = {"through_plane": {"ct_offset": 0, "window": [0, 900]}}  # are no CT
    for task in TASKS:
        more = {**options, **phantoms.get(task, {})}
        ablate(task.replace("_", " "), str(data), str(tmp_path / task), f"bundles/{TASKS[task]}", size="tiny", **more)
        assert "equal terms" not in capsys.readouterr().out
    shifted = {**options, "scan_degradation": NOISY}
    trained = len(commands)
    ablate(
        "in plane", str(data), str(tmp_path / "in_plane_noisy"), "bundles/guided_rdn", size="tiny",
        trained=str(tmp_path / "in_plane"), **shifted,
    )  # fmt: skip
    assert all("evaluate.json" in line[0] for line in commands[trained:])
    tables = [str(tmp_path / name) for name in (*TASKS, "in_plane_noisy")]
    overview(",".join(tables), str(tmp_path / "overview"))
    printed = capsys.readouterr().out
    with (tmp_path / "overview" / "overview.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_name = {(row["table"], row["method"]): row for row in rows}
    assert len(by_name) == len(rows)
    for task in TASKS:
        tables = json.loads(Path(f"bundles/{TASKS[task]}/configs/tables.json").read_text())
        names = [row["name"] for row in tables[task.replace("_", " ")]]
        assert [row["method"] for row in rows if row["table"] == task] == names
        assert names[:3] == NEEDS_NO_TRAINING
        for name in names:
            row = by_name[task, name]
            assert name in printed and 5 < float(row["psnr"]) < 60 and float(row["seconds"]) > 0
            assert (int(row["parameters"]) == 0) == (name in NEEDS_NO_TRAINING)
            # Agreement is a gain wherever the operator is the right one, and the same cubic stands beside all.
            assert row["cubic_psnr"] == by_name[task, names[0]]["cubic_psnr"]
        if task != "unknown_blur":
            agreeing = by_name[task, "cubic made to agree"]
            assert float(agreeing["psnr"]) > float(agreeing["cubic_psnr"])
    for name in ("SRCNN", "UDEAN"):
        # The same weights, which were trained once, on noisier scans.
        before, after = by_name["in_plane", name], by_name["in_plane_noisy", name]
        assert float(after["cubic_psnr"]) < float(before["cubic_psnr"]) - 0.1
        assert after["training_seconds"] == before["training_seconds"] != "0.0"


def test_what_is_not_done_is_named_and_left_out(tmp_path, capsys, monkeypatch):
    for name, done in (("a", True), ("b", False)):
        folder = tmp_path / "table" / name
        folder.mkdir(parents=True)
        if done:
            shift = {f"displacement_{axis}": 0.0 for axis in "xyz"}
            scores = {"cubic": 30, name: 31}.items()
            cases = [{"case": "s", "method": m, "psnr": p, "ssim": 0.9, **shift} for m, p in scores]
            (folder / "table.json").write_text(json.dumps({"cases": cases}))
            (folder / "cost.json").write_text(json.dumps({"parameters": 12, "seconds": {"s": 2.0}}))
            (folder / "training_seconds.txt").write_text("10.0\n5.5\n")
            (folder / "models").mkdir()
            (folder / "models" / "model.pt").touch()
    rows = {n: [{"seed": None, "folder": n, "trained": n, "command": []}] for n in "ab"}
    (tmp_path / "table" / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(RunsFailedError, match=r"^not done") as error:
        overview(str(tmp_path / "table"), str(tmp_path / "out"))
    assert str(tmp_path / "table" / "b") in str(error.value)
    (row,) = csv.DictReader((tmp_path / "out" / "overview.csv").open())
    expected = {"method": "a", "training_seconds": "15.5", "seconds": "2.0", "parameters": "12", "cubic_psnr": "30.0"}
    assert {key: row[key] for key in expected} == expected and row["psnr_sd"] == ""
    assert "+1.00" in capsys.readouterr().out
    (tmp_path / "table" / "a" / "models" / "model.pt").unlink()
    with pytest.raises(RunsFailedError):
        overview(str(tmp_path / "table"), str(tmp_path / "out"))
    (row,) = csv.DictReader((tmp_path / "out" / "overview.csv").open())
    assert row["training_seconds"] == "0.0", "the start of a run that leaves no weights is no training"
    monkeypatch.chdir(tmp_path / "table")
    with pytest.raises(RunsFailedError):
        overview(".", str(tmp_path / "here"))
    (row,) = csv.DictReader((tmp_path / "here" / "overview.csv").open())
    assert row["table"] == "table"
    with pytest.raises(FileNotFoundError, match="no rows"):
        overview(str(tmp_path / "out"), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="end alike"):
        overview(f"{tmp_path}/table,{tmp_path}/x/table", str(tmp_path / "out"))
