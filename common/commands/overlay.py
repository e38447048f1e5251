"""``python -m common overlay``: write the overlay of weights that an earlier version trained."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..io.files import load_state
from ..io.naming import find_root_cause
from ..weights import compute_digest, write_overlay

_RECORD = {"bundle", "version", "network", "settings", "defaults", "sha256"}


def write_missing_overlay(checkpoint: str, bundle: str | None = None) -> None:
    """Write the overlay of weights of an earlier version, which kept this record within the file of weights.

    The overlay has the weights' name with the ending .json. The weights are not changed. Keys that the bundle's configs
    do not have are left out, with a line.

    Args:
        checkpoint: the weights, a .pt file.
        bundle: folder of their bundle; default the one of that name in bundles.

    Raises:
        FileNotFoundError: when there are no such weights, or no such bundle.
        FileExistsError: when they have an overlay already.
        ValueError: when the weights have no record, are damaged, or do not fit the bundle.
    """
    path = Path(checkpoint)
    state = load_state(path, "cpu")
    file = path.with_suffix(".json")
    if file.exists():
        raise FileExistsError(f"{file} is there already; remove it to make it anew.")
    record = _read_record(path)
    if compute_digest(state) != record["sha256"]:
        raise ValueError(f"{path}: the weights do not match the SHA-256 in their record; get a whole file.")
    root = Path(__file__).parents[2] / "bundles" / record["bundle"] if bundle is None else Path(bundle)
    files = [root / "configs" / f"{name}.json" for name in ("inference", "train")]
    if not files[0].is_file():
        raise FileNotFoundError(f"{root}: there is no configs/inference.json; name the bundle's folder with --bundle.")
    known = {key for file in files if file.is_file() for key in json.loads(file.read_text())}
    values = {**record["settings"], **record["defaults"]}
    # Most bundles have no key for the position of LR voxels.
    offset = None if "offset" in known else values.pop("offset", None)
    sizes = {key: value for key, value in values.items() if key in known}
    trained = {
        "bundle": record["bundle"],
        "version": record["version"],
        "network": _identify_network(path, state, files[0], root, sizes),
        "offset": offset,
        **record.get("training", {}),
    }
    write_overlay(path, {"checkpoint": str(path.absolute()), "digest": record["sha256"], "trained": trained, **sizes})
    print(f"{file} describes {path.name}")
    if left_out := sorted(values.keys() - known):
        print(f"left out, as {root.name} does not know it: {', '.join(left_out)}")


def _read_record(path: Path) -> dict[str, Any]:
    """The record that an earlier version wrote into the archive of weights."""
    record: dict[str, Any] = {}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/extra/about.json")]
            record = json.loads(archive.read(names[0])) if names else {}
    if not _RECORD <= record.keys():
        raise ValueError(
            f"{path}: the weights have no record of their bundle and settings. Write {path.stem}.json in their folder "
            "by hand, like the one of other weights, or lay a config with their sizes over inference.json."
        )
    return record


def _identify_network(path: Path, state: Mapping[str, Any], config: Path, root: Path, sizes: Mapping[str, Any]) -> str:
    """The class of the network that the config builds with these sizes; the weights must fit it."""
    parser = ConfigParser(ConfigParser.load_config_file(str(config)))
    parser.update({"bundle_root": str(root), **sizes})
    try:
        network = parser.get_parsed_content("network_def")
        network.load_state_dict(state)
    except Exception as error:
        raise ValueError(
            f"{path}: the weights do not fit {config} ({find_root_cause(error).splitlines()[0]})."
        ) from None
    return type(network).__name__
