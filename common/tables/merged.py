"""The table of rows that were run one by one, perhaps on several machines: which there are, and what is done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..files import replacing
from ..reports import merge_pictures, merge_tables

ROWS = "rows.json"


def write_rows(output_dir: str | os.PathLike, runs: Iterable[tuple[str, int | None, Path]]) -> None:
    """Write ``rows.json``, by which :func:`merged` finds what the runs of a table have left.

    Args:
        output_dir: folder of the table.
        runs: of each run the row's name, the seed or None, and its folder, within ``output_dir``.
    """
    rows: dict[str, list[dict]] = {}
    for name, seed, folder in runs:
        rows.setdefault(name, []).append({"seed": seed, "folder": folder.relative_to(output_dir).as_posix()})
    with replacing(Path(output_dir) / ROWS) as path:
        path.write_text(json.dumps(rows, indent=2) + "\n")


def merged(output_dir: str | os.PathLike, against: str | None = None) -> list[str]:
    """Merge the rows whose runs are all done into one table and one picture a case, and print it.

    Args:
        output_dir: folder of the table, with ``rows.json``.
        against: as for :func:`common.reports.write_table`; passed over while that row is not done.

    Returns:
        The folders of the runs that are not done.

    Raises:
        FileNotFoundError: when there is no ``rows.json``.
    """
    path = Path(output_dir) / ROWS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; expected the output_dir of an ablate.")
    complete: dict[str, dict[int | None, list[Path]]] = {}
    missing = []
    for name, runs in json.loads(path.read_text()).items():
        folders = [Path(output_dir) / run["folder"] for run in runs]
        left = [str(folder) for folder in folders if not (folder / "table.json").is_file()]
        missing += left
        for run, folder in zip(runs, folders, strict=True):
            if not left:
                complete.setdefault(name, {}).setdefault(run["seed"], []).append(folder)
    if complete:
        print(merge_tables(output_dir, complete, against if against in ("cubic", *complete) else None))
        print(merge_pictures(output_dir, complete))
        print(f"the table, its box plots and the pictures are in {output_dir}")
    return missing
