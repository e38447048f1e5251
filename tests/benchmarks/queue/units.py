"""The rows of ``rows.json`` and what is to be trained for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROW = ("paper", "table", "row", "seed", "choice")
CONSISTENT = ", with data consistency"

Lines = Sequence[Mapping[str, str]]


def read_book(text: str) -> dict[str, Any]:
    """The content of ``rows.json``, with ``rows`` that have the values of their group and the defaults."""
    book = json.loads(text)
    book["rows"] = []
    for group in book["groups"]:
        for row in group.pop("rows"):
            keys = {**book["keys"], **group.get("keys", {}), **row.get("keys", {})}
            book["rows"].append({**book["defaults"], **group, **row, "keys": keys})
    return book


class Unit(NamedTuple):
    """What is trained and evaluated as a whole: a row with a seed, or a trial.

    Attributes:
        row: of ``rows.json``.
        seed: of the training.
        choice: the chosen or tried ``key=value``, or "".
        trial: whether it is a trial.
    """

    row: Mapping[str, Any]
    seed: int
    choice: str
    trial: bool

    @property
    def label(self) -> str:
        """The name of its row without data consistency."""
        first = self.row["rows"][0]
        return (first if isinstance(first, str) else first["name"]).removesuffix(CONSISTENT)

    @property
    def name(self) -> str:
        """Its name in messages."""
        kind = f"trial of {self.choice}" if self.trial else f"seed {self.seed}"
        return f"{self.row['paper']}, {self.row['table']}: {self.label}, {kind}"

    @property
    def sets(self) -> dict[str, str]:
        """The datalist of each set of people that it is evaluated on."""
        return {"tried": self.row["tried_on"]} if self.trial else self.row["sets"]

    @property
    def minutes(self) -> float:
        """An estimate for one core of an AMD EPYC with AVX2; few rows were measured."""
        return self.row["minutes"] * (self.row["trial_share"] if self.trial else 1)

    def make_label(self, method: str) -> dict[str, Any]:
        """The first columns of its lines, of one of the rows that it trains."""
        return dict(zip(ROW, (self.row["paper"], self.row["table"], method, self.seed, self.choice), strict=True))

    def find_state(self, folder: Path) -> Path:
        """The folder of its state."""
        return folder / "rows" / re.sub(r"[^\w.=-]+", "_", self.name)

    def is_done(self, results: Lines) -> bool:
        """Whether ``results.csv`` has its lines."""
        return bool(find_lines(results, self.row, self.label, self.trial, seed=str(self.seed), choice=self.choice))


def find_lines(
    results: Lines, row: Mapping[str, Any], label: str, trial: bool, **values: str
) -> list[Mapping[str, str]]:
    """The lines of ``results.csv`` of a row, or of its trials, with these values."""
    wanted = {"paper": row["paper"], "table": row["table"], "row": label, **values}
    return [
        line
        for line in results
        if (line["set"] == "tried") == trial and all(line[key] == value for key, value in wanted.items())
    ]


def list_units(rows: Sequence[Mapping[str, Any]], results: Lines, curves: Lines) -> Iterator[Unit]:
    """All units that can be known from ``results.csv`` and ``curves.csv``, in the order of the rows."""
    trials: dict[tuple[str, str, str], set[str]] = {}  # what each row tries, by paper, table and name
    for row in rows:
        if "best" in row:
            ranked = rank_rows(row["like"], row["best"]["of"], curves)
            if not ranked:
                continue
            row = {**row, "rows": [ranked[row["best"]["rank"] - 1]]}
        choice, like = "", {**row, "row": Unit(row, 0, "", False).label, **row.get("like", {})}
        own = (like["paper"], like["table"], like["row"])
        if "choose" in row:
            ((key, values),) = row["choose"].items()
            yield from (Unit(row, 0, f"{key}={value}", True) for value in values)
            trials[own] = {f"{key}={value}" for value in values}
        if "choose" in row or "like" in row:
            tried = find_lines(results, like, like["row"], True)
            if not trials[own] <= {line["choice"] for line in tried}:
                continue
            choice = max(tried, key=lambda line: float(line["psnr"]))["choice"]
        yield from (Unit(row, seed, choice, False) for seed in row.get("seeds", [0]))


def rank_rows(like: Mapping[str, Any], names: Sequence[str], curves: Lines) -> list[str]:
    """Names of rows by their best validation, the best first; none if one of them is not trained."""
    best: dict[str, float] = {}
    for line in curves:
        if (line["paper"], line["table"], line["seed"], line["trial"]) == (like["paper"], like["table"], "0", "False"):
            best[line["row"]] = max(float(line["psnr"]), best.get(line["row"], 0.0))
    return sorted(names, key=lambda name: -best[name]) if best.keys() >= set(names) else []


def make_table(unit: Unit, tree: Path) -> list[dict[str, Any]]:
    """The rows for ``ablate``: those of the unit, each also with data consistency."""
    bundle = unit.row["bundle"]
    tables = json.loads((tree / bundle / "configs" / "tables.json").read_text())
    known = {row["name"]: row for name in reversed(unit.row["of"]) for row in tables[name]}
    rows = []
    for name in unit.row["rows"]:
        row = {"bundle": bundle, **(known[name] if isinstance(name, str) else name)}
        row.pop("start", None)  # the untrained network is a row of its own
        if unit.choice and "weights" not in row:
            override, (key, value) = row.get("override", {}), unit.choice.split("=")
            head, _, last = key.rpartition("#")
            chosen = {head: {**override[head], last: float(value)}} if head in override else {key: float(value)}
            row["override"] = {**override, **chosen}
        rows.append(row)
        if not row["name"].endswith(CONSISTENT):
            rows.append({"name": row["name"] + CONSISTENT, "weights": row["name"], "data_consistency": True})
    return rows
