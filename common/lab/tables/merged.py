"""The table of runs: what was run, what is done, and the merged results."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.lists.datalist import FILE
from ...reports.curves import draw_validation_curves
from ...weights.loading import read_overlay
from .comparison import merge_pictures, merge_tables
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
        entry = {key: getattr(run, key) for key in ("weights", "start", "knows", "published")}
        entry |= {"command": [*command, *list_evaluation_words(run)], "datalist": digest}
        entry["folder"] = run.folder.relative_to(output_dir).as_posix()
        entry["trained"] = run.trained and Path(os.path.relpath(run.trained, output_dir)).as_posix()
        rows.setdefault(run.row, []).append(entry)
    return rows


def check_same_commands(output_dir: str | os.PathLike, rows: Mapping[str, Sequence[Mapping]]) -> None:
    """Refuse to go on with the folder of a table whose finished runs were made by other commands.

    Args:
        output_dir: folder of the table.
        rows: from :func:`describe_runs`, of the runs that are to be made or kept.
    """

    def read(table: Mapping[str, Sequence[Mapping]]) -> dict[str, list[str]]:  # all that decides on each run
        runs = [run for runs in table.values() for run in runs]
        given = ([f"weights of {r.get('trained', r['folder'])}", f"{FILE} of digest {r.get('datalist')}"] for r in runs)
        return {run["folder"]: [*run["command"], *words] for run, words in zip(runs, given, strict=True)}

    path = Path(output_dir) / ROWS
    known, new = read(json.loads(path.read_text()) if path.is_file() else {}), read(rows)
    for folder in sorted(known.keys() & new.keys()):
        if known[folder] != new[folder] and (Path(output_dir) / folder / "table.json").is_file():
            was, now = (
                " ".join(word for word in mine[folder] if word not in other[folder])
                for mine, other in ((known, new), (new, known))
            )
            raise ValueError(
                f"{Path(output_dir) / folder}: {ROWS} says that this was run with {was or 'less'}, now it is "
                f"{now or 'without that'}. Give the command as it was, or another --output_dir, or remove {ROWS} and "
                "the folders of the rows that are to be made anew."
            )


def merge_finished_rows(output_dir: str | os.PathLike, rows: Mapping[str, Sequence[Mapping]]) -> None:
    """Merge the rows with only finished runs into one table and one picture per case, and print the table.

    Args:
        output_dir: folder of the table.
        rows: from :func:`describe_runs`.
    """
    folders = {name: [Path(output_dir) / run["folder"] for run in runs] for name, runs in rows.items()}
    complete = {
        name: pool for name, pool in folders.items() if all((folder / "table.json").is_file() for folder in pool)
    }
    if not complete:
        return
    print(merge_tables(output_dir, complete, {name: _collect_row_facts(output_dir, rows[name]) for name in complete}))
    print(merge_pictures(output_dir, complete))
    histories = {
        name: [path for folder in pool for path in sorted(folder.glob("history*.jsonl"))]
        for name, pool in complete.items()
    }
    curves = draw_validation_curves(Path(output_dir) / "curves.png", histories)
    print(f"the table, its box plots{', validation curves' * curves} and the pictures are in {output_dir}")


def remove_merged(output_dir: str | os.PathLike) -> None:
    """Remove the table and the pictures of :func:`merge_finished_rows`, because runs are about to be repeated."""
    table = Path(output_dir) / "table.json"
    cases = {row["case"] for row in json.loads(table.read_text())["cases"]} if table.is_file() else ()
    pictures = (f"{case}.png" for case in cases)
    for name in ("table.csv", "boxplots.png", "curves.png", *pictures, table.name):
        (Path(output_dir) / name).unlink(missing_ok=True)


def _collect_row_facts(output_dir: str | os.PathLike, runs: Sequence[Mapping]) -> dict:
    """Return the facts about a row's finished runs, for :func:`common.lab.tables.comparison.merge_tables`.

    Returns:
        ``knew``, ``weights``, ``start`` and ``published`` of the row; and ``training``, empty without one: the
        ``iterations`` and ``seconds`` over all stages and pooled runs, and as the weights' overlay says, ``seed``,
        ``machine`` and ``precision``; None if unknown.
    """
    weights = [Path(output_dir) / run["trained"] for run in runs if run["trained"] is not None]
    return {
        "knew": runs[0]["knows"],
        **{key: runs[0][key] for key in ("weights", "start", "published")},
        "training": _describe_training([folder for folder in weights if is_trained(folder)]),
    }


def _describe_training(folders: Sequence[Path]) -> dict:
    """Return the facts about the trainings that a row pools."""
    if not folders:
        return {}
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
    return facts


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
