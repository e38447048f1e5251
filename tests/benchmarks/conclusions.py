"""Recompute the papers' tables, and what holds of their conclusions, from the queue's CSVs alone.

    python -m tests.benchmarks.conclusions [--write]

``queue/results.csv`` has the scores, ``published.csv`` the papers' figures and ``claims.json`` their conclusions, with
the comparisons that decide each. ``--write`` writes what the pages show. The rules were set before a network was
trained:

- One observation is one person: the mean over seeds. Real people alone are tested.
- All people of a table are tested together, by a paired t-test, two-sided. People of one scanner resemble each other,
  and training was on one scanner. So a difference is *sure* only if it has the same sign on average in each set.
  Three people of one scanner are too few: a test needs five people.
- A family is one table of a paper: each comparison of ``claims.json``, and each of its rows against cubic, both with
  data consistency (PSNR). p is corrected by Holm (1979). What cannot be compared yet counts with p = 1, so that a row
  trained later takes nothing back. Sure is p < 0.05.
- A conclusion *holds* if all its comparisons are sure, and *does not hold* if one is surely the other way. Else it is
  *not decidable here*. A paper's margin is shown and not tested.
- A row that did not learn is in no comparison: its PSNR is not above ``start``, an untrained network. Where there is
  none, ``start`` is cubic, except for rows that the paper itself has not above cubic. Baselines, also ZSSR, need none.
- Where the table's supervised ``twin`` is not trained, or less than 0.5 dB above cubic, no trained row is compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_1samp

from common.reports.files import align_columns

from .adaptation import ROWS, TABLE, draw_adaptation
from .queue.units import CONSISTENT, Lines, read_book

ROOT, QUEUE = Path(__file__).parents[2], Path(__file__).parent / "queue"
LIST = ROOT / "common" / "tables" / "docs"  # of all rows
BASELINES = ("cubic", "zero filling", "total variation", "ZSSR")

_LEARNED = 0.5  # dB that the supervised twin must be above cubic
_FEWEST = 5  # people of a test
_SURE = 0.05

Table = list[list[str]]


class Comparison(NamedTuple):
    """Row ``above`` should have a higher score than ``below``, in the table ``setting``."""

    setting: str
    above: str
    below: str
    score: str  # column of results.csv


class Outcome(NamedTuple):
    """Mean difference over people, whether each set's mean has its sign, p, or why there is no test."""

    difference: float
    agree: bool
    p: float
    reason: str = ""

    def is_sure(self, sign: int) -> bool:
        """Whether the difference surely has a sign."""
        return self.p < _SURE and self.agree and sign * self.difference > 0


class Paper:
    """The tables of a paper.

    Args:
        name: as in the CSVs.
        families: by table of the paper, as in ``claims.json``.
        results: lines of ``results.csv``.
        published: lines of ``published.csv``.
        book: of ``rows.json``.
    """

    def __init__(
        self, name: str, families: Mapping[str, Any], results: Lines, published: Lines, book: Mapping[str, Any]
    ) -> None:
        self.name, self.families = name, families
        self.settings = {key: value for family in families.values() for key, value in family["tables"].items()}
        self.lines: dict[tuple[str, str], list[Mapping[str, str]]] = {}
        for line in results:
            if line["paper"] == name and line["set"] != "tried":
                self.lines.setdefault((line["table"], line["row"]), []).append(line)
        self.published = {(line["table"], line["row"]): line for line in published if line["paper"] == name}
        self.book = [row for row in book["rows"] if row["paper"] == name]

    def find(self, setting: str, row: str) -> list[Mapping[str, str]]:
        """The lines of a row of a table."""
        return self.lines.get(self.locate(setting, row), [])

    def locate(self, setting: str, row: str) -> tuple[str, str]:
        """The queue's table and row that a row of a table is."""
        known = self.settings[setting]
        if row in BASELINES:
            return known["baselines"], row
        return tuple(known["rows"].get(row, {}).get("is", (setting, row)))

    def find_fault(self, setting: str, row: str) -> str:
        """Why a row is in no comparison, or ""."""
        if not self.find(setting, row):
            return "not trained"
        if row in BASELINES:
            return ""
        known = self.settings[setting]
        if "twin" in known:
            twin = self.lines.get(tuple(known["twin"]))
            if not twin:
                return "supervised twin not trained"
            if _average_gain(twin, self.find(setting, "cubic")) < _LEARNED:
                return "supervised twin did not learn"
        stated = self.published.get((known.get("published", setting), row))
        if known["start"][1] == "cubic" and stated and float(stated["psnr"]) <= float(stated["cubic_psnr"]):
            return ""
        start = self.lines.get(tuple(known["start"]), [])
        return "" if _average_gain(self.find(setting, row), start) > 0 else "did not learn"

    def list_family(self, family: str) -> list[Comparison]:
        """All comparisons of a table of the paper."""
        claims = [pair for claim in self.families[family]["claims"] for pair in list_comparisons(claim)]
        rows = [(setting, row) for setting, known in self.families[family]["tables"].items() for row in known["rows"]]
        return claims + [Comparison(setting, row, "cubic", "psnr_dc") for setting, row in rows]

    def compare(self, pair: Comparison) -> Outcome:
        """Compare two rows, without correction."""
        for row in (pair.above, pair.below):
            if fault := self.find_fault(pair.setting, row):
                return Outcome(np.nan, False, 1.0, f"{row}: {fault}")
        scores = [average_seeds(self.find(pair.setting, row), pair.score) for row in (pair.above, pair.below)]
        people = sorted(scores[0].keys() & scores[1].keys())
        if len(people) < _FEWEST:
            return Outcome(np.nan, False, 1.0, f"{len(people)} people are too few")
        gains = np.array([scores[0][person] - scores[1][person] for person in people])
        of = {line["person"]: line["set"] for line in self.find(pair.setting, pair.above)}
        sets = np.array([of[person] for person in people])
        agree = len({np.sign(gains[sets == each].mean()) for each in sets}) == 1
        return Outcome(float(gains.mean()), agree, float(ttest_1samp(gains, 0).pvalue) if gains.any() else 1.0)

    def correct_family(self, family: str) -> dict[Comparison, Outcome]:
        """The outcome of each comparison of a table, with corrected p."""
        outcomes = {pair: self.compare(pair) for pair in self.list_family(family)}
        corrected = correct_by_holm([outcome.p for outcome in outcomes.values()])
        return {pair: outcome._replace(p=p) for (pair, outcome), p in zip(outcomes.items(), corrected, strict=True)}

    def judge(self, family: str) -> Table:
        """The conclusions of a table: each with the verdict, its least difference and its largest p."""
        outcomes = self.correct_family(family)
        lines = [["conclusion", "here", "difference", f"p of {len(outcomes)}"]]
        for claim in self.families[family]["claims"]:
            found = [(pair.score, outcomes[pair]) for pair in list_comparisons(claim)]
            against = [each for each in found if each[1].is_sure(-1)]
            made = [each for each in against or found if not each[1].reason]
            if against:
                verdict = "**does not hold**"
            elif found and all(outcome.is_sure(1) for _, outcome in found):
                verdict = "**holds**"
            else:
                reasons = [outcome.reason for _, outcome in found if outcome.reason]
                reasons = reasons if made else [reason.rpartition(": ")[2] for reason in reasons]  # of all rows
                why = claim.get("undecidable") or "; ".join(dict.fromkeys(reasons)) or "not sure"
                verdict = f"not decidable here: {why}"
            least = {score: outcome.difference for score, outcome in sorted(made, key=lambda each: -each[1].difference)}
            cells = [f"{least[score]:+.{digits}f}" for score, digits in (("psnr", 2), ("ssim", 3)) if score in least]
            p = [f"{np.ceil(1000 * max(outcome.p for _, outcome in made)) / 1000:.3f}"] if made else ["–"]
            says = claim["says"] + (f" (by {claim['margin']})" if "margin" in claim else "")
            lines.append([says, verdict, ", ".join(cells) or "–", *p])
        return lines

    def summarize(self) -> str:
        """The page's first line: which rows are not surely above data consistency alone, and what holds."""
        tests = [each for family in self.families for each in self.correct_family(family).items()]
        helped = {
            self.locate(pair.setting, pair.above): (pair, outcome) for pair, outcome in tests if pair.score == "psnr_dc"
        }
        made = [(pair, outcome) for pair, outcome in helped.values() if not outcome.reason]
        unsure = [f"{pair.above} ({pair.setting})" for pair, outcome in made if not outcome.is_sure(1)]
        verdicts = [line[1] for family in self.families for line in self.judge(family)[1:]]
        counts = [
            sum(kind in verdict for verdict in verdicts) for kind in ("**holds", "does not hold", "not decidable")
        ]
        useless = f"; not surely, so of no help: {', '.join(unsure)}" if unsure else ""
        return (
            f"**{len(made)} of {len(helped)} rows can be compared with data consistency alone, "
            f"{len(made) - len(unsure)} are surely above it{useless}. "
            f"Conclusions: {counts[0]} hold, {counts[1]} do not, {counts[2]} are not decidable here.**"
        )

    def make_table(self, setting: str) -> Table:
        """A table: baselines, the paper's rows and further rows of the queue, with gains over cubic."""
        known = self.settings[setting]
        cubic = self.find(setting, "cubic")
        sets = list(dict.fromkeys(line["set"] for line in cubic))
        counts = {each: len({line["person"] for line in cubic if line["set"] == each}) for each in sets}
        lines = [
            [setting, "paper", "gain", *(c for e in sets for c in (f"{e} ({counts[e]})", "DC")), "seeds", "training"]
        ]
        own = [name for row in self.book if row["table"] == setting for name in list_labels(row)]
        for row in dict.fromkeys([*BASELINES, *known["rows"], *own]):
            if row == "untrained slab network":
                continue
            paper = ["–", "–"]
            if stated := self.published.get((known.get("published", setting), row)):
                gain = float(stated["psnr"]) - float(stated["cubic_psnr"])
                paper = [f"{float(stated['psnr']):.2f}", f"{gain:+.2f}" if row != "cubic" else "–"]
            found = self.find(setting, row)
            cells = [_describe_gain(found, cubic, each, score) for each in sets for score in ("psnr", "psnr_dc")]
            seeds = len({line["seed"] for line in found})
            place = self.locate(setting, row)
            training = next((line["iterations"] or "–" for line in found), f"{self.count_hours(*place):.1f} h")
            lines.append([row, *paper, *cells, str(seeds or "–"), training])
        if all(line[1] == "–" for line in lines[1:]):  # a table of our own
            return [[line[0], *line[3:]] for line in lines]
        return lines

    def count_hours(self, table: str, row: str) -> float:
        """Estimated hours of what is left to train for a row."""
        minutes, lines = 0.0, self.lines.get((table, row), [])
        for each in (each for each in self.book if each["table"] == table and row in list_labels(each)):
            left = {str(seed) for seed in each.get("seeds", [0])} - {line["seed"] for line in lines}
            trials = len(next(iter(each.get("choose", {"": []}).values()))) if left else 0
            minutes += each["minutes"] * (len(left) + each["trial_share"] * trials) / len(list_labels(each))
        return minutes / 60

    def list_rows(self) -> Iterator[list[str]]:
        """All rows of the paper's tables and of the queue: iterations and seeds, or what is left."""
        for content in self.families.values():
            for setting in content["tables"]:
                for row, *_, seeds, training in self.make_table(setting)[1:]:
                    place = self.locate(setting, row)
                    same = "" if place == (setting, row) else f"{place[1]} of {place[0]}"
                    done = f"{training} iterations" if training != "–" else "done"
                    state = done if self.find(setting, row) else "not trained"
                    hours = 0.0 if same else self.count_hours(*place)
                    yield [self.name, setting, row, state, seeds.replace("–", "0"), f"{hours:.1f}", same]
            for setting, what in content.get("lacking", {}).items():
                for row, hours in what["hours"].items():
                    yield [self.name, setting, row, "not in the queue", "0", str(hours or "–"), what["why"]]
        for each in (each for each in self.book if "best" in each):
            rank, of = each["best"]["rank"], each["best"]["of"]
            seeds = [{line["seed"] for line in self.lines.get((each["table"], row), [])} for row in of]
            if sum({"1", "2"} <= known for known in seeds) < rank:
                hours, note = each["minutes"] * len(each["seeds"]) / 60, f"seeds 1 and 2, of {', '.join(of)}"
                yield [self.name, each["table"], f"best rival {rank}", "not trained", "0", f"{hours:.1f}", note]


def list_labels(row: Mapping[str, Any]) -> list[str]:
    """The names of the rows that are trained together, without data consistency; none if not known yet."""
    names = (name if isinstance(name, str) else name["name"] for name in row.get("rows", []))
    return [name.removesuffix(CONSISTENT) for name in names]


def list_comparisons(claim: Mapping[str, Any]) -> list[Comparison]:
    """The comparisons that decide a conclusion; none if it is not decidable here."""
    keys = ("tables", "above", "below", "scores")
    return [Comparison(*each) for each in product(*(claim[key] for key in keys))] if "tables" in claim else []


def average_seeds(lines: Lines, score: str) -> dict[str, float]:
    """A score of each person, the mean over seeds."""
    values: dict[str, list[float]] = {}
    for line in lines:
        values.setdefault(line["person"], []).append(float(line[score]))
    return {person: float(np.mean(each)) for person, each in values.items()}


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


def _average_gain(lines: Lines, others: Lines) -> float:
    """Mean gain in PSNR over another row, over the people of both."""
    ours, theirs = average_seeds(lines, "psnr"), average_seeds(others, "psnr")
    return float(np.mean([ours[person] - theirs[person] for person in ours.keys() & theirs.keys()] or [np.nan]))


def _describe_gain(lines: Lines, cubic: Lines, group: str, score: str) -> str:
    """A cell: mean gain over cubic of a set, with the seeds' deviation if there are three; or cubic's PSNR."""
    theirs = average_seeds(cubic, "psnr")
    seeds: dict[str, list[float]] = {}
    for line in (line for line in lines if line["set"] == group):
        base = 0.0 if line["row"] == "cubic" and score == "psnr" else theirs[line["person"]]
        seeds.setdefault(line["seed"], []).append(float(line[score]) - base)
    means = [float(np.mean(each)) for each in seeds.values()]
    if not means:
        return "–"
    spread = f"±{np.std(means, ddof=1):.2f}" if len(means) > 2 else ""
    return f"{np.mean(means):{'' if lines[0]['row'] == 'cubic' and score == 'psnr' else '+'}.2f}{spread}"


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def name_file(kind: str, table: str) -> str:
    """The CSV of a table or its conclusions, such as ``table_iii_2x2x1.csv``."""
    return f"{kind}_{re.sub(r'[^a-z0-9]+', '_', table.lower())}.csv"


def recompute(results: Lines) -> dict[Path, tuple[dict[str, Table], dict[str, str]]]:
    """What each folder's CSVs and the generated lines of its pages are."""
    published = read_lines(QUEUE / "published.csv")
    book = read_book((QUEUE / "rows.json").read_text(encoding="utf-8"))
    found, rows = {}, [["paper", "table", "row", "state", "seeds", "hours left", "note"]]
    for name, content in json.loads((QUEUE / "claims.json").read_text(encoding="utf-8")).items():
        paper = Paper(name, content["families"], results, published, book)
        tables = {}
        for family, each in paper.families.items():
            tables |= {name_file("table", setting): paper.make_table(setting) for setting in each["tables"]}
            tables[name_file("claims", family)] = paper.judge(family)
        lines = {"helped": paper.summarize()}
        if TABLE in paper.families:
            left = sum(paper.count_hours(TABLE, row) for row in ROWS.values())
            picture = "![Gain over cubic by person and seed](adaptation.png)"
            lines["adaptation"] = f"*No picture yet: its networks take {left:.1f} h of one core.*" if left else picture
        found[ROOT / content["page"]] = (tables, lines)
        rows += paper.list_rows()
    hours = {
        lacking: sum(float(row[5]) for row in rows[1:] if row[5] != "–" and (row[3] == "not in the queue") == lacking)
        for lacking in (False, True)
    }
    found[LIST] = (
        {"papers_rows.csv": rows},
        {
            "read": f"From {len(results)} lines of `results.csv`; {hours[False]:.0f} hours of one core are left, "
            f"{hours[True]:.0f} more for rows that the queue lacks."
        },
    )
    return found


def fill_page(text: str, tables: Mapping[str, Table], lines: Mapping[str, str]) -> str:
    """A page with its generated tables, below ``<!-- table: NAME -->``, and lines, below ``<!-- line: NAME -->``."""
    for name, table in tables.items():
        head, *body = ("|" + "|".join(row) + "|\n" for row in table)
        drawn = head + "|" + "---|" * len(table[0]) + "\n" + "".join(body)
        text = re.sub(rf"(<!-- table: {re.escape(name)} -->\n)(\|.*\n)*", lambda m, d=drawn: m[1] + d, text)
    for name, line in lines.items():
        text = re.sub(rf"(<!-- line: {name} -->\n)(.+\n)*", lambda m, d=line: f"{m[1]}{d}\n", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the CSVs and pages, and the picture of adaptation")
    arguments = parser.parse_args()
    results = read_lines(QUEUE / "results.csv")
    for folder, (tables, lines) in recompute(results).items():
        for name, table in tables.items():
            print(f"\n{folder.relative_to(ROOT) / name}\n{align_columns(table)}")
            if arguments.write:
                with (folder / name).open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows(table)
        print(*lines.values(), sep="\n")
        if arguments.write and "adaptation.png" in lines.get("adaptation", ""):
            found = {
                row: [line for line in results if (line["table"], line["row"]) == (TABLE, row)]
                for row in ("cubic", *ROWS.values())
            }
            picture = draw_adaptation(found["cubic"], {legend: found[row] for legend, row in ROWS.items()})
            picture.savefig(folder / "adaptation.png", dpi=100)
        for page in folder.glob("*.md") if arguments.write else ():
            page.write_text(fill_page(page.read_text(encoding="utf-8"), tables, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
