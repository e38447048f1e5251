"""Names of cases and their results, and messages about their errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import get_first_line
from ..runtime.values import parse_bool
from .files import get_sidecar_path
from .formats import get_extension

# Entities in names of derived anatomical images, in order (BIDS specification 1.11).
_ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk", "space", "res", "desc")
SIMULATED = "simulated.json"  # in a folder of simulated scans
_LONGEST = 249  # bytes of a file's name: file systems take 255, and the lock of a file is .lock-<name>
_SUFFIXES = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "UNIT1")


def format_case(item: Mapping[str, Any]) -> str:
    """The files of an entry, for messages."""
    return ", ".join(str(item[key]) for key in ("hr", "lr", "image") if key in item)


def format_failure(item: Mapping[str, Any], error: BaseException) -> str:
    """The files of an entry, and the first error that befell it, for a list of failures."""
    source, reason = item.get("image") or format_case(item), get_first_line(error)
    return reason if reason.startswith(f"{source}:") else f"{source}: {reason}"


def make_case_stem(path: str | os.PathLike, subject: str | None = None) -> str:
    """The name for results of a case: its file's name, after the subject if the name does not contain it."""
    name = Path(path).name
    name = name[: len(name) - len(get_extension(path) or "")]
    # The subject may be several folders of a path.
    subject = None if subject is None else subject.strip("/").replace("/", "_")
    # Only as a whole word: "b" is not in "kirby", and two subjects must not get the same name.
    is_named = subject is None or re.search(rf"(?<![^\W_]){re.escape(subject)}(?![^\W_])", name)
    return name if is_named else f"{subject}_{name}"


def get_output_folder(output: str | os.PathLike) -> Path:
    """The folder of results: the output itself, or that of the NIfTI file that it names for the only result."""
    path = Path(output)
    return path.parent if get_extension(path) in (".nii", ".nii.gz") and not path.is_dir() else path


def make_result_path(output_dir: str | os.PathLike, name: str, postfix: str = "sr", bids: bool | str = False) -> Path:
    """The path of a scan's result.

    Args:
        output_dir: folder of the results, or the file of the only one.
        name: of the scan.
        postfix: kind of result, letters and digits.
        bids: whether to name the result as a BIDS derivative: ``sub-01/ses-2/anat/sub-01_ses-2_res-high_desc-sr_T1w``.
            ``postfix`` is added to an existing ``desc``. An existing ``res`` is replaced.

    Returns:
        ``<output_dir>/<name>_<postfix>.nii.gz``, or the derivative's path. For a file the postfix "sr" gives the file.

    Raises:
        ValueError: when a BIDS derivative is wanted and the output is a file, or the scan's name is not that of an
            anatomical image in BIDS; or when the file's name would be too long.
    """
    path, bids = Path(output_dir), parse_bool(bids, "bids")
    if get_output_folder(path) == path:
        file = _make_derivative_path(name, postfix) if bids else f"{name}_{postfix}.nii.gz"
        return _check_length(path / file, name)
    if bids:
        raise ValueError(f"{path}: found a file, expected a folder; --bids names the results.")
    return _check_length(path, name) if postfix == "sr" else rename_result(path, postfix)


def _check_length(path: Path, name: str) -> Path:
    """The path, unless its name is too long."""
    if (size := len(os.fsencode(path.name))) > _LONGEST:
        raise ValueError(
            f"{name}: the name of its result would have {size} bytes, expected at most {_LONGEST}; rename the scan."
        )
    return path


def _make_derivative_path(name: str, postfix: str) -> Path:
    """The path of a BIDS derivative in its dataset."""
    *parts, suffix = name.split("_")
    entities = dict(part.split("-", 1) for part in parts if re.fullmatch("[a-z]+-[a-zA-Z0-9]+", part))
    if len(entities) < len(parts) or "sub" not in entities or not entities.keys() <= set(_ENTITIES):
        raise ValueError(
            f"{name}: not a BIDS name of an anatomical image; expected sub-<label>_<key>-<label>_..._<suffix> "
            f"with keys of {', '.join(_ENTITIES)}, each once, and labels of letters and digits. Rename the scan, or "
            "leave out --bids true."
        )
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"{name}: ends in '{suffix}', which is not a suffix of BIDS; expected one of {', '.join(_SUFFIXES)}. "
            "Rename the scan, or leave out --bids true."
        )
    entities |= {"res": "high", "desc": entities.get("desc", "") + postfix}
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    labels = [f"{key}-{entities[key]}" for key in _ENTITIES if key in entities]
    return Path(*folders, "anat", "_".join([*labels, suffix]) + ".nii.gz")


def rename_result(path: Path, postfix: str) -> Path:
    """The path of another volume about a result of :func:`make_result_path` with the postfix "sr".

    Raises:
        ValueError: when the file's name would be too long.
    """
    name, renamed = re.subn(r"(?<=_)(desc-[a-zA-Z0-9]*)sr(?=_[^_]*$)", rf"\g<1>{postfix}", path.name)
    return _check_length(path.with_name(name if renamed else f"{_get_stem(path)}_{postfix}.nii.gz"), path.name)


def list_companions(result: Path) -> list[Path]:
    """Files about a result that need not be there: a page, what was added, and an error bar with its JSON."""
    page = get_sidecar_path(result).with_suffix(".html")
    try:
        added, interval = (rename_result(result, postfix) for postfix in ("added", "interval"))
    except ValueError:  # a name that is too long has none
        return [page]
    return [page, added, interval, get_sidecar_path(interval)]


def _get_stem(result: Path) -> str:
    """The name of a result without extension and without the postfix "sr"."""
    return result.name[: len(result.name) - len(get_extension(result) or "")].removesuffix("_sr")


def make_label_path(output_dir: str | os.PathLike, name: str, bids: bool | str = False) -> Path:
    """The path of the label map that goes with a scan's result.

    Args:
        output_dir, name, bids: as for :func:`make_result_path`.

    Returns:
        ``<output_dir>/<name>_sr_label.nii.gz``, or for BIDS the result's path with the suffix dseg. Its ``desc`` has
        the scan's suffix, because several scans may share a label map.

    Raises:
        ValueError: as :func:`make_result_path`.
    """
    if not parse_bool(bids, "bids"):
        return make_result_path(output_dir, name, "sr_label")
    suffix = name.rpartition("_")[2]
    path = make_result_path(output_dir, name, f"sr{suffix}", bids)
    return path.with_name(path.name.removesuffix(f"{suffix}.nii.gz") + "dseg.nii.gz")


def make_series_path(output_dir: str | os.PathLike, name: str) -> Path:
    """The folder of the derived DICOM series that are made of a scan's series."""
    path = Path(output_dir)
    return path / f"{name}_dicom" if get_output_folder(path) == path else path.with_name(f"{_get_stem(path)}_dicom")
