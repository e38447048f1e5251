"""Compute what holds of the papers' theses, from the queue's results alone.

    python -m common.lab.queue.conclusions [--write]

``queue/results.csv`` has the scores, ``claims.json`` the claims with the comparisons that decide each. ``--write``
writes tables, verdicts and the picture of the thesis into the pages. The rules:

- A unit is one training, a seed: the mean of the claim's score over the people that are ``tested``. Rows without
  training have one. A difference is tested by Welch's t-test over seeds, two-sided; against a row with one unit by
  Student's.
- A difference is *sure* if p < 0.05 and at least seven of eight people have its sign in their means over seeds.
- A row counts as learned if its mean is above the better of ``start`` and cubic. In comparisons, the better of these
  two stands in for a lower row that has not learned.
- A claim *holds* if each of its comparisons is positive and has such people; its p is then the largest of them. It
  *does not hold* if a comparison is negative and has such people; its p is then the smallest of these, times the number
  of comparisons. Both p are corrected by Holm (1979) over the claims of the family. Otherwise it is *not sure*.
- A claim is *open* until each of its rows has all its seeds, and *not decidable* if the row's twin, which knows the
  degradation, gains less than 0.5 dB over cubic. Such claims count in Holm's correction, with p = 1.

"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp, ttest_ind

from ...reports.files import align_columns, save_figure
from .__main__ import HERE as QUEUE
from .__main__ import RESULTS, ROOT, read_lines
from .units import LEARNED, Lines, Unit, find_lines, measure_gain, read_book

SURE = 0.05
SAME_SIGN = 7 / 8  # of people

Table = list[list[str]]
Scores = dict[tuple[str, str], float]  # by seed and person


class Outcome(NamedTuple):
    """Mean difference of two rows in dB, its p, and the people whose difference has its sign."""

    difference: float
    p: float
    same_sign: int
    people: int

    @property
    def is_shared(self) -> bool:
        """Whether enough people have the sign."""
        return self.same_sign >= SAME_SIGN * self.people


def compare(above: Scores, below: Scores) -> Outcome:
    """Compare two rows over seeds.

    Args:
        above, below: scores by seed and person. One may have a single seed.

    Raises:
        ValueError: if both have a single seed, or a seed lacks a person.
    """
    people = sorted({person for _, person in above})
    tables = []
    for scores in (above, below):
        seeds = sorted({seed for seed, _ in scores})
        if scores.keys() != {(seed, person) for seed in seeds for person in people}:
            raise ValueError(f"expected each of {', '.join(people)} with each of the seeds {', '.join(seeds)}.")
        tables.append(np.array([[scores[seed, person] for person in people] for seed in seeds]))
    units = [table.mean(axis=1) for table in tables]
    difference = float(units[0].mean() - units[1].mean())
    if 1 not in map(len, units):
        p = ttest_ind(*units, equal_var=False).pvalue
    elif len(units[0]) > 1:
        p = ttest_1samp(units[0], units[1][0]).pvalue
    elif len(units[1]) > 1:
        p = ttest_1samp(units[1], units[0][0]).pvalue
    else:
        raise ValueError("both rows have a single seed, which has no spread.")
    each = tables[0].mean(axis=0) - tables[1].mean(axis=0)
    return Outcome(
        difference, float(p) if difference else 1.0, int((np.sign(each) == np.sign(difference)).sum()), len(people)
    )


def correct_by_holm(p: Sequence[float]) -> list[float]:
    """Correct the p of several tests, so that p bounds the probability of any wrong finding among them.

    The smallest of m is multiplied by m, the next by m - 1 and so on. No value is below an earlier one or above 1.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6(2), 1979.
    """
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = highest
    return corrected


class Verdict(NamedTuple):
    """What is known of a claim: the verdict, or how many trainings are missing, and the comparison that decides it."""

    verdict: str
    missing: int = 0
    pair: tuple[str, str] | None = None
    outcome: Outcome | None = None
    p: float = 1.0


class Paper:
    """The results of a paper's claims.

    Args:
        name: as in the CSV.
        content: its part of ``claims.json``.
        results: lines of ``results.csv``.
        book: of ``rows.json``.
    """

    def __init__(self, name: str, content: Mapping[str, Any], results: Lines, book: Mapping[str, Any]) -> None:
        self.name, self.content = name, content
        self.results = [line for line in results if line["paper"] == name]
        self.book = [row for row in book["rows"] if row["paper"] == name]
        self.sets = self.book[0]["tested"]

    def get_scores(self, place: Sequence[str], score: str = "psnr") -> Scores:
        """A score of a table's row, by seed and person of the sets."""
        lines = find_lines(self.results, self.name, place)
        return {(line["seed"], line["person"]): float(line[score]) for line in lines if line["set"] in self.sets}

    def count_missing(self, place: Sequence[str]) -> int:
        """How many trainings of a row are missing."""
        known = {seed for seed, _ in self.get_scores(place)}
        rows = [row for row in self.book if (row["table"], Unit(row, 0).label) == tuple(place)]
        seeds = {str(seed) for row in rows for seed in row.get("seeds", [0])}
        return len(seeds - known) if seeds else int(not known)

    def judge(self, family: str) -> list[Verdict]:
        """A verdict for each claim of a family."""
        claims = self.content["families"][family]
        found = [self._compare_rows(claim) for claim in claims]
        # Of each claim the pair that decides whether it holds, and the pair that decides whether it does not, with p.
        best, worst = [], []
        for pairs, _ in found:
            against = {pair: each.p for pair, each in pairs.items() if each.difference < 0 and each.is_shared}
            weak = [pair for pair, each in pairs.items() if each.difference <= 0 or not each.is_shared]
            last = max(pairs, key=lambda pair: pairs[pair].p, default=None)
            best.append((weak[0], 1.0) if weak else (last, pairs[last].p if last else 1.0))
            first = min(against, key=against.__getitem__, default=None)
            worst.append((first, min(1.0, len(pairs) * against[first]) if first else 1.0))
        corrected = [correct_by_holm([p for _, p in each]) for each in (best, worst)]
        verdicts = []
        for i, (claim, (pairs, missing)) in enumerate(zip(claims, found, strict=True)):
            if self.find_twin_fault(claim):
                verdicts.append(Verdict("not decidable"))
            elif missing:
                verdicts.append(Verdict("open", missing))
            else:
                fails = corrected[1][i] < SURE
                (pair, _), p = (worst[i], corrected[1][i]) if fails else (best[i], corrected[0][i])
                verdict = "does not hold" if fails else "holds" if p < SURE else "not sure"
                verdicts.append(Verdict(verdict, 0, pair, pairs[pair], p))
        return verdicts

    def find_twin_fault(self, claim: Mapping[str, Any]) -> bool:
        """Whether the row that knows the degradation has not learned."""
        rows = [row for row in self.book if (row["table"], Unit(row, 0).label) == (claim["table"], claim["above"][0])]
        gains = [measure_gain(self.results, row, row["twin"]) for row in rows if "twin" in row]
        return any(gain is not None and gain < LEARNED for gain in gains)

    def _compare_rows(self, claim: Mapping[str, Any]) -> tuple[dict[tuple[str, str], Outcome], int]:
        """The comparisons of a claim, and how many trainings are missing for them."""
        table, pairs = claim["table"], {}
        floor = ["cubic", *(["start"] if self.get_scores((table, "start")) else [])]
        names = dict.fromkeys([*floor, *claim["above"], *claim["below"]])
        if missing := sum(self.count_missing((table, name)) for name in names):
            return {}, missing
        scores = {name: self.get_scores((table, name), claim["score"]) for name in names}
        means = {name: np.mean(list(values.values())) for name, values in scores.items()}
        if wrong := [name for name, mean in means.items() if not np.isfinite(mean)]:
            raise ValueError(f"{self.name}, {table}: {wrong[0]} has a {claim['score']} that is not finite.")
        floor_name = max(floor, key=means.__getitem__)
        for above, below in product(claim["above"], claim["below"]):
            below = below if means[below] > means[floor_name] else floor_name
            pairs[above, below] = compare(scores[above], scores[below])
        return pairs, 0

    def describe_claims(self, family: str) -> str:
        """A line for each claim: the verdict in words, and the comparison that decides it."""
        lines = []
        for claim, known in zip(self.content["families"][family], self.judge(family), strict=True):
            line = f"- **{known.verdict.capitalize()}**: {claim['says']} ({claim['source']})."
            if known.outcome is not None and known.pair is not None:
                difference = known.outcome.difference
                line += (
                    f" {known.pair[0]} against {known.pair[1]}: "
                    + (f"{difference:+.2f} dB" if claim["score"] == "psnr" else f"{difference:+.4f}")
                    + ","
                    f" p = {known.p:.2g}, {known.outcome.same_sign} of {known.outcome.people} people."
                )
            elif known.missing:
                line += f" Trainings that are missing: {known.missing}."
            else:
                line += " The network that knows the degradation did not learn."
            lines.append(line)
        return "\n".join(lines)

    def list_rows(self, table: str) -> list[str]:
        """The rows of a table that are evaluated, in the order of the list."""
        order = [label for row in self.book for label in row.get("best", [Unit(row, 0).label])]
        known = dict.fromkeys(line["row"] for line in self.results if line["table"] == table and line["set"] != "tried")
        return sorted(known, key=lambda row: (row != "cubic", order.index(row) if row in order else -1))

    def make_table(self, table: str) -> Table:
        """A table of gains over cubic in dB: a column for each set, with the deviation over seeds."""
        cubic = {line["person"]: float(line["psnr"]) for line in find_lines(self.results, self.name, (table, "cubic"))}
        rows = {row: find_lines(self.results, self.name, (table, row)) for row in self.list_rows(table)}
        known = [{line["set"] for line in found} for found in rows.values()]
        sets = [*self.sets, *sorted(set.intersection(*known) - {*self.sets})]  # that all rows have
        counts = {name: len({line["person"] for line in self.results if line["set"] == name}) for name in sets}
        head = [f"{table}, gain in dB", *(f"{name} ({counts[name]})" for name in sets)]
        lines = [[*head, "SSIM", "largest shift", "seeds", "iterations"]]
        ssim = self.get_scores((table, "cubic"), "ssim")
        for row, found in rows.items():
            seeds = sorted({line["seed"] for line in found})
            cells = []
            for name in sets:
                base = {line["person"]: 0.0 if row == "cubic" else cubic[line["person"]] for line in found}
                gains = [
                    np.mean([float(e["psnr"]) - base[e["person"]] for e in found if (e["set"], e["seed"]) == (name, s)])
                    for s in sorted({line["seed"] for line in found if line["set"] == name})
                ]
                spread = f"±{np.std(gains, ddof=1):.2f}" if len(gains) > 2 else ""
                cells.append(f"{round(np.mean(gains), 2) + 0.0:{'' if row == 'cubic' else '+'}.2f}{spread}")
            tested = self.get_scores((table, row), "ssim")
            gain = np.mean([value - (row != "cubic") * ssim["0", person] for (_, person), value in tested.items()])
            cells.append(f"{gain:{'' if row == 'cubic' else '+'}.4f}")
            cells.append(f"{np.max([*self.get_scores((table, row), 'shift').values()]):.2f}")
            lines.append([row, *cells, str(len(seeds)), found[0]["iterations"] or "none"])
        return lines


def draw_gains(paper: Paper, tables: Sequence[str]) -> Figure:
    """Draw gains over cubic, a panel for each table: bars of rows, dots of seeds, a line for each person."""
    rows = [[row for row in paper.list_rows(table) if row != "cubic"] for table in tables]
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False, width_ratios=[*map(len, rows)])[0]
    for axes, table, names in zip(panels, tables, rows, strict=True):
        cubic = paper.get_scores((table, "cubic"))
        scores = {row: paper.get_scores((table, row)) for row in names}
        means = {row: np.mean([*values.values()]) for row, values in scores.items()}
        names.sort(key=means.__getitem__)
        of_people = []
        for place, row in enumerate(names):
            gains = {key: value - cubic["0", key[1]] for key, value in scores[row].items()}
            seeds, people = sorted({seed for seed, _ in gains}), sorted({person for _, person in gains})
            values = np.array([[gains[seed, person] for person in people] for seed in seeds])
            axes.bar(place, values.mean(), 0.8, color="C0", alpha=0.4)
            axes.plot(np.linspace(place - 0.2, place + 0.2, len(seeds) + 2)[1:-1], values.mean(axis=1), "k.")
            of_people.append(values.mean(axis=0))
        axes.plot(of_people, color="C1", linewidth=0.6)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(names)), [row.removesuffix(", warm start") for row in names], rotation=25, ha="right")
        axes.set_title(table, fontsize=9)
    panels[0].set_ylabel("gain over cubic in PSNR (dB)")
    figure.suptitle("bar: mean; dot: a seed, mean over people; line: a person, mean over seeds", fontsize=9)
    return figure


def fill_page(text: str, tables: Mapping[str, Table], lines: Mapping[str, str]) -> str:
    """A page with its generated tables, below ``<!-- table: NAME -->``, and lines, below ``<!-- line: NAME -->``."""
    for name, table in tables.items():
        head, *body = ("|" + "|".join(row) + "|\n" for row in table)
        drawn = head + "|" + "---|" * len(table[0]) + "\n" + "".join(body)
        text = re.sub(rf"(<!-- table: {re.escape(name)} -->\n)(\|.*\n)*", lambda m, d=drawn: m[1] + d, text)
    for name, line in lines.items():
        text = re.sub(rf"(<!-- line: {name} -->\n)(.+\n)*", lambda m, d=line: f"{m[1]}{d}\n", text)
    return text


def recompute(results: Lines) -> dict[Path, tuple[Paper, dict[str, Table], dict[str, str]]]:
    """What each folder's CSVs and the generated lines of its page are."""
    book = read_book((QUEUE / "rows.json").read_text(encoding="utf-8"))
    found = {}
    for name, content in json.loads((QUEUE / "claims.json").read_text(encoding="utf-8")).items():
        paper = Paper(name, content, results, book)
        tables = {name_file(table): paper.make_table(table) for table in content["tables"] if paper.list_rows(table)}
        lines = {family: paper.describe_claims(family) for family in content["families"]}
        lines["read"] = f"From {len(results)} lines of `results.csv`."
        found[ROOT / content["page"]] = (paper, tables, lines)
    return found


def name_file(table: str) -> str:
    """The CSV of a table."""
    return f"table_{re.sub(r'[^a-z0-9]+', '_', table.lower())}.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the CSVs, pages and pictures")
    arguments = parser.parse_args()
    for folder, (paper, tables, lines) in recompute(read_lines(RESULTS)).items():
        for name, table in tables.items():
            print(f"\n{folder.relative_to(ROOT) / name}\n{align_columns(table)}")
            if arguments.write:
                with (folder / name).open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows(table)
        print(*lines.values(), sep="\n")
        for page in folder.glob("*.md") if arguments.write else ():
            text = fill_page(page.read_text(encoding="utf-8"), tables, lines)
            page.write_text(text, encoding="utf-8")
            if "](thesis.png)" in text:
                drawn = [table for table in paper.content["tables"] if paper.list_rows(table)]
                save_figure(draw_gains(paper, drawn), folder / "thesis.png")


if __name__ == "__main__":
    main()
