"""Names of what ``mri-sr`` writes about a scan, also as BIDS derivatives."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..io import naming
from ..io.files import get_sidecar_path
from ..io.naming import check_length, get_output_folder, get_result_stem
from .bids import list_datatypes, list_keys, list_suffixes, split_name
from .cases.scan_kinds import classify_by_name


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
    return _make_derivative_path(output_dir, name, postfix)


def _make_derivative_path(output_dir: str | os.PathLike, name: str, postfix: str, kind: str | None = None) -> Path:
    """The path of a BIDS derivative; its suffix is that of the name, or another kind."""
    path = Path(output_dir)
    if get_output_folder(path) != path:
        raise ValueError(f"{path}: found a file, expected a folder; --bids names the results.")
    suffix = name.rpartition("_")[2]
    known, datatypes, found = list_suffixes("anat"), list_datatypes(suffix), split_name(name)
    keys = list_keys(suffix if suffix in known else "T1w")
    if datatypes and suffix not in known:
        raise ValueError(
            f"{name}: {suffix} is a suffix of {' and '.join(datatypes)}; --bids names anatomical images. Leave out "
            "--bids True."
        )
    if found is None or not found[0].keys() <= {*keys}:
        raise ValueError(
            f"{name}: not a BIDS name of an anatomical image; expected sub-<label>_<key>-<label>_..._<suffix> "
            f"with keys of {', '.join(keys)}, each once, and labels of letters and digits. Rename the scan, or "
            "leave out --bids True."
        )
    if not datatypes:
        known = [each for each in known if classify_by_name(Path(f"sub-1_{each}")) is None]
        raise ValueError(
            f"{name}: ends in '{suffix}', which is not a suffix of BIDS; expected one of {', '.join(known)}. "
            "Rename the scan, or leave out --bids True."
        )
    keys = list_keys(kind or suffix)
    beyond = "".join(key + label for key, label in found[0].items() if key not in keys)
    entities = found[0] | {"res": "high", "desc": found[0].get("desc", "") + postfix + beyond}
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    labels = [f"{key}-{entities[key]}" for key in keys if key in entities]
    file = "_".join([*labels, kind or suffix]) + ".nii.gz"
    return check_length(path.joinpath(*folders, "anat", file), name)


def rename_result(path: Path, postfix: str) -> Path:
    """The path of another volume about a result of :func:`make_result_path` with the postfix "sr".

    Raises:
        ValueError: when the file's name would be too long.
    """
    name, renamed = re.subn(r"(?<=_)(desc-[a-zA-Z0-9+]*)sr(?=_[^_]*$)", rf"\g<1>{postfix}", path.name)
    return check_length(path.with_name(name), path.name) if renamed else naming.rename_result(path, postfix)


def list_companions(result: Path) -> list[Path]:
    """Files about a result that need not be there: a page, what was added and an error bar, with their JSON."""
    page = get_sidecar_path(result).with_suffix(".html")
    try:
        added, interval = (rename_result(result, postfix) for postfix in ("added", "interval"))
    except ValueError:  # a name that is too long has none
        return [page]
    return [page, added, get_sidecar_path(added), interval, get_sidecar_path(interval)]


def make_label_path(output_dir: str | os.PathLike, name: str, bids: bool = False) -> Path:
    """The path of the label map that goes with a scan's result.

    Args:
        output_dir, name, bids: as for :func:`make_result_path`.

    Returns:
        ``<output_dir>/<name>_sr_label.nii.gz``, or for BIDS the result's path with the suffix dseg. Its ``desc`` has
        the scan's suffix, and what else tells it from others that may share a label map.

    Raises:
        ValueError: as :func:`make_result_path`.
    """
    if not bids:
        return make_result_path(output_dir, name, "sr_label")
    return _make_derivative_path(output_dir, name, f"sr{name.rpartition('_')[2]}", "dseg")


def make_series_path(output_dir: str | os.PathLike, name: str) -> Path:
    """The folder of the derived DICOM series that are made of a scan's series."""
    path = Path(output_dir)
    return (
        path / f"{name}_dicom" if get_output_folder(path) == path else path.with_name(f"{get_result_stem(path)}_dicom")
    )


def find_result_of_series(series: str | os.PathLike) -> Path:
    """The NIfTI beside a derived DICOM series, ``<name>_dicom/<UID>`` or a file of it; as :func:`make_series_path`."""
    folder = (path if (path := Path(series).absolute()).is_dir() else path.parent).parent
    stem = folder.name.removesuffix("_dicom")
    one = folder.with_name(f"{stem}.nii.gz")  # a file that was named for the only result
    return one if get_sidecar_path(one).is_file() else folder.with_name(f"{stem}_sr.nii.gz")
