"""The scans that inference super-resolves, found in a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...data.scans import name_entries
from ...io.files import find_files
from ...io.formats import EXTENSIONS, explain_missing_content
from ...io.images import open_image_or_none
from ...runtime.distributed import print_once
from ...transforms.scan.check import describe_labels
from ..bids import list_raw_files
from ..dicom.recognition import find_absent_images, is_named_as_dicom, may_be_dicom
from .case import Case
from .scan_kinds import (
    explain_unreadable,
    explain_unsuitable_file,
    find_archives,
    looks_like_scan,
    print_skipped,
    select_scan_files,
)

# Compressed label maps of heads had up to 0.11 bytes a voxel, scans of heads 0.16 and more.
_MOST_BYTES = 0.25
_FEW = 2_000_000  # voxels, up to which all are read: in crops labels compress less


def find_scans(
    path: str | os.PathLike,
    patterns: str | Sequence[str] | None = None,
    dicom: bool = False,
    others: Collection[str] = (),
    folders: Sequence[Path] = (),
) -> list[Case]:
    """Cases for inference: the scans of a folder, in the order of their paths, or one file.

    Files that look like scans become cases. Results of super-resolution (:func:`is_result`) and files that are not
    magnitude MR images (:func:`explain_skipping`) are skipped, with a printed line.

    Args:
        path: a folder, searched with its subfolders, linked ones too, see :func:`~common.program.bids.list_raw_files`,
            and base of the patterns; or a file.
        patterns: glob patterns of the scans in a folder, separated by commas; ``**`` goes into subfolders. None for
            all.
        dicom: whether the caller treats the DICOM files, by content or name.
        others: real paths of files that are no scans.
        folders: those in a folder of which scans are wanted; none for all.

    Returns:
        Cases with "image" and the "name" of :func:`name_results`. A case has a problem if its format cannot be read or
        its content is missing. One case represents all DICOM files of a folder.
    """
    root = Path(path).expanduser()
    alone = root.is_file() or (root.is_symlink() and not root.exists())
    if not str(path).strip() or not (alone or root.is_dir()):
        raise FileNotFoundError(f"dataset_dir '{path}' is neither a folder nor a file; name scans to super-resolve.")
    if not alone and patterns is not None and not patterns:
        raise ValueError("no --lr pattern; name the scans to super-resolve, e.g. --lr '*_t2w.nii.gz'.")
    folder = (root.parent if alone else root).absolute()
    if alone:
        files = [root]
    elif patterns is not None:
        files = [folder / name for name in match_scans(folder, patterns, "lr")]
    else:
        files = _list_scans(root, dicom, others, folders)
    return name_results(_make_cases(files, single=alone), folder)


def _list_scans(root: Path, dicom: bool, others: Collection[str], folders: Sequence[Path]) -> list[Path]:
    """The files of a folder that look like scans, without ``others``; arguments as for :func:`find_scans`."""
    # A folder with two paths is read once.
    names = reversed(list_raw_files(root, folders)[0])
    candidates = {file.parent.resolve() / file.name: file for file in (root / name for name in names)}
    every = [file for file in sorted(candidates.values()) if os.path.realpath(file) not in others]
    files = select_scan_files(every)
    print_skipped(find_archives(every))
    if dicom:
        files = [file for file in files if not is_named_as_dicom(file)]
    else:
        unnamed = [file for file in every if not looks_like_scan(file) and may_be_dicom(file)]
        files = sorted({*files, *unnamed, *find_absent_images(every)})
    if not files:
        raise FileNotFoundError(
            f"dataset_dir '{root}' and its subfolders hold no scan; expected {', '.join(EXTENSIONS)}."
        )
    return files


def match_scans(root: Path, patterns: str | Sequence[str], option: str) -> list[str]:
    """Paths, relative to a folder, of the files that match an option's glob patterns and look like scans."""
    files = [
        path.relative_to(root).as_posix()
        for path in select_scan_files(root / p for p in find_files(root, patterns, option))
    ]
    if not files:
        raise FileNotFoundError(
            f"no scan matches --{option} '{patterns}' in {root}; expected files that end in {', '.join(EXTENSIONS)}."
        )
    return files


def name_results(cases: Sequence[Case], root: Path) -> list[Case]:
    """Give each case the "name" of its results: the file's name without extensions, preceded by its folders if names
    are equal.

    Cases whose names are still equal, such as a.nii and a.nii.gz, get a problem, unless they have one.

    Args:
        cases: with "image".
        root: folder that the folders are relative to.

    Returns:
        The cases.
    """
    name_entries([case.entry for case in cases], root)
    cases_by_name: dict[str, list[Case]] = {}
    for case in cases:
        if case.problem is None:  # or it has no result
            cases_by_name.setdefault(case.name, []).append(case)
    for name, same in cases_by_name.items():
        for case in same:
            if others := ", ".join(other["image"] for other in same if other["image"] != case["image"]):
                case.problem = (
                    f"{case['image']}: its result would have the same name, {name}, as of {others}; rename one of them."
                )
    return [*cases]


def is_result(path: str | os.PathLike) -> bool:
    """Whether a file's header says that it is a result of super-resolution."""
    image = open_image_or_none(path)  # errors in a file are reported when it is loaded
    if image is None or not isinstance(image.header, nib.Nifti1Header):
        return False
    return image.header["descrip"].tobytes().startswith(b"super-resolved")


def explain_skipping(path: Path) -> str | None:
    """Why a file is skipped where it was found rather than named; None for scans and files that cannot be read.

    It is a result, unsuitable by :func:`explain_unsuitable_file`, or a mask or label map by its voxels.
    """
    if is_result(path):
        return "a result of super-resolution."
    return explain_unsuitable_file(path) or _explain_labels(path)


def _explain_labels(path: Path) -> str | None:
    image: Any = open_image_or_none(path)
    if image is None or len([size for size in image.shape if size > 1]) != 3:
        return None
    voxels = math.prod(image.shape)
    if path.suffix in (".gz", ".mgz") and voxels > _FEW and path.stat().st_size > _MOST_BYTES * voxels:
        return None  # its voxels need not be read
    try:
        array = np.asanyarray(image.dataobj).reshape(1, *(size for size in image.shape if size > 1))
    except Exception:  # of nibabel; it is reported when the file is loaded
        return None
    found = describe_labels(array) if array.dtype.kind in "biuf" and array.min() < array.max() else None
    return found and f"{found}; expected a magnitude MR image."


def _make_cases(files: Sequence[Path], single: bool = False) -> list[Case]:
    """Make cases of files that look like scans. Skipped files are printed; a single skipped file is refused.

    DICOM files of a folder that cannot be read for one reason are one case.
    """
    cases: list[Case] = []
    results, others = [], {}
    unread: dict[Any, list[Case]] = {}
    for file in files:
        case = Case({"image": str(file)})
        dicom = is_named_as_dicom(file) or not looks_like_scan(file)
        if problem := explain_unreadable(file) or (explain_missing_content(file) if dicom else None):
            case.problem = f"{file}: {problem}"
            # Reasons of one kind begin with the same words.
            same = unread.setdefault((file.parent, *problem.split()[:3]) if dicom else file, [])
            same.append(case)
            cases += [case] if len(same) == 1 else []
        elif is_result(file):
            results.append(file)
        elif (reason := explain_unsuitable_file(file) if single else explain_skipping(file)) is not None:
            others[str(file)] = reason
        else:
            cases.append(case)
    for case, *more in unread.values():
        case.problem = f"{case.problem} (and {len(more)} more DICOM files next to it)" if more else case.problem
    if not single:
        if results:
            print_once(
                f"{len(results)} of {len(files)} files are results of super-resolution and passed over: {results[0]}"
            )
        print_skipped(others)
    if not cases:
        raise ValueError(_explain_no_scans(results, others))
    return cases


def _explain_no_scans(results: Sequence[Path], others: Mapping[str, str]) -> str:
    """The message if all files are skipped."""
    more = len(results) + len(others) - 1
    if results:
        kinds = "results of super-resolution" + (" and files that are no scans" if others else "")
        first = f"{results[0]}{f' and {more} more' if more else ''}"
        return f"{first}: found {kinds} only, expected scans; there is nothing to do. Name scans."
    first, reason = next(iter(others.items()))
    return f"{first}: {reason}" + (f" Nor are {more} more files here, such as {[*others][1]}, scans." if more else "")
