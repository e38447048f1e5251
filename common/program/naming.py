"""Names of what ``mri-sr`` writes about a scan, also as BIDS derivatives."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..io import naming
from ..io.files import get_sidecar_path
from ..io.naming import check_length, get_output_folder, get_result_stem

# Entities in names of derived anatomical images, in order (BIDS specification 1.11).
_ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk", "space", "res", "desc")
_SUFFIXES = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "UNIT1")


def make_result_path(output_dir: str | os.PathLike, name: str, postfix: str = "sr", bids: bool = False) -> Path:
    """The path of a scan's result, as :func:`common.io.naming.make_result_path`, or as a BIDS derivative.

    Args:
        output_dir, name, postfix: as there.
        bids: whether to name the result as a BIDS derivative: ``sub-01/ses-2/anat/sub-01_ses-2_res-high_desc-sr_T1w``.
            ``postfix`` is added to an existing ``desc``. An existing ``res`` is replaced.

    Raises:
        ValueError: when a BIDS derivative is wanted and the output is a file, or the scan's name is not that of an
            anatomical image in BIDS; or when the file's name would be too long.
    """
    if not bids:
        return naming.make_result_path(output_dir, name, postfix)
    path = Path(output_dir)
    if get_output_folder(path) != path:
        raise ValueError(f"{path}: found a file, expected a folder; --bids names the results.")
    return check_length(path / _make_derivative_path(name, postfix), name)


def _make_derivative_path(name: str, postfix: str) -> Path:
    """The path of a BIDS derivative in its dataset."""
    *parts, suffix = name.split("_")
    entities = dict(part.split("-", 1) for part in parts if re.fullmatch("[a-z]+-[a-zA-Z0-9]+", part))
    if len(entities) < len(parts) or "sub" not in entities or not entities.keys() <= set(_ENTITIES):
        raise ValueError(
            f"{name}: not a BIDS name of an anatomical image; expected sub-<label>_<key>-<label>_..._<suffix> "
            f"with keys of {', '.join(_ENTITIES)}, each once, and labels of letters and digits. Rename the scan, or "
            "leave out --bids True."
        )
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"{name}: ends in '{suffix}', which is not a suffix of BIDS; expected one of {', '.join(_SUFFIXES)}. "
            "Rename the scan, or leave out --bids True."
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
    return check_length(path.with_name(name), path.name) if renamed else naming.rename_result(path, postfix)


def list_companions(result: Path) -> list[Path]:
    """Files about a result that need not be there: a page, what was added, and an error bar with its JSON."""
    page = get_sidecar_path(result).with_suffix(".html")
    try:
        added, interval = (rename_result(result, postfix) for postfix in ("added", "interval"))
    except ValueError:  # a name that is too long has none
        return [page]
    return [page, added, interval, get_sidecar_path(interval)]


def make_label_path(output_dir: str | os.PathLike, name: str, bids: bool = False) -> Path:
    """The path of the label map that goes with a scan's result.

    Args:
        output_dir, name, bids: as for :func:`make_result_path`.

    Returns:
        ``<output_dir>/<name>_sr_label.nii.gz``, or for BIDS the result's path with the suffix dseg. Its ``desc`` has
        the scan's suffix, because several scans may share a label map.

    Raises:
        ValueError: as :func:`make_result_path`.
    """
    if not bids:
        return make_result_path(output_dir, name, "sr_label")
    suffix = name.rpartition("_")[2]
    path = make_result_path(output_dir, name, f"sr{suffix}", bids)
    return path.with_name(path.name.removesuffix(f"{suffix}.nii.gz") + "dseg.nii.gz")


def make_series_path(output_dir: str | os.PathLike, name: str) -> Path:
    """The folder of the derived DICOM series that are made of a scan's series."""
    path = Path(output_dir)
    return (
        path / f"{name}_dicom" if get_output_folder(path) == path else path.with_name(f"{get_result_stem(path)}_dicom")
    )
