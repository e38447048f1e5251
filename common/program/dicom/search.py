"""Find DICOM MR series in files, and split them into stacks."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...runtime.distributed import print_once
from ...runtime.errors import Notice
from ..bids import list_raw_files
from .recognition import find_absent_images
from .series import Series, describe_images

# isort: split
# After .series, which says which packages are missing.
from pydicom import Dataset

from .completeness import check_concatenations, find_missing_slices
from .copies import remove_copies
from .files import read_images
from .geometry import MissingSlicesError, sort_into_stack
from .kinds import explain_image_exclusion, explain_unsuitable_series, is_slice
from .parts import SeriesPart, split_parts
from .tags import format_some, format_values

_FEW = 0.125  # missing slices over those that are there; a larger gap lies between two stacks
# Tags that are equal in the slices of a series.
_SERIES_PROPERTIES = ("PatientID", "SeriesDescription", "Modality", "Rows", "Columns", "PixelSpacing")


def find_series(folder: str | os.PathLike, folders: Sequence[Path] = ()) -> list[Series]:
    """Find every DICOM series under a folder by its headers. A series with several stacks is split into parts.

    If a series of MR slices is not a stack, its ``problem`` is the reason. A damaged file, or a file whose content is
    not here, is a problem for every series in its folder, because it may be a slice of any of them. If its
    folder has no scan, such files become one series with a problem. Copies of a file are skipped with a line that
    names them.

    Args:
        folder: searched with all folders in it, see :func:`~common.program.bids.list_raw_files`. Files that are not
            DICOM and names that begin with a dot are skipped.
        folders: those in it of which series are wanted; none for all.

    Returns:
        The series in the order of the files' names; empty if there is no DICOM file.
    """
    headers_by_series: dict[tuple[str, str, bool], list[Dataset]] = {}
    damaged: dict[Path, dict[Path, str]] = {}
    paths = [Path(folder, name) for name in list_raw_files(Path(folder), folders)[0]]
    # The last path of a folder counts, if there are links to it.
    files = sorted({(os.path.realpath(path.parent), path.name): path for path in reversed(paths)}.values())
    absent = find_absent_images(files)
    for path in files:
        if path in absent:
            damaged.setdefault(path.parent, {})[path] = f"{path}: {absent[path]}"
            continue
        try:
            images = read_images(path)
        except ValueError as error:
            damaged.setdefault(path.parent, {})[path] = str(error)
            continue
        for header in images:
            # Some scanners put raw data and reports into the series of the images.
            is_image = "Rows" in header or explain_unsuitable_series([header]) is None
            headers_by_series.setdefault((header.StudyInstanceUID, header.SeriesInstanceUID, is_image), []).append(
                header
            )
    _merge_single_slices(headers_by_series)
    uids = {(each.SeriesInstanceUID, each.SOPInstanceUID) for headers in headers_by_series.values() for each in headers}
    counts = Counter(uid for uid, _ in uids)
    damage = {parent: _describe_damage(faults) for parent, faults in damaged.items()}
    series = [each for headers in headers_by_series.values() for each in _split_into_series(headers, damage, counts)]
    alone = damage.keys() - {path.parent for each in series if each.exclusion is None for path in each.files}
    return series + [Series(f"a damaged file in {parent}", [], problem=damage[parent]) for parent in sorted(alone)]


def _describe_damage(faults: Mapping[Path, str]) -> str:
    """What is wrong with the first of a folder's damaged files, and the names of the others."""
    (_, first), *others = faults.items()
    return first + (
        f" (nor can be read, next to it: {format_some([path.name for path, _ in others])})" if others else ""
    )


def _merge_single_slices(headers_by_series: dict[tuple[str, str, bool], list[Dataset]]) -> None:
    """Put slices that are alone under their two UIDs, but alike, under the UIDs of the first."""
    single = [uids for uids, headers in headers_by_series.items() if len(headers) == 1 and is_slice(headers[0])]
    counts = Counter(uid for uids in single for uid in uids[:2])
    alike: dict[tuple[str, ...], list[tuple[str, str, bool]]] = {}
    for uids in single:
        shared = next((uid for uid in uids[:2] if counts[uid] > 1), "")
        alike.setdefault(
            (shared, *(format_values(headers_by_series[uids][0], keyword) for keyword in _SERIES_PROPERTIES)), []
        ).append(uids)
    for first, *others in alike.values():
        headers_by_series[first] += [header for uids in others for header in headers_by_series.pop(uids)]


def _split_into_series(headers: list[Dataset], damaged: Mapping[Path, str], counts: Mapping[str, int]) -> list[Series]:
    """Split the images of one SeriesInstanceUID into series, and these into their stacks.

    Args:
        headers: of the images.
        damaged: what is wrong with the damaged files of each folder.
        counts: numbers of the different files of each SeriesInstanceUID, also of those that are no images.
    """
    series_list = []
    own_uids = [
        k for k in ("StudyInstanceUID", "SeriesInstanceUID") if len({header[k].value for header in headers}) > 1
    ]
    if own_uids:
        first, count = headers[0], len(headers)
        modifications = " ".join(f"-m {keyword}={first[keyword].value}" for keyword in own_uids)
        problem = (
            f"each of {count} images has a {' and a '.join(own_uids)} of its own, expected one for all slices of a "
            "stack. An export or an anonymiser made them. Export the series again, or give a copy of the files one: "
            f"dcmodify -nb {modifications} FILES, with dcmtk."
        )
        return [
            Series(
                describe_images(first, count), headers, problem=problem, exclusion=explain_unsuitable_series(headers)
            )
        ]
    for images in _split_by_name(headers):
        line = describe_images(images[0], len(images))
        try:
            check_concatenations(images)
            images, copies = remove_copies(images)
        except ValueError as error:
            series_list.append(Series(line, images, problem=str(error), exclusion=explain_unsuitable_series(images)))
            continue
        if copies:
            print_once(f"{line}: passed over, copies of its other files: {format_some(copies)}")
        if exclusion := explain_unsuitable_series(images):
            series_list.append(Series(line, images, exclusion=exclusion))
            continue
        split = split_parts(images)
        parts = [_make_series(part, number, damaged) for number, part in enumerate(split)]
        found = find_missing_slices([part.headers for part in parts], counts[images[0].SeriesInstanceUID])
        for part, faults in zip(parts, found, strict=True):
            if part.problem is None and part.exclusion is None:
                part.problem = next((str(fault) for fault in faults if isinstance(fault, ValueError)), None)
                part.warnings = [fault for fault in faults if isinstance(fault, UserWarning)]
                part.warnings += _note_contrasts(part)
        series_list += _join_time_points(split, parts)
    return series_list


def _join_time_points(split: Sequence[SeriesPart], parts: Sequence[Series]) -> list[Series]:
    """Make one series of the time points of a scan that lie on one grid, without the last ones if they have a problem.

    The problem of another time point becomes that of the series.
    """
    scans: dict[object, list[tuple[float, Series]]] = {}
    for i, (part, each) in enumerate(zip(split, parts, strict=True)):
        scans.setdefault(i if part.time is None else part.scan, []).append((part.time or 0.0, each))
    joined: list[Series] = []
    for name, timed in scans.items():
        points = [each for _, each in sorted(timed, key=lambda pair: pair[0])]
        while len(points) > 1 and points[-1].problem is not None:  # the scan was stopped
            joined.append(points.pop())
        sound = [each for each in points if each.affine is not None and each.problem is None]
        grids = {repr((each.shape, np.round(each.affine, 3).tolist())) for each in sound}
        if len(points) == 1 or len(grids) > 1:
            joined += points
            continue
        first, headers = points[0], [header for each in points for header in each.headers]
        problems = [f"{each.part}: {each.problem}" for each in points if each.problem is not None]
        warned = {str(warning): warning for each in points for warning in each.warnings}
        joined.append(
            replace(
                first,
                description=describe_images(first.headers[0], len(headers), str(name)),
                headers=headers,
                problem=problems[0] if problems else None,
                part=str(name),
                warnings=[*warned.values()],
                volumes=len(points),
            )
        )
    return joined


def _split_by_name(headers: list[Dataset]) -> list[list[Dataset]]:
    """Split images with one SeriesInstanceUID by SeriesNumber and SeriesDescription, as two series may get one UID.

    A description does not split stacks that are whole without it, nor time points that it only numbers: some scanners
    write the time of day or a count into it.
    """
    series: list[list[Dataset]] = []
    for numbered in _group_by_words(headers, "SeriesNumber"):
        named = _group_by_words(numbered, "SeriesDescription")
        if len(named) > 1 and _are_stacks(parts := split_parts(_keep_originals(numbered))):
            stacks = sum(len(split_parts(_keep_originals(images))) for images in named)
            is_timed = len({part.scan if part.time is not None else part.name for part in parts}) == 1
            is_counted = is_timed and len(named) == stacks and len(_list_descriptions(numbered)) == 1
            named = [numbered] if len(parts) < stacks or is_counted else named
        series += named
    return series


def _list_descriptions(headers: Sequence[Dataset]) -> list[str]:
    """The SeriesDescriptions of images, one of those that differ by numbers and marks; T1, T2 and + are none."""
    texts = dict.fromkeys(str(header.get("SeriesDescription") or "") for header in headers)
    return [*{re.sub(r"(?<!\bT)\d+|[^\w+]|_", "", text): text for text in reversed(texts) if text}.values()][::-1]


def _note_contrasts(part: Series) -> list[UserWarning]:
    """A notice about one volume whose images are described, or have a contrast agent, as of several contrasts."""
    tags = {"SeriesDescription": _list_descriptions(part.headers)}
    tags["ContrastBolusAgent"] = [*dict.fromkeys(str(h.get("ContrastBolusAgent") or "none") for h in part.headers)]
    words = [f"{tag} is {' and '.join(values)}" for tag, values in tags.items() if len(values) > 1]
    text = f"series {part.uid}: one volume by its slices, though {', and '.join(words)}; look at its contrast."
    return [Notice(text)] if words else []


def _group_by_words(headers: list[Dataset], keyword: str) -> list[list[Dataset]]:
    """Group images by an attribute's words, as they become names of files; no split if most have their own."""
    groups: dict[str, list[Dataset]] = {}
    for header in headers:
        groups.setdefault(re.sub("[^A-Za-z0-9]+", "_", format_values(header, keyword)), []).append(header)
    return [*groups.values()] if 2 * len(groups) <= len(headers) else [headers]


def _keep_originals(headers: list[Dataset]) -> list[Dataset]:
    """Images without copies; all if two differ under one UID."""
    try:
        return remove_copies(headers)[0]
    except ValueError:
        return headers


def _are_stacks(parts: Sequence[SeriesPart]) -> bool:
    """Whether each part of a series is a stack of even slices, of which few are missing, or no magnitude image."""
    for part in parts:
        if not all(map(explain_image_exclusion, part.headers)):
            try:
                sort_into_stack(part.headers)
            except MissingSlicesError as error:
                if error.share > _FEW:
                    return False
            except ValueError:
                return False
    return True


def _make_series(part: SeriesPart, number: int, damaged: Mapping[Path, str]) -> Series:
    """A part of a series with its geometry, or what is wrong with it."""
    line = describe_images(part.headers[0], len(part.headers), part.name)
    series = Series(line, part.headers, part=part.name, number=number)
    series.exclusion = explain_unsuitable_series(part.headers)
    if series.exclusion is None:
        series.problem = next((damaged[p] for h in part.headers if (p := Path(h.filename).parent) in damaged), None)
        if series.problem is None:
            try:
                series.headers, series.affine = sort_into_stack(part.headers)
                series.description = describe_images(series.headers[0], len(series.headers), part.name)
            except ValueError as error:
                series.problem = str(error)
    return series
