"""The rows of a table, read from a file and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ...io.files import read_json_object
from .comparison import RESERVED

# Keys of a row.
_KEYS = {
    "name": str,
    "bundle": str,
    "overlays": list,
    "override": dict,
    "pool": list,
    "weights": str | None,
    "data_consistency": bool,
    "start": str,
    "knows": str,
    "published": str,
}
_JSON = {str: "string", list: "array", dict: "object", bool: "boolean", str | None: "string or null"}
# Keys that make a row's results agree with their scans.
_DATA_CONSISTENCY = {
    "evaluate#evaluator#inferer": {
        "_target_": "common.inferers.ConsistentInferer",
        "inferer": "@train#inferer",
        "degradation": "@degradation",
    }
}


def read_table_rows(bundle: str | None, table: str) -> list[dict]:
    """The rows of a table, each with all its keys.

    Args:
        bundle: folder of the bundle of rows that name none, or None.
        table: a table's name in that bundle's configs/tables.json, or a .json file that holds one table.

    Returns:
        The rows as the command ``ablate`` explains them. ``weights`` is the name of the row that trains
        them, its own name if it does. A row with another's weights has its keys, with its own laid over them.
    """
    if bundle is not None:
        _check_bundle("--bundle", bundle)
    elif not table.endswith(".json"):
        raise ValueError(
            f"--table {table}: without --bundle there are no tables to search; name its bundle with --bundle, "
            "or give a .json file whose rows name theirs."
        )
    path = Path(table) if table.endswith(".json") or bundle is None else Path(bundle) / "configs" / "tables.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; --table is the name of a table in the bundle's configs/tables.json, or a "
            ".json file with one table."
        )
    tables, problem = read_json_object(path)
    if problem is not None:
        raise ValueError(f"{path}: {problem}.")
    if not all(isinstance(rows, list) and rows for rows in tables.values()):
        raise ValueError(f'{path}: expected {{"<table>": [<row>, ...], ...}} with at least one row in each table.')
    names = ", ".join(tables)
    if table.endswith(".json"):
        if len(tables) != 1:
            raise ValueError(f"{path}: a file that --table names holds one table, found {names or 'none'}.")
        (table,) = tables
    elif table not in tables:
        raise ValueError(f"{path}: there is no table '{table}', only {names or 'an empty object'}.")
    rows: dict[str, dict] = {}
    folders: dict[str, str] = {}
    for number, row in enumerate(tables[table], start=1):
        where = f"{path}, table '{table}', row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, found {row!r}.")
        for key, value in row.items():
            if key not in _KEYS:
                raise ValueError(f"{where}: unknown key '{key}'; a row has {', '.join(_KEYS)}.")
            if not isinstance(value, _KEYS[key]):
                raise ValueError(f"{where}: '{key}' is {value!r}, expected a JSON {_JSON[_KEYS[key]]}.")
        name = row.get("name", "")
        folder = make_folder_name(name)
        if not folder or name in RESERVED:
            raise ValueError(
                f"{where}: the name is '{name}', expected one with a letter or digit, and not {', '.join(RESERVED)}."
            )
        if folder in folders:
            raise ValueError(f"{where}: '{name}' and '{folders[folder]}' have the same folder '{folder}'; rename one.")
        folders[folder] = name
        where = f"{where} ('{name}')"
        if "pool" in row and not (row["pool"] and all(isinstance(entry, dict) for entry in row["pool"])):
            raise ValueError(f"{where}: 'pool' is {row['pool']!r}, expected objects of keys, at least one.")
        row = dict(row)
        if row.pop("data_consistency", False):
            row["override"] = {**_DATA_CONSISTENCY, **row.get("override", {})}
        if row.get("weights") is not None:
            row = _repeat_evaluation(row, rows, where)
        if "bundle" in row:
            _check_bundle(f"{where}: 'bundle'", row["bundle"])
        elif bundle is None:
            raise ValueError(f"{where}: no 'bundle', and no --bundle for rows without; name one.")
        untrained = [other for other, known in rows.items() if known["weights"] is None]
        if row.get("start") not in (None, *untrained):
            raise ValueError(
                f"{where}: 'start' is '{row['start']}', expected the name of an earlier row whose weights are null: "
                f"{', '.join(untrained) or 'there is none'}."
            )
        defaults: dict = {"bundle": bundle, "overlays": [], "override": {}, "pool": []}
        row = {**defaults, "weights": name, "start": None, "knows": None, "published": None, **row}
        for overlay in row["overlays"]:
            _check_overlay(row, overlay, where)
        rows[name] = row
    return list(rows.values())


def _repeat_evaluation(row: dict, rows: Mapping[str, dict], where: str) -> dict:
    """Return a row with the weights and keys of an earlier row, and its own keys laid over them."""
    if row["weights"] not in rows:
        raise ValueError(
            f"{where}: 'weights' is '{row['weights']}', expected null, or the name of an earlier row: "
            f"{', '.join(rows) or 'there is none'}."
        )
    other = rows[row["weights"]]
    for key in ("bundle", "pool", "start"):
        if row.get(key, other[key]) != other[key]:
            raise ValueError(
                f"{where}: '{key}' differs from that of '{row['weights']}', whose weights it takes; leave it out."
            )
    overlays = list(dict.fromkeys([*other["overlays"], *row.get("overlays", [])]))
    override = {**other["override"], **row.get("override", {})}
    return {**other, "published": None, **row, "weights": other["weights"], "overlays": overlays, "override": override}


def _check_bundle(where: str, bundle: str) -> None:
    """Refuse a folder that is no bundle."""
    train = Path(bundle) / "configs" / "train.json"
    if not train.is_file():
        raise FileNotFoundError(
            f"{where}: there is no {train}; expected the folder of a bundle, for example bundles/udean."
        )


def _check_overlay(row: Mapping, overlay: str, where: str) -> None:
    """Refuse an overlay, a config's name without ``.json``, that the row's bundle does not have."""
    path = Path(row["bundle"]) / "configs" / f"{overlay}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{where} ('{row['name']}'): the overlay {path} is not there.")


def apply_size_overlay(row: dict, size: str) -> dict:
    """Return the row in a size, with this overlay of its bundle."""
    _check_overlay(row, size, f"--size {size}")
    return {**row, "overlays": [*row["overlays"], size]}


def expand_folds(row: dict, folds: int) -> dict:
    """Return the row with each of its runs on each of the ``folds`` of a cross-validation, pooled."""
    train = Path(row["bundle"]) / "configs" / "train.json"
    if "fold" not in json.loads(train.read_text()):
        raise ValueError(f"--folds {folds}, row '{row['name']}': {train} has no key fold.")
    pool = [{"datalist#folds": folds, "fold": fold, **entry} for fold in range(folds) for entry in row["pool"] or [{}]]
    return {**row, "pool": pool}


def make_folder_name(name: str) -> str:
    """Return a row's folder: its name without characters that are not used in folder names."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._")
