"""The runs of a table's rows: the configs, overrides and folder of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ...runtime.unknown_keys import has_key, split_key
from .rows import make_folder_name

_OF_EVALUATION = {"evaluate", "checkpoint", "digest"}  # keys that evaluate.json brings


@dataclass
class Run:
    """One training and its evaluation: of a row, or one of the runs that the row pools.

    Attributes:
        row: name of the row.
        title: its name in messages.
        folder: its output folder.
        configs: paths of train.json and its overlays.
        override: keys of the configs that are set.
        trained: folder of the run whose weights are evaluated, maybe of another table; None without training.
        weights: name of the row that trained them, or None.
        start: name of that row's untrained start, or None.
        knows: what its training was given, or None.
        published: the gain that its paper states, or None.
    """

    row: str
    title: str
    folder: Path
    configs: list[str]
    override: Mapping[str, Any]
    trained: Path | None
    weights: str | None = None
    start: str | None = None
    knows: str | None = None
    published: str | None = None

    @property
    def is_training(self) -> bool:
        """Whether it is a training, not only an evaluation."""
        return self.trained == self.folder

    @property
    def awaited_folder(self) -> Path | None:
        """The folder of another run, whose weights it evaluates; None if there is none."""
        return None if self.is_training else self.trained


def list_runs(
    rows: Sequence[Mapping], output_dir: Path, override: Mapping[str, Any], trained: Path | None = None
) -> list[Run]:
    """Return the runs of all rows.

    A key that only some rows' configs have is set for these. The rows without it are printed.

    Args:
        rows: as of :func:`common.lab.tables.rows.read_table_rows`.
        output_dir, override, trained: as for :func:`common.program.commands.ablate.ablate`.
    """
    taken = {"config_file", "ckpt_dir"} & override.keys()
    if taken:
        raise ValueError(f"--{taken.pop()}: ablate sets this for each run; leave it out.")
    common = ["dataset_dir", "output_dir", "ckpt_dir", "resume", "config_file", *override]
    configs_of, lacking = _list_configs(rows, override)
    runs = []
    for row in rows:
        configs = configs_of[row["name"]]
        own_override = {key: value for key, value in override.items() if row["name"] not in lacking[key]}
        pool = [{**row["override"], **entry} for entry in row["pool"] or [{}]]
        for keys in pool:
            for key in keys:
                for other in common:
                    if _are_overlapping(key, other):
                        raise ValueError(
                            f"row '{row['name']}' sets {key}, but {other} is set for all rows, which would make rows "
                            "equal; remove it from the row or from the command line."
                        )
        folder, source = output_dir / make_folder_name(row["name"]), None
        if row["weights"] is not None:
            source = (trained or output_dir) / make_folder_name(row["weights"])
        for number, keys in enumerate(pool, start=1):
            title, inner = row["name"], Path()
            if row["pool"]:
                title, inner = f"{title}, {number} of {len(pool)}", Path(str(number))
            keys = {**keys, **own_override}
            known = {key: row[key] for key in ("weights", "start", "knows", "published")}
            if "scale" in keys:
                known["published"] = None  # it is of the table's own scale
            trained_in = None if source is None else source / inner
            runs.append(Run(row["name"], title, folder / inner, configs, keys, trained_in, **known))
    return runs


def _list_configs(rows: Sequence[Mapping], keys: Collection[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return each row's configs by its name; and for each key that some rows have, the rows without it."""
    configs = {}
    having: dict[str, set] = {key: set() for key in keys}
    for row in rows:
        names = ["train", *row["overlays"]]
        configs[row["name"]] = [str(Path(row["bundle"]) / "configs" / f"{name}.json") for name in names]
        merged = ConfigParser()
        merged.read_config(configs[row["name"]])
        for key in keys:
            if has_key(merged.get(), key):
                having[key].add(row["name"])
    lacking = {key: [name for name in configs if name not in having[key]] if having[key] else [] for key in keys}
    for key, names in lacking.items():
        if names:
            print(f"--{key}: not for {'; '.join(names)}, which have no such key")
    return configs, lacking


def _are_overlapping(key: str, other: str) -> bool:
    """Whether two keys of a config are the same or one is within the other."""
    return all(map(str.__eq__, split_key(key), split_key(other)))


def make_command_words(run: Run, resume: bool, evaluate: bool = False) -> list[str]:
    """Return the words after ``python -m monai.bundle run`` that train or ``evaluate``; ``resume`` continues training.

    An evaluation lays evaluate.json over the training's configs, and over it the overlay of the weights, if there is
    one. Keys that evaluate.json adds are for it alone. If nothing is trained, it has no checkpoint.
    """
    configs = run.configs
    models = (run.trained or run.folder) / "models"
    keys = {**run.override, "output_dir": run.folder, "ckpt_dir": models}
    if evaluate:
        configs = [*configs, str(Path(configs[0]).with_name("evaluate.json"))]
        if "evaluate#evaluator" in ConfigParser(ConfigParser.load_config_file(configs[-1])):
            keys = {"evaluate#evaluator#shipped": None, **keys}  # a table has the rows that it names
        overlay = models / "model.json"
        if run.trained is None:
            keys = {"checkpoint": None, **keys}
        elif overlay.is_file():
            configs.append(str(overlay))
            keys = {"checkpoint": overlay.with_suffix(".pt"), **keys}  # its present path
    else:
        keys = {key: value for key, value in keys.items() if split_key(key)[0] not in _OF_EVALUATION}
        if resume:
            keys["resume"] = True
    return [f"--config_file={configs}", *_format_options(keys)]


def list_evaluation_words(run: Run) -> list[str]:
    """Return the words that a run's evaluation has and its training does not have."""
    return _format_options({key: value for key, value in run.override.items() if split_key(key)[0] in _OF_EVALUATION})


def _format_options(keys: Mapping[str, object]) -> list[str]:
    """Return keys as words. None is an expression, because MONAI ignores an override that is None."""
    # With the equals sign, because a value may begin with a dash.
    return [f"--{key}={'$None' if value is None else value}" for key, value in keys.items()]
