"""A table that is merged from the folders of its runs, which are written here by hand."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from common.reports import write_table
from common.reports.t_tests import run_paired_t_tests
from common.tables.merged import merge_finished_rows

CASES = {"a_t1w": "a", "a_t2w": "a", "a_flair": "a", "b": "b", "c": "c", "d": "d", "e": "e"}  # and their person
SHIFT = {f"displacement_{axis}": 0.0 for axis in "xyz"}
OVERLAY = {"digest": "", "trained": {"seed": 3, "machine": "a GPU", "precision": "bfloat16"}}


class Table:
    """The folder of an ablate; its rows differ from cubic interpolation by random gains."""

    def __init__(self, folder):
        self.folder, self.rows, self.draws = folder, {}, np.random.default_rng(0)
        folder.mkdir()

    def add(self, name, gain, weights=None, consistent=False, people=True, facts=None, **keys):
        folder = self.folder / name
        rows = [
            {
                "case": case,
                "method": method,
                "psnr": psnr,
                "ssim": 0.9,
                **SHIFT,
                **({"person": person} if people else {}),
            }
            | (facts or {} if method == "own" else {})
            for case, person in CASES.items()
            for method, psnr in (("cubic", 30.0), ("own", 30 + gain + self.draws.normal() / 4))
        ]
        write_table(folder, rows)
        if people:
            (folder / "cost.json").write_text(json.dumps({"data_consistency": consistent}))
        if weights == name:
            (folder / "models").mkdir()
            (folder / "models" / "model.pt").touch()
            (folder / "models" / "model.json").write_text(json.dumps(OVERLAY if people else {**OVERLAY, "trained": {}}))
            (folder / "training_seconds.txt").write_text("10.0\n5.5\n")  # killed and resumed
            for stage, last in (1, 3), (2, 5):
                (folder / f"history_{stage}.jsonl").write_text(json.dumps({"iteration": last}) + "\n")
        run = {"seed": None, "folder": name, "trained": weights, "weights": weights, "command": []}
        self.rows[name] = [run | dict.fromkeys(("start", "knows", "published")) | keys]

    def merge(self, against=None):
        merge_finished_rows(self.folder, self.rows, against)
        with (self.folder / "table.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def table(tmp_path):
    table = Table(tmp_path / "table")
    table.add("start", 0.2)
    table.add("net", 1, "net", start="start")
    table.add("net, consistent", 1.5, "net", True, start="start")
    table.add("worse", -1, "worse", start="start")
    table.add("other", 0.8, "other")
    return table


def test_a_row_says_who_how_long_and_where_and_its_family(table, capsys):
    facts = {"seed": 7, "iterations": 400, "seconds": 30.5, "machine": "a CPU", "precision": "float32"}
    table.add("from the scan", 1, facts=facts, published="+1.43/+0.001")
    rows = {row["method"]: row for row in table.merge() if row["case"] == "a_t2w"}
    names = ("person", "seed", "iterations", "seconds", "machine", "precision", "trained", "published", "family")
    trained = ("a", "3", "8", "15.5", "a GPU", "bfloat16")
    assert {method: tuple(row[name] for name in names) for method, row in rows.items()} == {
        "cubic": ("a", *[""] * 8),
        "start": ("a", *[""] * 8),
        "net": (*trained, "yes", "", "without data consistency"),
        "net, consistent": (*trained, "yes", "", "with data consistency"),
        "worse": (*trained, "below start", "", ""),
        "other": (*trained, "", "", "without data consistency"),
        "from the scan": ("a", "7", "400", "30.5", "a CPU", "float32", "", "+1.43/+0.001", "without data consistency"),
    }
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("from the scan"))
    gain = np.mean([float(row["psnr"]) - 30 for row in table.merge() if row["method"] == "from the scan"])
    assert line.split()[-2:] == ["+1.43/+0.001", f"{gain:+.2f}/+0.000"]


def test_a_row_that_is_not_done_is_left_out(table, capsys):
    table.add("late", 1)
    (table.folder / "late" / "table.json").unlink()
    assert "late" not in {row["method"] for row in table.merge("late")}
    assert "no paired t-test: the row late is not done" in capsys.readouterr().out


def test_people_are_compared_within_families(table, capsys):
    """By scipy on the means of people; a row of another family changes no p; the CSV alone gives the same."""
    rows = table.merge("cubic")
    said, found = capsys.readouterr().out, json.loads((table.folder / "table.json").read_text())["paired_t_test"]
    psnr = {(row["method"], row["case"]): float(row["psnr"]) for row in rows}

    def compute_p(method):
        gains = [np.mean([psnr[method, c] - 30 for c in CASES if CASES[c] == person]) for person in "abcde"]
        return ttest_1samp(gains, 0).pvalue

    family = {method: compute_p(method) for method in ("net", "other")}
    for method, p in family.items():
        test = found["methods"][method]["psnr"]
        assert test["n"] == 5 and test["p_uncorrected"] == pytest.approx(p)
        assert test["p"] == pytest.approx(max(p, 2 * min(family.values())))
    assert found["methods"]["net, consistent"]["psnr"]["p"] == pytest.approx(compute_p("net, consistent"))
    assert found["methods"]["worse"]["psnr"]["p"] is None
    assert found["families"]["without data consistency"] == ["net", "other"]
    assert "without data consistency: 2 tests, of net; other\n" in said and "not tested: start; worse\n" in said
    assert run_paired_t_tests(rows, "cubic", ["psnr", "ssim"]) == found
    table.add("other, consistent", 1.2, "other", True)
    table.merge("cubic")
    again = json.loads((table.folder / "table.json").read_text())["paired_t_test"]["methods"]
    assert again["net"] == found["methods"]["net"] and again["net, consistent"] != found["methods"]["net, consistent"]


def test_runs_of_earlier_versions_are_merged(tmp_path, capsys):
    """They lack people and facts, and say in their commands only whether they were made to agree."""
    table = Table(tmp_path / "table")
    table.add("net", 1, "net", people=False)
    table.add("consistent", 1, "net", people=False, command=["--inferer={'_target_': 'common.ConsistentInferer'}"])
    rows = table.merge("cubic")
    assert "person" not in rows[0] and "machine" not in rows[0] and rows[-1]["seconds"] == "15.5"
    tests = json.loads((table.folder / "table.json").read_text())["paired_t_test"]
    assert tests["families"] == {"without data consistency": ["net"], "with data consistency": ["consistent"]}
    assert tests["methods"]["net"]["psnr"]["n"] == len(CASES)


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
