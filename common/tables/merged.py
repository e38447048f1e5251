"""The table of runs: what was run, what is done, and the merged results."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.lists.datalist import FILE
from ..reports import merge_pictures, merge_tables
from .runs import Run, evaluated_with, words

ROWS = "rows.json"


def described(output_dir: str | os.PathLike, runs: Sequence[Run]) -> dict[str, list[dict]]:
    """Return the content of ``rows.json``: the runs of each row.

    Each run has its seed, its folder and that of the evaluated weights, both relative to ``output_dir``, its command, a
    digest of the datalist, the row that trained its weights, that row's untrained start, and what its training knew.
    """
    rows: dict[str, list[dict]] = {}
    listed = Path(str(runs[0].override["dataset_dir"])) / FILE
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()[:12] if listed.is_file() else None
    for run in runs:
        folder = run.folder.relative_to(output_dir).as_posix()
        # Without output_dir, which a command in another working directory spells differently.
        command = [word for word in words(run, False) if not word.startswith(("--output_dir=", "--ckpt_dir="))]
        command += evaluated_with(run)
        trained = run.trained and Path(os.path.relpath(run.trained, output_dir)).as_posix()
        rows.setdefault(run.row, []).append(
            {
                "seed": run.seed,
                "folder": folder,
                "trained": trained,
                "command": command,
                "datalist": digest,
                "weights": run.weights,
                "start": run.start,
                "knows": run.knows,
            }
        )
    return rows


def check_same(output_dir: str | os.PathLike, rows: Mapping[str, Sequence[Mapping]], all_rows: bool) -> None:
    """Refuse to go on with the folder of a table whose runs were made by other commands.

    Args:
        output_dir: folder of the table.
        rows: from :func:`described`, of the runs that are to be made or kept.
        all_rows: whether unfinished runs and removed rows must be the same too. This is needed if each row has a
            command of its own.

    Raises:
        ValueError: with the first run that differs, and in what.
    """
    known, new = (
        {run["folder"]: [*run["command"], *_taken(run)] for runs in table.values() for run in runs}
        for table in (rows_in(output_dir), rows)
    )
    if not known:
        return
    for folder in sorted(known.keys() | new.keys() if all_rows else known.keys() & new.keys()):
        done = (Path(output_dir) / folder / "table.json").is_file()
        if known.get(folder) != new.get(folder) and (all_rows or done):
            was, now = (
                " ".join(word for word in mine.get(folder, ["(no such run)"]) if word not in other.get(folder, []))
                for mine, other in ((known, new), (new, known))
            )
            raise ValueError(
                f"{Path(output_dir) / folder}: {ROWS} says that this was run with {was or 'less'}, now it is "
                f"{now or 'without that'}. Give all commands the same, or another --output_dir, or remove {ROWS} and "
                "the folders of the rows that are to be made anew."
                + ("" if done else " An unfinished run may change if --resume True goes on without --row.")
            )


def write_rows(output_dir: str | os.PathLike[str], rows: Mapping[str, Sequence[Mapping]]) -> None:
    """Write ``rows.json``, by which :func:`merged` finds what the runs of a table have left.

    Args:
        output_dir: folder of the table.
        rows: as of :func:`described`.
    """
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    # Commands of several rows may start at once, so each writes to a name of its own.
    with tempfile.NamedTemporaryFile("w", dir=output_dir, prefix=".part-", suffix=ROWS, delete=False) as file:
        file.write(json.dumps(rows, indent=2) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, Path(output_dir) / ROWS)


def merged(output_dir: str | os.PathLike, against: str | None = None) -> list[str]:
    """Merge the rows with only finished runs into one table and one picture per case, and print the table.

    Args:
        output_dir: folder of the table, with ``rows.json``.
        against: as for :func:`common.reports.write_table`. If that row is not done, a line says so instead of the test.

    Returns:
        The folders of the runs that are not done.

    Raises:
        FileNotFoundError: when there is no ``rows.json``.
        ValueError: when no row is called ``against``.
    """
    rows = rows_in(output_dir)
    if not rows:
        raise FileNotFoundError(f"{Path(output_dir) / ROWS}: there is no such file; expected the folder of an ablate.")
    check_against(against, rows)
    complete: dict[str, dict[int | None, list[Path]]] = {}
    missing = []
    for name, runs in rows.items():
        left = not_done(output_dir, runs)
        missing += left
        for run in [] if left else runs:
            complete.setdefault(name, {}).setdefault(run["seed"], []).append(Path(output_dir) / run["folder"])
    if complete:
        tested = against in ("cubic", *complete)
        labels = {name: about(output_dir, rows[name]) for name in complete}
        print(merge_tables(output_dir, complete, against if tested else None, labels))
        if against and not tested:
            print(f"no paired t-test: the row {against} is not done")
        print(merge_pictures(output_dir, complete))
        print(f"the table, its box plots and the pictures are in {output_dir}")
    return missing


def forget(output_dir: str | os.PathLike) -> None:
    """Remove the table and the pictures of :func:`merged`, because runs are about to be repeated.

    Args:
        output_dir: folder of the table.
    """
    table = Path(output_dir) / "table.json"
    cases = {row["case"] for row in json.loads(table.read_text())["cases"]} if table.is_file() else ()
    pictures = (f"{case}{end}.png" for case in cases for end in ("", "_profile"))
    for name in ("table.csv", "boxplots.png", *pictures, table.name):
        (Path(output_dir) / name).unlink(missing_ok=True)


def check_against(against: str | None, names: Sequence[str] | Mapping) -> None:
    """Refuse a row for comparison that does not exist.

    Raises:
        ValueError: with the rows that are.
    """
    if against not in (None, "cubic", *names):
        raise ValueError(f"--against {against}: there is no such row, only cubic; {'; '.join(names)}.")


def rows_in(output_dir: str | os.PathLike) -> dict[str, list[dict]]:
    """Return the content of ``rows.json``; empty if it does not exist."""
    path = Path(output_dir) / ROWS
    return json.loads(path.read_text()) if path.is_file() else {}


def not_done(output_dir: str | os.PathLike, runs: Sequence[Mapping]) -> list[str]:
    """The folders of a row's runs, as of :func:`rows_in`, that have no table yet."""
    folders = [Path(output_dir) / run["folder"] for run in runs]
    return [str(folder) for folder in folders if not (folder / "table.json").is_file()]


def about(output_dir: str | os.PathLike, runs: Sequence[Mapping]) -> dict:
    """Return the facts about a finished row for :func:`common.reports.merge_tables`.

    Args:
        output_dir: folder of the table.
        runs: of the row, as of :func:`rows_in`.

    Returns:
        ``iterations`` of one training of the weights, over all stages and pooled runs, None if nothing is trained
        before inference; ``knew``; and ``weights`` and ``start``, the rows whose difference is the effect of training.
    """
    folders = [folder for run in runs if (folder := weights_of(output_dir, run))]
    histories = [path.read_text().splitlines() for folder in folders for path in folder.glob("history*.jsonl")]
    lengths = [json.loads(lines[-1])["iteration"] for lines in histories]
    seeds = len({run["seed"] for run in runs})
    return {
        "iterations": sum(lengths) // seeds if lengths else None,
        "knew": runs[0].get("knows"),
        "weights": runs[0].get("weights"),
        "start": runs[0].get("start"),
    }


def weights_of(output_dir: str | os.PathLike, run: Mapping) -> Path | None:
    """Return the folder of the run whose weights a run, as of :func:`rows_in`, evaluates; None without weights."""
    weights = run.get("trained", run["folder"])
    return None if weights is None else Path(output_dir) / weights


def _taken(run: Mapping) -> list[str]:
    """Return a run's weights and data, as words that are compared with its command."""
    return [f"weights of {run.get('trained', run['folder'])}", f"{FILE} of digest {run.get('datalist')}"]
