"""Write the tables of the evidence page from what ``judge`` found of the results of ``evidence``.

    python -m tests.benchmarks.evidence --hr FILES --scale 1,1,4 --output_dir O
    python -m common judge --cases O/cases.csv --anatomy True --output_dir O/judged
    python -m tests.benchmarks.evidence_tables O P --tables anatomy added scores

``evidence_NAME.csv`` gets all rows with the scale and the digest of the weights; ``evidence_NAME_means.csv``, which the
page shows, mean±SD over people.
"""

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np

from common.lab.queue.exams_left_out import write_csv

_PAGE = Path(__file__).parents[2] / "common" / "lab" / "tables" / "docs"
_SHOWN = {  # by table: the columns whose means the page shows, and the methods and regions
    "anatomy": (("bias_percent", "dice"), ("cubic", "result 1"), ("brain", "csf", "grey matter", "white matter")),
    "added": (("added", "correlation", "restored"), ("HR", "cubic", "result 1"), ("all",)),
    "repeated": (
        ("scan_difference", "result_difference", "ratio", "added_correlation"),
        ("results",),
        ("all but air",),
    ),
    "interval": (("coverage", "rank", "sorted"), ("result 1",), ("air", "dark", "middle", "bright")),
}
_TABLES = (*_SHOWN, "scores")
_LEFT_OUT = {("anatomy", "mr_gd")}  # after a contrast agent, HR itself is divided wrongly


def read_rows(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of a table, with the weights of the results, which must be the same."""
    known = [json.loads(file.read_text())["SuperResolution"] for file in (folder / "results").glob("*_sr.json")]
    (scale,) = {"x".join(map(str, each["Scale"])) for each in known}
    (weights,) = {(each["Bundle"], each["Weights"]["Sha256"][:8]) for each in known}
    with (folder / "judged" / f"{name}.csv").open(newline="") as text:
        rows = [row for row in csv.DictReader(text) if " of " not in row["person"]]
    return [
        {"weights": f"{weights[0]} {scale}", "digest": weights[1], **row}
        for row in rows
        if (name, row["person"]) not in _LEFT_OUT
    ]


def find_means(rows: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    """Means over people with their SD, of the columns, methods and regions that the page shows."""
    columns, methods, regions = _SHOWN[name]
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["method"] in methods and row["region"] in regions:
            groups.setdefault((row["weights"], row["region"]), []).append(row)
    return [
        {"weights": weights, "region": region, "people": str(len({row["person"] for row in of}))}
        | {
            f"{key}, {method}": format_spread(values)
            for key in columns
            for method in methods
            if (values := [float(row[key]) for row in of if row["method"] == method and row[key]])
        }
        for (weights, region), of in groups.items()
    ]


def format_spread(values: list[float]) -> str:
    """Mean and SD, both rounded to two digits of the SD."""
    mean, spread = np.mean(values), np.std(values, ddof=1)
    digits = max(0, 1 - math.floor(math.log10(spread)))
    return f"{mean:.{digits}f}±{spread:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--tables", nargs="+", choices=_TABLES, required=True)
    options = parser.parse_args()
    for name in options.tables:
        rows = [row for folder in options.folders for row in read_rows(folder, name)]
        write_csv(_PAGE / f"evidence_{name}.csv", rows)
        if name in _SHOWN:
            write_csv(_PAGE / f"evidence_{name}_means.csv", find_means(rows, name))


if __name__ == "__main__":
    main()
