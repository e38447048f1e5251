"""Recompute the tables of a ``results.md`` and what follows from them, from the CSVs in its folder alone.

    python -m tests.benchmarks.conclusions [FOLDER ...] [--write]

``--write`` writes each table to ``<name>_table.csv``, which the page shows. Rules, decided after
the first tables had been seen and before others:

- One observation is one person: the mean over their volumes and seeds. Two people are not tested.
- A row learned if its ``trained`` is ``yes``, or if it learns from the scan itself (``knew``). All other rows are in no
  family: rows that did not learn, and methods that learn nothing (cubic, zero filling, total variation, the untrained
  start, each also with data consistency). They are shown, not tested.
- A group of people has up to four families. *raw*: all rows without data consistency, against cubic. *DC*: all rows
  with it, against cubic with it. *added*: each row with it, against itself without. *rivals*: UDEAN against each other
  method without it, as Liu et al. (2023) claim; its variants and supervised network are no rivals.
- PSNR is tested alone: two-sided paired t-test, p corrected within its family (Holm 1979). A difference is *sure* if p
  stays below 0.05 with one row more in the family: so one further row takes nothing back.
- A CSV that does not say which rows learned has no family. Nor has a table whose supervised network is in no group of
  people 0.5 dB above cubic; another group may be of misaligned training data, which it cannot learn from.

Figures are rounded to the nearest, but p is rounded up.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from common.reports.files import align_columns

ROOT = Path(__file__).parents[2]
FOLDER, UDEAN = ROOT / "common" / "tables" / "docs", ROOT / "bundles" / "udean" / "docs"
# By table, its groups of people and their CSVs. Those that the folder lacks are left out.
TABLES = {
    "isotropic": {"heads": "isotropic.csv", "real": "isotropic_real.csv"},
    "in_plane": {"heads": "in_plane.csv", "real": "in_plane_real.csv"},
    "through_plane": {"heads": "through_plane.csv", "real": "through_plane_real.csv"},
    "in_plane_earlier": {
        "heads": "in_plane_earlier.csv",
        "real": "in_plane_earlier_real.csv",
        "noise": "in_plane_earlier_noise.csv",
    },
    "published": {
        "unpaired": "published.csv",
        "unpaired, real": "published_real.csv",
        "misaligned": "published_misaligned.csv",
        "misaligned, real": "published_misaligned_real.csv",
    },
    "unknown_blur": {
        "heads": "unknown_blur.csv",
        "real": "unknown_blur_real.csv",
        "another scanner": "unknown_blur_scanner.csv",
    },
}

_CONSISTENT = ", with data consistency"
_TWIN = "UDEAN's network, supervised"
_LEARNED = 0.5  # dB that the supervised network must be above cubic
_FEWEST = 3  # people of a test
_FACTS = ("iterations", "trained", "knew")

Rows = Sequence[Mapping[str, Any]]


def recompute(folder: Path) -> dict[str, list[list[str]]]:
    """Return what the CSVs of a folder say, by title.

    ``isotropic`` is a table, ``isotropic/heads`` says of its rows how many people and volumes they are over and how
    they were trained, ``isotropic/heads/DC`` is a family.
    """
    found = {}
    for name, files in TABLES.items():
        groups = {group: read_rows(folder / file) for group, file in files.items() if (folder / file).is_file()}
        if groups:
            found[name] = make_table(groups)
        for group, rows in groups.items():
            found[f"{name}/{group}"] = describe_rows(rows)
            psnr = average_people(rows, "psnr")
            for family, pairs in list_families(rows).items() if is_learnable(groups) else ():
                found[f"{name}/{group}/{family}"] = run_tests(psnr, pairs)
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV that has a line for each method and case."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def average_people(rows: Rows, column: str) -> dict[str, dict[str, float]]:
    """Return a column's means over the volumes and seeds of each person, by method and person."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row["method"], {}).setdefault(row["person"], []).append(float(row[column]))
    return {method: {person: float(np.mean(v)) for person, v in people.items()} for method, people in values.items()}


def describe_rows(rows: Rows) -> list[list[str]]:
    """Return a table of all methods: people, volumes, and how they were trained as far as the CSV says."""
    table = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        counts = (str(len({row[key] for row in own})) for key in ("person", "case"))
        table[method] = [method, *counts, *(own[0].get(fact) or "-" for fact in _FACTS)]
    return [["row", "people", "volumes", *_FACTS], *table.values()]


def is_learnable(groups: Mapping[str, Rows]) -> bool:
    """Whether a table's supervised network gains enough over cubic in any group, or the table has none."""
    psnr = (average_people(rows, "psnr") for rows in groups.values())
    gains = [_average(each[_TWIN]) - _average(each["cubic"]) for each in psnr if _TWIN in each]
    return not gains or max(gains) >= _LEARNED


def list_families(rows: Rows) -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of rows to compare, by family. A family without pairs is left out."""
    learned = (row for row in rows if row.get("trained") == "yes" or row.get("knew", "").startswith("scan"))
    methods = list(dict.fromkeys(row["method"] for row in learned))
    raw = [method for method in methods if not method.endswith(_CONSISTENT)]
    consistent = [method for method in methods if method.endswith(_CONSISTENT)]
    families = {
        "raw": [(method, "cubic") for method in raw],
        "DC": [(method, f"cubic{_CONSISTENT}") for method in consistent],
        "added": [(method, method.removesuffix(_CONSISTENT)) for method in consistent],
        "rivals": [("UDEAN", method) for method in raw if "UDEAN" in raw and not method.startswith("UDEAN")],
    }
    return {family: pairs for family, pairs in families.items() if pairs}


def run_tests(psnr: Mapping[str, Mapping[str, float]], pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return a family's table: differences in dB, with their least and most of one person, p and its corrections.

    Args:
        psnr: as of :func:`average_people`, the same people in all methods.
        pairs: the rows to compare.
    """
    lines, tests = [["row", "against", "people", "difference", "least", "most", "p", "Holm", "one row more"]], []
    for method, other in pairs:
        ours, theirs = ([psnr[name][person] for person in psnr[method]] for name in (method, other))
        gains = np.subtract(ours, theirs)
        lines.append([method, other, str(len(gains)), *map(_round, (gains.mean(), gains.min(), gains.max()))])
        tests.append(float(ttest_rel(ours, theirs).pvalue) if len(gains) >= _FEWEST else np.nan)
    for line, *p in zip(lines[1:], tests, correct_by_holm(tests), correct_by_holm([*tests, 1.0]), strict=False):
        line += [
            "-" if np.isnan(tests).any() else f"{Decimal(each).quantize(Decimal('0.001'), ROUND_UP)}" for each in p
        ]
    return lines


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


def make_table(groups: Mapping[str, Rows]) -> list[list[str]]:
    """Return one table of all groups: PSNR (dB) and SSIM of cubic, and the gains of the other rows over it.

    Rows with data consistency have columns of their own if there are several. If a CSV has ``psnr_registered``, its
    gain is a column too, with the largest displacement along an axis (voxels), and if it has ``published``, the gain
    that the method's paper states.
    """
    methods = list(dict.fromkeys(row["method"] for rows in groups.values() for row in rows))
    if sum(method.endswith(_CONSISTENT) for method in methods) > 1:
        suffixes = {"": "", ", DC": _CONSISTENT}
        methods = [method for method in methods if not method.endswith(_CONSISTENT)]
    else:
        suffixes = {"": ""}
    columns = {"method": [method.replace(_CONSISTENT, ", DC") for method in methods]}
    for group, rows in groups.items():
        title = f"{group} ({len({row['person'] for row in rows})})"
        cells = _describe_gains(rows, {"psnr": 2, "ssim": 3})
        columns |= {title + end: [cells.get(m + suffix, "-") for m in methods] for end, suffix in suffixes.items()}
        if "psnr_registered" in rows[0]:
            cells = _describe_gains(rows, {"psnr_registered": 2})
            shifts = [{**row, "shift": max(abs(float(row[f"displacement_{axis}"])) for axis in "xyz")} for row in rows]
            for method, people in average_people(shifts, "shift").items():
                cells[method] += f" ({_round(_average(people))})"
            columns[f"{group}, registered"] = [cells.get(method, "-") for method in methods]
        if "published" in rows[0]:
            stated = {row["method"]: row["published"] or "-" for row in rows}
            published = [stated.get(method, "-") for method in methods]
            if published not in columns.values():  # once, if other people are tested with the same weights
                columns[f"{group}, published"] = published
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def _describe_gains(rows: Rows, decimals: Mapping[str, int]) -> dict[str, str]:
    """Return each method's cell: its gains in some scores over cubic, or cubic's scores."""
    cells: dict[str, list[str]] = {}
    for score, digits in decimals.items():
        means = {method: _average(people) for method, people in average_people(rows, score).items()}
        for method, mean in means.items():
            gain = mean if method == "cubic" else mean - means["cubic"]
            cells.setdefault(method, []).append(_round(gain, digits, "" if method == "cubic" else "+"))
    return {method: "/".join(each) for method, each in cells.items()}


def _average(people: Mapping[str, float]) -> float:
    return float(np.mean(list(people.values())))


def _round(value: float, digits: int = 2, sign: str = "") -> str:
    text = f"{value:{sign}.{digits}f}"
    return text if float(text) else text.replace("-", sign)  # -0.000 is no loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[FOLDER, UDEAN])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    found = [(folder, *item) for folder in arguments.folders for item in recompute(folder).items()]
    for folder, title, lines in found:
        print(f"\n{title}\n{align_columns(lines)}")
        if arguments.write and title in TABLES:
            with (folder / f"{title}_table.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(lines)


if __name__ == "__main__":
    main()
