"""The scans that a result was made of: so that no result is taken for another scan's, or overwritten by it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...io.files import get_sidecar_path, read_json_object
from ...io.read import digest_voxels

_SIDECARS = (".json", ".bval", ".bvec")
# Keys of SuperResolution in which two runs of one scan agree if their results are the same.
_SAME = ("Bundle", "BundleVersion", "Weights", "Scale", "Degradation", "SpacingAfter", "DifferenceFromScan")
State = tuple[tuple[int, ...] | None, ...]  # of a result and its JSON; None for one that is not there


def describe_file(path: str) -> dict[str, Any]:
    """Describe a file as an input of a result.

    Args:
        path: an image, or a label map.

    Returns:
        Its path, size in bytes and digest, see :func:`digest_voxels`; for sidecars next to it (JSON, b-values and
        directions) the SHA-256 of each.

    Raises:
        FileNotFoundError, ValueError: when the file cannot be read.
    """
    digest = digest_voxels(path)
    beside = {}
    for file in (get_sidecar_path(path).with_suffix(end) for end in _SIDECARS):
        with contextlib.suppress(OSError):  # none, or one that cannot be read: it is only a hint
            beside[file.suffix] = hashlib.sha256(file.read_bytes()).hexdigest()
    description = {"File": os.path.realpath(path), "Bytes": os.stat(path).st_size, "Sha256": digest}
    return {**description, **({"Sidecars": beside} if beside else {})}


def describe_series(series: Any, converted: str | os.PathLike) -> dict[str, Any]:
    """Describe a series as an input of a result: its UID, part and instances, and the digest of its voxels.

    Args:
        series: a :class:`~common.program.dicom.series.Series` without a problem.
        converted: its file by :func:`~common.program.dicom.series.write_nifti`.
    """
    return {
        "SeriesInstanceUID": series.uid,
        **({"Part": series.part} if series.part else {}),
        "Instances": list(dict.fromkeys(str(header.SOPInstanceUID) for header in series.headers)),
        "Sha256": digest_voxels(converted),
    }


def hide_folder(described: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the folder of a described file by a check sum, ``Folder``, that does not tell its name.

    It has 16 bits: enough to tell a file from one of the same name elsewhere, too few to prove a guess.
    """
    folder, name = os.path.split(described.get("File", ""))
    if not folder:
        return dict(described)
    check_sum = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:4]
    return {**described, "File": name, "Folder": check_sum}


def compare_inputs(result: Path, describe: Callable[[], list[dict[str, Any]]]) -> str:
    """Compare the inputs of an existing result with those of a new one.

    Args:
        result: the path of the result, with its JSON next to it.
        describe: returns the inputs of the new result, each as :func:`describe_file`; called only if there is a result.

    Returns:
        "nobody" if nothing is there; "same" if the inputs are equal, wherever their files lie; "changed" if the first
        is the same file or series with other content, or another input changed; else why it cannot be overwritten, or
        why the inputs cannot be read.
    """
    described = get_sidecar_path(result)
    if not result.exists() and not described.exists():
        return "nobody"
    known = _read_record(described).get("Inputs")
    if not isinstance(known, list) or not known or not all(isinstance(each, dict) for each in known):
        return (
            f"{result} or its JSON is there, and does not say which scan it was made of; remove both, or name another "
            "output folder."
        )
    try:
        inputs = describe()
    except (OSError, ValueError) as error:
        return str(error)
    if [*map(_get_content, known)] == [*map(_get_content, inputs)]:
        return "same"
    first, new = hide_folder(known[0]), hide_folder(inputs[0])
    if all(first.get(key) == new.get(key) for key in ("File", "Folder", "SeriesInstanceUID", "Part")):
        return "changed"
    return (
        f"{result} was made of {_name_input(known[0], inputs[0])}, expected {_name_input(inputs[0])}; name another "
        "output, or rename the scan."
    )


def read_state(result: Path) -> State:
    """Read what tells a result and its JSON from those that later replace them."""
    state: list[tuple[int, ...] | None] = []
    for path in (result, get_sidecar_path(result)):
        try:
            status = path.stat()
            state.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            state.append(None)
    return tuple(state)


def check_unchanged(result: Path, seen: State, described: Path) -> None:
    """Refuse to replace a result that another run has written since this one began.

    One that the other made alike, of the same inputs, may be replaced.

    Args:
        result: its path.
        seen: from :func:`read_state`, when this run began.
        described: JSON of the new result.
    """
    now = read_state(result)
    if now == seen or not any(now):
        return
    theirs, own = _read_record(get_sidecar_path(result)), _read_record(described)
    inputs = [each.get("Inputs") or [] for each in (theirs, own)]
    contents = [[*map(_get_content, each)] for each in inputs]
    if now[1] != seen[1] and contents[0] == contents[1] and all(theirs.get(key) == own.get(key) for key in _SAME):
        return
    whose = f" of {_name_input(inputs[0][0], inputs[1][0])}" if all(inputs) else ""
    raise ValueError(
        f"{result} was made{whose} by another run after this one had begun; it stays, and nothing is written here. "
        "Name another output, or repeat this run alone."
    )


def _read_record(described: Path) -> dict[str, Any]:
    """What a result's JSON says about how it was made; empty if that is not known."""
    content, _ = read_json_object(described) if described.is_file() else ({}, None)
    record = content.get("SuperResolution")
    return record if isinstance(record, dict) else {}


def _get_content(described: Mapping[str, Any]) -> tuple[Any, Any]:
    return described.get("Sha256"), described.get("Sidecars")


def _name_input(described: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> str:
    """A file, or a series and its part; of the same name as another input, where folders are hidden."""
    if "File" in described:
        hidden = {} if other is None else hide_folder(other)
        is_other = described["File"] == hidden.get("File") and described.get("Folder") != hidden.get("Folder")
        return f"{described['File']}{' of another folder' * is_other}"
    part = described.get("Part")
    return f"DICOM series {described.get('SeriesInstanceUID')}" + (f", {part}" if part else "")
