"""The table of runs: what was run, what is done, and the merged results."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.lists.datalist import FILE
from ..reports import draw_validation_curves, merge_pictures, merge_tables
from ..weights import read_overlay
from .execution import TRAINING_SECONDS, is_trained
from .runs import Run, list_evaluation_words, make_command_words

ROWS = "rows.json"


def describe_runs(output_dir: str | os.PathLike, runs: Sequence[Run]) -> dict[str, list[dict]]:
    """Return the content of ``rows.json``: the runs of each row, with their commands and a digest of the datalist.

    Folders are relative to ``output_dir``; ``trained`` is that of the evaluated weights.
    """
    rows: dict[str, list[dict]] = {}
    datalist = Path(str(runs[0].override["dataset_dir"])) / FILE
    digest = hashlib.sha256(datalist.read_bytes()).hexdigest()[:12] if datalist.is_file() else None
    for run in runs:
        # Without output_dir, which a command in another working directory spells differently.
        command = [
            word for word in make_command_words(run, False) if not word.startswith(("--output_dir=", "--ckpt_dir="))
        ]
        entry = {key: getattr(run, key) for key in ("seed", "weights", "start", "knows", "published")}
        entry |= {"command": [*command, *list_evaluation_words(run)], "datalist": digest}
        entry["folder"] = run.folder.relative_to(output_dir).as_posix()
        entry["trained"] = run.trained and Path(os.path.relpath(run.trained, output_dir)).as_posix()
        rows.setdefault(run.row, []).append(entry)
    return rows


def check_same_commands(output_dir: str | os.PathLike, rows: Mapping[str, Sequence[Mapping]], all_rows: bool) -> None:
    """Refuse to go on with the folder of a table whose runs were made by other commands.

    Args:
        output_dir: folder of the table.
        rows: from :func:`describe_runs`, of the runs that are to be made or kept.
        all_rows: whether unfinished runs and removed rows must be the same too, as for rows run one by one.

    Raises:
        ValueError: with the first run that differs, and in what.
    """

    def read(table: Mapping[str, Sequence[Mapping]]) -> dict[str, list[str]]:  # all that decides on each run
        runs = [run for runs in table.values() for run in runs]
        given = ([f"weights of {r.get('trained', r['folder'])}", f"{FILE} of digest {r.get('datalist')}"] for r in runs)
        return {run["folder"]: [*run["command"], *words] for run, words in zip(runs, given, strict=True)}

    known, new = read(read_rows(output_dir)), read(rows)
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
    """Write ``rows.json``, as of :func:`describe_runs`, by which :func:`merge_finished_rows` finds what the runs have
    left."""
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    # Commands of several rows may start at once, so each writes to a name of its own.
    with tempfile.NamedTemporaryFile("w", dir=output_dir, prefix=".part-", suffix=ROWS, delete=False) as file:
        file.write(json.dumps(rows, indent=2) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, Path(output_dir) / ROWS)


def merge_finished_rows(output_dir: str | os.PathLike, against: str | None = None) -> list[str]:
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
    rows = read_rows(output_dir)
    if not rows:
        raise FileNotFoundError(f"{Path(output_dir) / ROWS}: there is no such file; expected the folder of an ablate.")
    check_comparison_row(against, rows)
    complete: dict[str, dict[int | None, list[Path]]] = {}
    missing = []
    for name, runs in rows.items():
        left = list_unfinished(output_dir, runs)
        missing += left
        for run in [] if left else runs:
            complete.setdefault(name, {}).setdefault(run["seed"], []).append(Path(output_dir) / run["folder"])
    if complete:
        tested = against in ("cubic", *complete)
        labels = {name: describe_row(output_dir, rows[name]) for name in complete}
        print(merge_tables(output_dir, complete, against if tested else None, labels))
        if against and not tested:
            print(f"no paired t-test: the row {against} is not done")
        print(merge_pictures(output_dir, complete))
        histories = {
            name: [
                path for run in rows[name] for path in sorted((Path(output_dir) / run["folder"]).glob("history*.jsonl"))
            ]
            for name in complete
        }
        curves = draw_validation_curves(Path(output_dir) / "curves.png", histories)
        print(f"the table, its box plots{', validation curves' * curves} and the pictures are in {output_dir}")
    return missing


def remove_merged(output_dir: str | os.PathLike) -> None:
    """Remove the table and the pictures of :func:`merge_finished_rows`, because runs are about to be repeated."""
    table = Path(output_dir) / "table.json"
    cases = {row["case"] for row in json.loads(table.read_text())["cases"]} if table.is_file() else ()
    pictures = (f"{case}.png" for case in cases)
    for name in ("table.csv", "boxplots.png", "curves.png", *pictures, table.name):
        (Path(output_dir) / name).unlink(missing_ok=True)


def check_comparison_row(against: str | None, names: Sequence[str] | Mapping) -> None:
    """Refuse a row for comparison that does not exist."""
    if against not in (None, "cubic", *names):
        raise ValueError(f"--against {against}: there is no such row, only cubic; {'; '.join(names)}.")


def read_rows(output_dir: str | os.PathLike) -> dict[str, list[dict]]:
    """Return the content of ``rows.json``; empty if it does not exist."""
    path = Path(output_dir) / ROWS
    return json.loads(path.read_text()) if path.is_file() else {}


def list_unfinished(output_dir: str | os.PathLike, runs: Sequence[Mapping]) -> list[str]:
    """The folders of a row's runs, as of :func:`read_rows`, that have no table yet."""
    folders = [Path(output_dir) / run["folder"] for run in runs]
    return [str(folder) for folder in folders if not (folder / "table.json").is_file()]


def describe_row(output_dir: str | os.PathLike, runs: Sequence[Mapping]) -> dict:
    """Return the facts about a finished row, as of :func:`read_rows`, for :func:`common.reports.merge_tables`.

    Returns:
        ``knew``, ``weights``, ``start`` and ``published`` of the row; ``data_consistency``, whether it corrects
        results; and ``trainings``: by the seed of the runs, and empty without training, the ``iterations`` and
        ``seconds`` of the training over all stages and pooled runs, and as the weights' overlay says, ``seed``,
        ``machine`` and ``precision``; None if unknown.
    """
    trained: dict[int | None, list[Path]] = {}
    for run in runs:
        weights = run.get("trained", run["folder"])
        if weights is not None and is_trained(Path(output_dir) / weights):
            trained.setdefault(run["seed"], []).append(Path(output_dir) / weights)
    costs = [read_cost(Path(output_dir) / run["folder"]) for run in runs]
    # Evaluations by earlier versions do not say it.
    consistent = any(
        cost.get("data_consistency", any("ConsistentInferer" in word for word in run["command"]))
        for run, cost in zip(runs, costs, strict=True)
    )
    return {
        "knew": runs[0].get("knows"),
        **{key: runs[0].get(key) for key in ("weights", "start", "published")},
        "data_consistency": consistent,
        "trainings": {seed: _describe_training(folders, seed) for seed, folders in trained.items()},
    }


def read_cost(folder: Path) -> dict:
    """Return what a run's evaluation has left in ``cost.json``; empty if there is none."""
    path = folder / "cost.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _describe_training(folders: Sequence[Path], seed: int | None) -> dict:
    """Return the facts about the trainings that a row pools for a seed; None for that of the configs."""
    histories = [path.read_text().splitlines() for folder in folders for path in folder.glob("history*.jsonl")]
    seconds = [float(line) for folder in folders for line in _read_lines(folder / TRAINING_SECONDS)]
    overlays = [(read_overlay(folder / "models" / "model.pt") or {}).get("trained", {}) for folder in folders]
    facts: dict[str, Any] = {
        "iterations": sum(json.loads(lines[-1])["iteration"] for lines in histories) or None,
        "seconds": round(sum(seconds), 1) if seconds else None,
    }
    for key in ("seed", "machine", "precision"):
        values = list(dict.fromkeys(overlay[key] for overlay in overlays if key in overlay))
        facts[key] = values[0] if len(values) == 1 else "; ".join(map(str, values)) or None
    return facts if seed is None else {**facts, "seed": seed}


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
