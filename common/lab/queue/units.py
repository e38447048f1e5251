"""The rows of ``rows.json`` and what is to be trained for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

ROW = ("paper", "table", "row", "seed", "choice")
LEARNED = 0.5  # dB over cubic that a twin must gain

Line = Mapping[str, str]
Lines = Sequence[Line]


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
    choice: str = ""
    trial: bool = False

    @property
    def label(self) -> str:
        """The row's name; those that it may have if it is not known yet."""
        row = self.row.get("row") or " or ".join(self.row["best"])
        return row if isinstance(row, str) else row["name"]

    @property
    def name(self) -> str:
        """Its name in messages."""
        kind = f"trial of {self.choice}" if self.trial else f"seed {self.seed}"
        return f"{self.row['paper']}, {self.row['table']}: {self.label}, {kind}"

    @property
    def evaluations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Of each evaluation: the table, the datalist and the keys. The first has the training."""
        data = self.row["tried_on" if self.trial else "data"]
        also = self.row.get("also", []) if self.seed == 0 and not self.trial else []
        return [
            (each.get("table", self.row["table"]), each.get("data", data), each.get("keys", {})) for each in [{}, *also]
        ]

    @property
    def minutes(self) -> float:
        """An estimate for one core of an AMD EPYC with AVX-512."""
        return self.row["minutes"] * (self.row["trial_share"] if self.trial else 1)

    def make_label(self, table: str, method: str) -> dict[str, Any]:
        """The first columns of a line of its results."""
        return dict(zip(ROW, (self.row["paper"], table, method, self.seed, self.choice), strict=True))

    def find_state(self, folder: Path) -> Path:
        """The folder of its state."""
        return folder / "rows" / re.sub(r"[^\w.=-]+", "_", self.name)

    def is_done(self, results: Lines) -> bool:
        """Whether ``results.csv`` has its lines."""
        place = (self.row["table"], self.label)
        lines = find_lines(results, self.row["paper"], place, self.trial)
        return any((line["seed"], line["choice"]) == (str(self.seed), self.choice) for line in lines)


def find_lines(results: Lines, paper: str, place: Sequence[str], trial: bool = False) -> list[Line]:
    """The lines of ``results.csv`` of a table's row, or of its trials."""
    wanted = (paper, *place, trial)
    return [line for line in results if (line["paper"], line["table"], line["row"], line["set"] == "tried") == wanted]


def measure_gain(results: Lines, row: Mapping[str, Any], place: Sequence[str]) -> float | None:
    """Mean PSNR of a row's place above cubic, over the people that are tested, in dB; None if it is not evaluated."""
    lines = [find_lines(results, row["paper"], each) for each in ((place[0], "cubic"), place)]
    cubic, own = ([line for line in each if line["set"] in row["tested"]] for each in lines)
    base = {line["person"]: float(line["psnr"]) for line in cubic}
    return mean(float(line["psnr"]) - base[line["person"]] for line in own) if own else None


def list_units(rows: Sequence[Mapping[str, Any]], results: Lines) -> Iterator[Unit]:
    """All units that can be known from ``results.csv``, in the order of the rows.

    What is behind a ``twin`` is known when that row has learned.
    """
    tried_values: dict[tuple[str, ...], set[str]] = {}  # by paper, table and row
    for row in rows:
        if "twin" in row and (measure_gain(results, row, row["twin"]) or 0.0) < LEARNED:
            continue
        if "best" in row:
            places = [(row["like"][0], name) for name in row["best"]]
            tried = {place: find_lines(results, row["paper"], place, True) for place in places}
            if any(
                not tried_values.get((row["paper"], *place), {""}) <= {line["choice"] for line in lines}
                for place, lines in tried.items()
            ):
                continue
            best = max(places, key=lambda place: max(float(line["psnr"]) for line in tried[place]))
            row = {**row, "row": best[1], "like": best}
        choice, place = "", (row["table"], Unit(row, 0).label)
        if "choose" in row:
            ((key, values),) = row["choose"].items()
            tried_values[(row["paper"], *place)] = {f"{key}={value}" for value in values}
            yield from (Unit(row, 0, f"{key}={value}", True) for value in values)
        elif "like" in row:
            place = tuple(row["like"])
        if "choose" in row or "like" in row:
            tried = find_lines(results, row["paper"], place, True)
            if not tried_values[(row["paper"], *place)] <= {line["choice"] for line in tried}:
                continue
            choice = max(tried, key=lambda line: float(line["psnr"]))["choice"]
        yield from (Unit(row, seed, choice) for seed in row.get("seeds", [0]))


def find_start(rows: Sequence[Mapping[str, Any]], unit: Unit) -> Unit | None:
    """The unit whose weights a unit starts from, or None."""
    for row in rows:
        if (row["paper"], row["table"], Unit(row, 0).label) == (unit.row["paper"], *unit.row.get("start", ("", ""))):
            return Unit(row, unit.seed)
    return None


def make_table(unit: Unit, tree: Path) -> list[dict[str, Any]]:
    """The row for ``ablate``."""
    bundle, row = unit.row["bundle"], unit.row["row"]
    if isinstance(row, str):
        tables = json.loads((tree / bundle / "configs" / "tables.json").read_text())
        row = next(each for name in unit.row["of"] for each in tables[name] if each["name"] == row)
    row = {"bundle": bundle, **row}
    row.pop("start", None)  # the untrained network is a row of its own
    if unit.choice:
        key, _, value = unit.choice.partition("=")
        row["override"] = set_key(row.get("override", {}), key, float(value))
    return [row]


def set_key(override: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """An override with a key that is set, also within a component that it sets as a whole."""
    head, _, last = key.rpartition("#")
    return {**override, **({head: {**override[head], last: value}} if head in override else {key: value})}
