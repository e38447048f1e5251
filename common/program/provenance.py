"""The origin of a result, for its file and the JSON next to it."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..io.files import format_json, get_sidecar_path, read_json_object, read_sidecar
from ..io.writing import write_atomically
from .bids import DESCRIPTION, find_dataset
from .files import find_written, lock_path
from .naming import list_companions

BIDS_VERSION = "1.11.0"
_PACKAGES = ("monai", "torch", "nibabel", "mri-sr-bundles")
# Folders of an absolute path in a text, without blanks. Nothing of an address, a BIDS URI or a fraction.
_FOLDERS = re.compile(r"""(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:'",;()]+[/\\])+""")
# Keys of a scan's JSON that hold for its result too, with their types.
_KEPT = {"SkullStripped": bool, "SpatialReference": str | dict}
_REQUIRED = ("Sources", *_KEPT, "Resolution")  # of all images that are derived from it


def describe_settings(module: nn.Module, package: str | None = None) -> dict[str, Any]:
    """A module's class and the arguments that it stores, for JSON; modules among these in the same way.

    Args:
        module: its arguments are its attributes of the same names.
        package: of the class; then MONAI's ``ConfigParser`` builds the module again.
    """

    def convert(value: Any) -> Any:
        if isinstance(value, (list, tuple, nn.ModuleList)):
            return [convert(item) for item in value]
        if isinstance(value, nn.Module):
            return describe_settings(value, package)
        if isinstance(value, Mapping):
            return {str(key): convert(item) for key, item in value.items()}
        if isinstance(value, torch.Tensor):
            return value.tolist()
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

    names = [name for name in inspect.signature(type(module)).parameters if hasattr(module, name)]
    kind = type(module).__name__
    head = {"Class": kind} if package is None else {"_target_": f"{package}.{kind}"}
    return {**head, **{name: convert(getattr(module, name)) for name in names}}


def describe_weights(network: nn.Module) -> dict[str, str]:
    """File of a network's weights, its SHA-256, and the SHA-256 of its tensors if the network knows it.

    Empty for a network without weights from a file.
    """
    origin: Any = getattr(network, "origin", {})
    known = {"FileSha256": "file_sha256", "Sha256": "sha256"}
    description = {name: origin[key] for name, key in known.items() if key in origin}
    return {"File": Path(origin["path"]).name, **description} if "path" in origin else {}


def is_made_by(result: str | os.PathLike, bundle: Path, checkpoint: str | os.PathLike | None) -> bool:
    """Whether the JSON next to a result says that this bundle made it, with the weights that lie in this file now."""
    record = read_sidecar(result)[0].get("SuperResolution")
    record = record if isinstance(record, dict) else {}
    known = record.get("Weights")
    digest = known.get("FileSha256") if isinstance(known, dict) else None
    same = checkpoint is None or digest == hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    return record.get("Bundle") == bundle.name and same


def list_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def name_device(device: torch.device) -> str:
    """A device with the name of its GPU or the number of its threads."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' * (threads > 1)}"


def name_source(path: str | os.PathLike) -> str:
    """A BIDS URI of a file in a BIDS dataset, with the folder's name as the dataset's name; else the path."""
    root = find_dataset(path)
    if root is None:
        return os.path.abspath(path)
    return f"bids:{_make_label(root)}:{Path(os.path.abspath(path)).relative_to(root).as_posix()}"


def hide_folders(value: Any, names: Mapping[str, str]) -> Any:
    """Take folders out of a value for JSON, because their names may be those of patients.

    Args:
        value: texts, keys of objects among them, in which paths are replaced.
        names: what replaces each path. Of other absolute paths the folders are removed.
    """
    if isinstance(value, Mapping):
        return {hide_folders(key, names): hide_folders(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_folders(item, names) for item in value]
    if not isinstance(value, str):
        return value
    # A folder's name may have blanks, so those of the known files are removed as they are.
    folders = {f"{os.path.dirname(path)}{os.sep}": "" for path in names if os.path.isabs(path)}
    for path, name in sorted((folders | dict(names)).items(), key=lambda pair: -len(pair[0])):
        if len(path) > 1:
            value = value.replace(path, name)
    return _FOLDERS.sub("", value)


def read_source_metadata(path: str | os.PathLike, source: str | os.PathLike | None = None) -> dict[str, Any]:
    """BIDS metadata of a scan that hold for its result, from its sidecar JSON.

    Scans of a raw dataset are not skull-stripped. Unknown metadata are left out.

    Args:
        path: the scan.
        source: the file that it was made of, if it is not in its dataset itself.
    """
    metadata, _ = read_sidecar(path)
    root = find_dataset(path if source is None else source)
    described, problem = ({}, "") if root is None else read_json_object(root / DESCRIPTION)
    raw = problem is None and described.get("DatasetType", "raw") == "raw"
    kept_metadata = {key: metadata[key] for key, kind in _KEPT.items() if isinstance(metadata.get(key), kind)}
    return {**({"SkullStripped": False} if raw else {}), **kept_metadata}


def describe_companions(result: Path, labels: Path) -> None:
    """Write what BIDS requires of derived images into the JSON of those that belong to a result.

    Args:
        result: its path; its JSON has the values. What was added and the error bar are found next to it.
        labels: path of its label map, which need not be there either.
    """
    known, _ = read_json_object(find_written(get_sidecar_path(result)))
    for path in (*list_companions(result), labels):
        if path.suffix == ".gz" and find_written(path).is_file():
            sidecar = get_sidecar_path(path)
            own = read_json_object(find_written(sidecar))[0] if find_written(sidecar).is_file() else {}
            with write_atomically(sidecar) as temporary:
                content = {**own, **{key: known[key] for key in _REQUIRED if key in known}}
                temporary.write_text(format_json(content, indent=2) + "\n", encoding="utf-8")


def describe_dataset(output_dir: str | os.PathLike, bundle: Mapping[str, str], sources: Iterable[str]) -> None:
    """Make the folder of results a BIDS derivative dataset: write its description and a .bidsignore.

    An existing description is kept. The bundle and the datasets of the sources are added to it.

    Args:
        output_dir: folder of the results.
        bundle: name and version from :func:`describe_bundle`.
        sources: paths of scans and guides.
    """
    path = Path(output_dir).absolute() / DESCRIPTION
    folders = {str(Path(source).absolute().parent): source for source in sources}
    roots = sorted({root for source in folders.values() if (root := find_dataset(source)) is not None})
    if path.parent in roots:
        raise ValueError(f"{path.parent} is the scans' own dataset; name another folder for the derivatives.")
    with lock_path(path):  # several processes may add to it at once
        _add_to_description(path, bundle, roots)
    ignored = path.with_name(".bidsignore")
    if not ignored.is_file():
        ignored.write_text("log*.jsonl\n*_registration.json\n*.html\n")


def _add_to_description(path: Path, bundle: Mapping[str, str], roots: Iterable[Path]) -> None:
    """Add a bundle and datasets to the description of a derivative dataset, or begin one."""
    description, problem = read_json_object(path) if path.is_file() else ({}, None)
    if problem is None and not isinstance(description.get("GeneratedBy", []), list):
        problem = "GeneratedBy is not a list"
    if problem is None and not isinstance(description.get("DatasetLinks", {}), dict):
        problem = "DatasetLinks is not an object"
    if problem is not None or (path.is_file() and not description):
        problem = problem or "it is empty"
        raise ValueError(f"{path} does not describe a dataset: {problem}; remove it, or name another folder.")
    described = {
        "Name": "Super-resolved MRI",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **description,
        "GeneratedBy": list(description.get("GeneratedBy", [])),
        "DatasetLinks": dict(description.get("DatasetLinks", {})),
    }
    if (generator := describe_generator(bundle)) not in described["GeneratedBy"]:
        described["GeneratedBy"].append(generator)
    for root in roots:
        # A relative link stays right when a dataset is moved with the derivatives in it.
        within = root in path.parents
        link = Path(os.path.relpath(root, path.parent)).as_posix() if within else root.as_uri()
        label = _make_label(root)
        if described["DatasetLinks"].setdefault(label, link) != link:
            raise ValueError(
                f"{path} links the dataset '{label}' to {described['DatasetLinks'][label]}, expected {link}; name "
                "another output folder, or rename one of the two datasets' folders."
            )
    if not described["DatasetLinks"]:
        del described["DatasetLinks"]
    if described != description:
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(described, indent=2) + "\n")


def describe_generator(bundle: Mapping[str, str]) -> dict[str, str]:
    """The bundle as an object of BIDS's ``GeneratedBy``."""
    version = {"Version": bundle["version"]} if "version" in bundle else {}
    return {"Name": bundle["name"], **version, "Description": "MONAI bundle for MRI super-resolution"}


def describe_resolution(before: list[float] | None, after: list[float] | None) -> str:
    """Voxel sizes of a result in mm, in words, and of its scan if they are known."""
    sizes_in_words = [" x ".join(f"{size:.4g}" for size in sizes) for sizes in (after, before) if sizes]
    return f"{sizes_in_words[0]} mm" + (f", super-resolved from {sizes_in_words[1]} mm" if before else "")


def _make_label(root: Path) -> str:
    return re.sub("[^a-zA-Z0-9]", "", root.name) or "raw"
