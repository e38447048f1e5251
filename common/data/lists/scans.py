"""Scans to super-resolve, found in a folder, and their guides."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...io.files import find_files, list_files
from ...io.formats import (
    EXTENSIONS,
    explain_missing_content,
    find_absent_images,
    get_extension,
    is_named_as_dicom,
    may_be_dicom,
)
from ...io.images import open_image_or_none
from ...io.naming import make_case_stem
from ...io.owners import explain_difference, make_owner
from ...runtime.distributed import print_once
from ...transforms.scan.check import describe_labels
from ..case import Case
from .owners import warn_of_another_visit
from .scan_kinds import (
    explain_exclusion,
    explain_unreadable,
    find_archives,
    looks_like_scan,
    print_skipped,
    select_scan_files,
)
from .subjects import check_no_duplicates, identify_subject

# Compressed label maps of heads had up to 0.11 bytes a voxel, scans of heads 0.16 and more.
_MOST_BYTES = 0.25
_KINDS = {"guide": "guide", "label": "label map"}  # by option


def find_scans(
    path: str | os.PathLike,
    scan: str | Sequence[str] | None = None,
    guide: str | Sequence[str] | None = None,
    subject: str | None = None,
    label: str | None = None,
    dicom: bool = False,
) -> list[Case]:
    """Cases for inference: the scans of a folder, in the order of their paths, or one file.

    Files that look like scans become cases. Results of super-resolution (:func:`is_result`) and files that are not
    magnitude MR images (:func:`explain_skipping`) are skipped, with a printed line.
    Guides and label maps are no scans.

    A single scan and a single guide are a pair, unless sidecar JSON or names say that they are of different people or
    visits. Scans of one subject and visit share its guide; of several, that whose name agrees best. A scan with no
    guide or several guides gets a problem. Guides without a scan are named in a printed line. So it is with label maps.

    Args:
        path: a folder, searched with its subfolders, linked ones too, and base of the patterns; or a file.
        scan: glob patterns of the scans in a folder, separated by commas; ``**`` goes into subfolders. None for all.
        guide: glob patterns of guides, or the path of one; None for scans without guides.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        label: glob patterns of label maps, or the path of one; None for none.
        dicom: whether the caller treats the DICOM files, by content or name.

    Returns:
        Cases with "image", the "name" of :func:`name_results`, and "guide" and "label_map". A case has a problem if its
        format cannot be read or its content is missing. One case represents all DICOM files of a folder.

    Raises:
        FileNotFoundError: when the path does not exist, or no file, or none that matches, looks like a scan.
        ValueError: for an empty pattern of scans, a file that matches the patterns of scans and guides, only files that
            are skipped, guides only, or a named guide or label map that is not one.
    """
    root = Path(path).expanduser()
    alone = root.is_file() or (root.is_symlink() and not root.exists())
    if not str(path).strip() or not (alone or root.is_dir()):
        raise FileNotFoundError(f"dataset_dir '{path}' is neither a folder nor a file; name scans to super-resolve.")
    if not alone and scan is not None and not scan:
        raise ValueError("no --lr pattern; name the scans to super-resolve, e.g. --lr '*_t2w.nii.gz'.")
    folder = (root.parent if alone else root).absolute()
    label_maps = [] if label is None else _find_partners(folder, label, "label", report=True)
    if alone:
        files = [root]
    elif scan is not None:
        files = [folder / name for name in _match_scans(folder, scan, "lr")]
    else:
        files = _list_scans(root, dicom, {os.path.realpath(folder / name) for name in label_maps})
    cases = name_results(_make_cases(files, single=alone), folder)
    if guide is not None:
        guides = _find_partners(folder, guide, "guide", report=scan is not None)  # or it is said above what is no scan
        if alone:
            guides = [name for name in guides if os.path.realpath(folder / name) != os.path.realpath(root)]
        elif scan is not None:
            check_no_duplicates({"lr": [os.path.relpath(file, folder) for file in files], "guide": guides})
        taken = {os.path.realpath(folder / name) for name in guides}
        cases = [case for case in cases if os.path.realpath(case["image"]) not in taken]
        if not cases:
            raise ValueError(f"{path}: found guides only, expected scans too; narrow --guide '{guide}'.")
        _add_partners(cases, folder, guides, subject, "guide")
    if label is not None:
        _add_partners(cases, folder, label_maps, subject, "label")
    return cases


def _list_scans(root: Path, dicom: bool, others: Collection[str]) -> list[Path]:
    """The files of a folder that look like scans, without other files; ``dicom`` as for :func:`find_scans`."""
    # A folder with two paths is read once.
    candidates = {
        file.parent.resolve() / file.name: file for file in (root / name for name in reversed(list_files(root)))
    }
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
    stems = [make_case_stem(case["image"]) for case in cases]
    stem_counts = Counter(stems)
    cases_by_name: dict[str, list[Case]] = {}
    for case, stem in zip(cases, stems, strict=True):
        folders = Path(os.path.relpath(Path(case["image"]).parent, root)).parts if stem_counts[stem] > 1 else ()
        case.entry["name"] = "_".join([*folders, stem])
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

    It is a result, no magnitude MR image by what :func:`explain_exclusion` reads, or a mask or label map by its voxels.
    """
    if is_result(path):
        return "a result of super-resolution."
    return explain_exclusion(path) or _explain_labels(path)


def _explain_labels(path: Path) -> str | None:
    image: Any = open_image_or_none(path)
    if image is None or len([size for size in image.shape if size > 1]) != 3:
        return None
    if path.suffix in (".gz", ".mgz") and path.stat().st_size > _MOST_BYTES * math.prod(image.shape):
        return None  # its voxels need not be read
    try:
        voxels = np.asanyarray(image.dataobj).reshape(1, *(size for size in image.shape if size > 1))
    except Exception:  # of nibabel; it is reported when the file is loaded
        return None
    found = describe_labels(voxels) if voxels.dtype.kind in "biuf" and voxels.min() < voxels.max() else None
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
        elif (reason := explain_exclusion(file) if single else explain_skipping(file)) is not None:
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


def _match_scans(root: Path, patterns: str | Sequence[str], option: str) -> list[str]:
    files = [
        path.relative_to(root).as_posix()
        for path in select_scan_files(root / p for p in find_files(root, patterns, option))
    ]
    if not files:
        raise FileNotFoundError(
            f"no scan matches --{option} '{patterns}' in {root}; expected files that end in {', '.join(EXTENSIONS)}."
        )
    return files


def _find_partners(root: Path, patterns: str | Sequence[str], option: str, report: bool) -> list[str]:
    """Paths of guides or label maps: relative to ``root`` for patterns, absolute for a named file."""
    if isinstance(patterns, str) and ((path := Path(patterns).expanduser()).is_file() or explain_missing_content(path)):
        if reason := _explain_refusal(path, option):
            raise ValueError(f"--{option} {patterns}: {reason}")
        return [str(path.absolute())]
    files = [path for path in _match_scans(root, patterns, option) if not is_result(root / path)]
    reasons = {path: reason for path in files if (reason := _explain_refusal(root / path, option)) is not None}
    if report:
        print_skipped(reasons)
    return [path for path in files if path not in reasons]


def _explain_refusal(path: Path, option: str) -> str | None:
    if option == "label" and may_be_dicom(path):
        return "it is DICOM, expected a label map in another format; convert it to NIfTI, e.g. with dcmqi."
    if (reason := explain_unreadable(path) or explain_missing_content(path)) is not None:
        return reason
    if get_extension(path) is None:
        return f"not a format that is read; expected one of {', '.join(EXTENSIONS)}."
    return None if option == "label" else explain_exclusion(path)


def _add_partners(cases: Sequence[Case], root: Path, partners: Sequence[str], subject: str | None, option: str) -> None:
    """Give each case the guide or label map of its person and visit, or a problem.

    Of several, the one whose name agrees best is taken. One that was named is used for another visit too, with a
    warning.
    """
    kind = _KINDS[option]
    scans = [os.path.relpath(case["image"], root) for case in cases]
    only = len(scans) == len(partners) == 1
    subjects = {path: "" if only else identify_subject(path, subject) for path in (*scans, *partners)}
    owners = {path: make_owner(root / path, None, path, subject is None) for path in scans}
    owners |= {path: make_owner(root / path, None, f"the {kind} {path}", subject is None) for path in partners}
    unused = [path for path in partners if subjects[path] not in {subjects[scan] for scan in scans}]
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        print_once(
            f"{len(unused)} of {len(partners)} {kind}s have no scan and are not used: {', '.join(unused[:3])}{more}"
        )
    advice = "give a regular expression for the subject in a path, --subject."
    for case, path in zip(cases, scans, strict=True):
        same = [partner for partner in partners if subjects[partner] == subjects[path]]
        reasons = [explain_difference(owners[path], owners[partner]) for partner in same]
        fit = [partner for partner, reason in zip(same, reasons, strict=True) if reason is None]
        if not fit and len(same) == 1 and Path(same[0]).is_absolute():
            warn_of_another_visit(case, owners[path], owners[same[0]])
            fit = same
        best = _choose_alike(path, fit)
        name = subjects[path]
        if case.problem is not None:
            continue
        if len(best) == 1:
            runs = [re.findall(r"(?<![a-z0-9])run-\w+?(?=_|$)", make_case_stem(each)) for each in (path, best[0])]
            if option == "label" and all(runs) and runs[0] != runs[1]:
                case.add_warning(f"{path}: the {kind} {best[0]} is of {runs[1][0]}; check that it fits.", UserWarning)
            case.entry[kind.replace(" ", "_")] = str(root / best[0])
        elif best:
            case.problem = f"{path}: {name} has several {kind}s ({', '.join(best)}); narrow --{option}, or {advice}"
        elif same:
            case.problem = f"{reasons[0]}, expected the same person and visit; name the {kind} of this scan."
        else:
            without = "use --guided false" if option == "guide" else "leave --label out"
            case.problem = f"{path}: {name} has no {kind}; add it, {without}, or {advice}"


def _choose_alike(path: str, partners: Sequence[str]) -> list[str]:
    """The partners whose labels of BIDS, such as ses-2 and run-1, agree best with those of a scan."""

    def read_labels(name: str) -> dict[str, str]:
        return dict(re.findall(r"(?<![a-z0-9])([a-z]+)-([a-z0-9+]+)", make_case_stem(name).casefold()))

    own = read_labels(path)
    scores = [
        sum(1 if own[key] == value else -1 for key, value in read_labels(partner).items() if key in own)
        for partner in partners
    ]
    return [partner for partner, score in zip(partners, scores, strict=True) if score == max(scores)]
