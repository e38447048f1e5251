"""The origin of a result, for its file and the JSON next to it."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..degradations import Degradation
from ..io.files import read_object, read_sidecar

BIDS_VERSION = "1.11.0"
DESCRIPTION = "dataset_description.json"
_PACKAGES = ("monai", "torch", "nibabel", "mri-sr-bundles")
# Keys of a scan's JSON that hold for its result too, with their types.
_KEPT = {"SkullStripped": bool, "SpatialReference": str | dict}


def bundle_of(bundle_root: str | os.PathLike) -> dict[str, str]:
    """Name of a bundle, from its folder, and version, from its metadata.json."""
    root = Path(bundle_root).absolute()
    path = root / "configs" / "metadata.json"
    version = json.loads(path.read_text()).get("version") if path.is_file() else None
    return {"name": root.name, **({"version": version} if version else {})}


def describe(bundle_root: str | os.PathLike, degradation: Degradation | None) -> str:
    """Description in a result's file, such as ``super-resolved 2x2x1 by udean 0.6.0``."""
    factors = [] if degradation is None else [_factors(degradation)]
    return " ".join(["super-resolved", *factors, "by", *bundle_of(bundle_root).values()])


def settings_of(module: nn.Module) -> dict[str, Any]:
    """A module's class and the arguments that it stores, for JSON; modules among these in the same way."""

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple, nn.ModuleList)):
            return [plain(item) for item in value]
        if isinstance(value, nn.Module):
            return settings_of(value)
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, torch.Tensor):
            return value.tolist()
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

    names = [name for name in inspect.signature(type(module)).parameters if hasattr(module, name)]
    return {"Class": type(module).__name__, **{name: plain(getattr(module, name)) for name in names}}


def weights_of(network: nn.Module) -> dict[str, str]:
    """File of a network's weights, its SHA-256, and the SHA-256 of its tensors if the network knows it.

    Empty for a network without weights from a file.
    """
    origin: Any = getattr(network, "origin", {})
    known = {"FileSha256": "file_sha256", "Sha256": "sha256"}
    found = {name: origin[key] for name, key in known.items() if key in origin}
    return {"File": Path(origin["path"]).name, **found} if "path" in origin else {}


def is_made_by(result: str | os.PathLike, bundle: Path, checkpoint: str | os.PathLike | None) -> bool:
    """Whether the JSON next to a result says that this bundle made it, with the weights that lie in this file now."""
    own = read_sidecar(result)[0].get("SuperResolution")
    own = own if isinstance(own, dict) else {}
    known = own.get("Weights")
    digest = known.get("FileSha256") if isinstance(known, dict) else None
    same = checkpoint is None or digest == hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    return own.get("Bundle") == bundle.name and same


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """A device with the name of its GPU or the number of its threads."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' * (threads > 1)}"


def dataset_of(path: str | os.PathLike) -> Path | None:
    """The BIDS dataset of a file: the nearest folder above it with a dataset_description.json."""
    return next((folder for folder in Path(os.path.abspath(path)).parents if (folder / DESCRIPTION).is_file()), None)


def source_of(path: str | os.PathLike) -> str:
    """A BIDS URI of a file in a BIDS dataset, with the folder's name as the dataset's name; else the path."""
    root = dataset_of(path)
    if root is None:
        return os.path.abspath(path)
    return f"bids:{_label(root)}:{Path(os.path.abspath(path)).relative_to(root).as_posix()}"


def known_of_source(path: str | os.PathLike) -> dict[str, Any]:
    """BIDS metadata of a scan that hold for its result, from its sidecar JSON.

    Scans of a raw dataset are not skull-stripped. Unknown metadata are left out.
    """
    said, _ = read_sidecar(path)
    root = dataset_of(path)
    described, problem = ({}, "") if root is None else read_object(root / DESCRIPTION)
    raw = problem is None and described.get("DatasetType", "raw") == "raw"
    kept = {key: said[key] for key, kind in _KEPT.items() if isinstance(said.get(key), kind)}
    return {**({"SkullStripped": False} if raw else {}), **kept}


def describe_dataset(output_dir: str | os.PathLike, bundle: Mapping[str, str], sources: Iterable[str]) -> None:
    """Make the folder of results a BIDS derivative dataset: write its description and a .bidsignore.

    An existing description is kept. The bundle and the datasets of the sources are added to it.

    Args:
        output_dir: folder of the results.
        bundle: name and version from :func:`bundle_of`.
        sources: paths of scans and guides.

    Raises:
        ValueError: when the folder is the scans' own dataset, or when the existing description cannot be read or links
            another dataset of the same name.
    """
    path = Path(output_dir).absolute() / DESCRIPTION
    folders = {str(Path(source).absolute().parent): source for source in sources}
    roots = sorted({root for source in folders.values() if (root := dataset_of(source)) is not None})
    if path.parent in roots:
        raise ValueError(f"{path.parent} is the scans' own dataset; name another folder for the derivatives.")
    found, problem = read_object(path) if path.is_file() else ({}, None)
    if problem is None and not isinstance(found.get("GeneratedBy", []), list):
        problem = "GeneratedBy is not a list"
    if problem is None and not isinstance(found.get("DatasetLinks", {}), dict):
        problem = "DatasetLinks is not an object"
    if problem is not None or (path.is_file() and not found):
        problem = problem or "it is empty"
        raise ValueError(f"{path} does not describe a dataset: {problem}; remove it, or name another folder.")
    described = {
        "Name": "Super-resolved MRI",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **found,
        "GeneratedBy": list(found.get("GeneratedBy", [])),
        "DatasetLinks": dict(found.get("DatasetLinks", {})),
    }
    if (generator := generated_by(bundle)) not in described["GeneratedBy"]:
        described["GeneratedBy"].append(generator)
    for root in roots:
        # A relative link stays right when a dataset is moved with the derivatives in it.
        within = root in path.parents
        link = Path(os.path.relpath(root, path.parent)).as_posix() if within else root.as_uri()
        label = _label(root)
        if described["DatasetLinks"].setdefault(label, link) != link:
            raise ValueError(
                f"{path} links the dataset '{label}' to {described['DatasetLinks'][label]}, expected {link}; name "
                "another output folder, or rename one of the two datasets' folders."
            )
    if not described["DatasetLinks"]:
        del described["DatasetLinks"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if described != found:
        # Several processes may write it at once, so each first writes a file of its own.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            whole = Path(folder, DESCRIPTION)
            whole.write_text(json.dumps(described, indent=2) + "\n")
            whole.replace(path)
    ignored = path.with_name(".bidsignore")
    if not ignored.is_file():
        ignored.write_text("log*.jsonl\n*_registration.json\n*.html\n")


def generated_by(bundle: Mapping[str, str]) -> dict[str, str]:
    """The bundle as an object of BIDS's ``GeneratedBy``."""
    version = {"Version": bundle["version"]} if "version" in bundle else {}
    return {"Name": bundle["name"], **version, "Description": "MONAI bundle for MRI super-resolution"}


def resolution(before: list[float] | None, after: list[float] | None) -> str:
    """Voxel sizes of a result in mm, in words, and of its scan if they are known."""
    said = [" x ".join(f"{size:.4g}" for size in sizes) for sizes in (after, before) if sizes]
    return f"{said[0]} mm" + (f", super-resolved from {said[1]} mm" if before else "")


def _factors(degradation: Degradation) -> str:
    return "x".join(f"{factor:g}" for factor in degradation.factors)


def _label(root: Path) -> str:
    return re.sub("[^a-zA-Z0-9]", "", root.name) or "raw"
