"""A table that is merged from the folders of its runs, which are written here by hand."""

import csv
import json

import numpy as np
import pytest

from common.lab.tables.merged import merge_finished_rows
from common.reports import write_table

CASES = {"a_t1w": "a", "a_t2w": "a", "a_flair": "a", "b": "b", "c": "c", "d": "d", "e": "e"}  # and their person
SHIFT = {f"displacement_{axis}": 0.0 for axis in "xyz"}
OVERLAY = {"digest": "", "trained": {"seed": 3, "machine": "a GPU", "precision": "bfloat16"}}


class Table:
    """The folder of an ablate; its rows differ from cubic interpolation by random gains."""

    def __init__(self, folder):
        self.folder, self.rows, self.draws = folder, {}, np.random.default_rng(0)
        folder.mkdir()

    def add(self, name, gain, weights=None, facts=None, **keys):
        folder = self.folder / name
        rows = [
            {"case": case, "method": method, "psnr": psnr, "ssim": 0.9, **SHIFT, "person": person}
            | (facts or {} if method == "own" else {})
            for case, person in CASES.items()
            for method, psnr in (("cubic", 30.0), ("own", 30 + gain + self.draws.normal() / 4))
        ]
        write_table(folder, rows)
        if weights == name:
            (folder / "models").mkdir()
            (folder / "models" / "model.pt").touch()
            (folder / "models" / "model.json").write_text(json.dumps(OVERLAY))
            (folder / "training_seconds.txt").write_text("10.0\n5.5\n")  # killed and resumed
            for stage, last in (1, 3), (2, 5):
                (folder / f"history_{stage}.jsonl").write_text(json.dumps({"iteration": last}) + "\n")
        run = {"folder": name, "trained": weights, "weights": weights, "command": []}
        self.rows[name] = [run | dict.fromkeys(("start", "knows", "published")) | keys]

    def merge(self):
        merge_finished_rows(self.folder, self.rows)
        with (self.folder / "table.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def table(tmp_path):
    table = Table(tmp_path / "table")
    table.add("start", 0.2)
    table.add("net", 1, "net", start="start")
    table.add("net, consistent", 1.5, "net", start="start")
    table.add("worse", -1, "worse", start="start")
    table.add("other", 0.8, "other")
    return table


def test_a_row_says_who_how_long_and_where(table, capsys):
    facts = {"seed": 7, "iterations": 400, "seconds": 30.5, "machine": "a CPU", "precision": "float32"}
    table.add("from the scan", 1, facts=facts, published="+1.43/+0.001")
    rows = {row["method"]: row for row in table.merge() if row["case"] == "a_t2w"}
    names = ("person", "seed", "iterations", "seconds", "machine", "precision", "trained", "published")
    trained = ("a", "3", "8", "15.5", "a GPU", "bfloat16")
    assert {method: tuple(row[name] for name in names) for method, row in rows.items()} == {
        "cubic": ("a", *[""] * 7),
        "start": ("a", *[""] * 7),
        "net": (*trained, "yes", ""),
        "net, consistent": (*trained, "yes", ""),
        "worse": (*trained, "below start", ""),
        "other": (*trained, "", ""),
        "from the scan": ("a", "7", "400", "30.5", "a CPU", "float32", "", "+1.43/+0.001"),
    }
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("from the scan"))
    gain = np.mean([float(row["psnr"]) - 30 for row in table.merge() if row["method"] == "from the scan"])
    assert line.split()[-2:] == ["+1.43/+0.001", f"{gain:+.2f}/+0.000"]


def test_a_row_that_is_not_done_is_left_out(table):
    table.add("late", 1)
    (table.folder / "late" / "table.json").unlink()
    assert "late" not in {row["method"] for row in table.merge()}


def test_validations_of_all_trainings_are_drawn_together(table, monkeypatch):
    table.merge()
    assert not (table.folder / "curves.png").exists()  # none was validated
    for name, scores in ("net", (31.0, 32.5)), ("other", (30.5, 30.0)):
        lines = [json.dumps({"iteration": 10 * n, "validation/psnr": score}) for n, score in enumerate(scores, 1)]
        (table.folder / name / "history_2.jsonl").write_text("\n".join(lines))
    table.merge()
    assert (table.folder / "curves.png").stat().st_size > 0
    figures = []
    monkeypatch.setattr("common.reports.curves.save_figure", lambda figure, path: figures.append(figure))
    table.merge()
    (panel,) = figures[0].axes
    assert {line.get_label(): line.get_xydata().tolist() for line in panel.lines} == {
        "net": [[10, 31], [20, 32.5]],
        "other": [[10, 30.5], [20, 30]],
    }
