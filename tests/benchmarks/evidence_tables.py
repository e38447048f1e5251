"""Write the tables of the evidence page from what ``judge`` found of the results of ``evidence``.

    python -m tests.benchmarks.evidence --hr FILES --scale 1,1,4 --output_dir O
    python -m common judge --cases O/cases.csv --anatomy True --output_dir O/judged
    python -m tests.benchmarks.evidence_tables O [FURTHER FOLDERS]

``evidence_NAME.csv`` gets all rows with the scale and the digest of the weights; ``evidence_NAME_means.csv``, which the
page shows, mean±SD over people.
"""

import argparse
import csv
import json
import math
from pathlib import Path

from common.lab.queue.exams_left_out import write_csv

_PAGE = Path(__file__).parents[2] / "common" / "lab" / "tables" / "docs"
_SHOWN = {  # by table: the columns whose means the page shows, and the methods and regions
    "anatomy": (("bias_percent", "dice"), ("cubic", "result 1"), ("brain", "csf", "grey matter", "white matter")),
    "added": (("added", "correlation", "restored"), ("HR", "cubic", "result 1"), ("all",)),
    "scores": (("psnr_masked", "ssim", "ssim_masked"), ("cubic", "result 1"), (None,)),
    "repeated": (
        ("scan_difference", "result_difference", "ratio", "added_correlation"),
        ("results",),
        ("all but air",),
    ),
    "interval": (("coverage", "rank", "sorted"), ("result 1",), ("air", "dark", "middle", "bright")),
}


def read_rows(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of a table, with the weights of the results, which must be the same."""
    known = [json.loads(file.read_text())["SuperResolution"] for file in (folder / "results").glob("*_sr.json")]
    (scale,) = {"x".join(map(str, each["Scale"])) for each in known}
    (weights,) = {(each["Bundle"], each["Weights"]["Sha256"][:8]) for each in known}
    if not (file := folder / "judged" / f"{name}.csv").exists():
        return []
    with file.open(newline="") as text:
        return [{"weights": f"{weights[0]} {scale}", "digest": weights[1], **row} for row in csv.DictReader(text)]


def format_spread(mean: str, spread: str) -> str:
    """Both rounded to two digits of the spread; empty if there is no mean."""
    if not mean:
        return ""
    digits = max(0, 1 - math.floor(math.log10(float(spread))))
    return f"{float(mean):.{digits}f}±{float(spread):.{digits}f}"


def find_means(rows: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    """The means of ``judge``, with their spread, of the columns, methods and regions that the page shows."""
    columns, methods, regions = _SHOWN[name]
    lines: dict[tuple[str | None, ...], dict[str, dict[str, str]]] = {}
    for row in rows:
        kind, _, people = row["person"].partition(" of ")
        if people and row["method"] in methods and row.get("region") in regions:
            keys = (row["weights"], row["digest"], people, row["method"], row.get("region"))
            lines.setdefault(keys, {})[kind] = row
    first = ("weights", "digest", "people", "method", "region")
    return [
        {key: value for key, value in zip(first, keys, strict=True) if value is not None}
        | {key: format_spread(each["mean"][key], each["SD"][key]) for key in columns}
        for keys, each in lines.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    folders = parser.parse_args().folders
    for name in _SHOWN:
        if rows := [row for folder in folders for row in read_rows(folder, name)]:
            write_csv(_PAGE / f"evidence_{name}.csv", [row for row in rows if " of " not in row["person"]])
            write_csv(_PAGE / f"evidence_{name}_means.csv", find_means(rows, name))


if __name__ == "__main__":
    main()
