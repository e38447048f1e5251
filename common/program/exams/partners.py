"""Guides and label maps, each with the scan of its person and visit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...data.lists.subjects import check_no_duplicates, identify_subject
from ...io.formats import EXTENSIONS, explain_missing_content, get_extension
from ...io.naming import make_case_stem
from ...runtime.distributed import print_once
from ..bids import list_raw_files
from ..cases.case import Case
from ..cases.scan_kinds import explain_unreadable, explain_unsuitable_file, print_skipped
from ..cases.scans import find_scans, is_result, match_scans
from ..dicom.recognition import may_be_dicom
from .owners import warn_of_another_visit
from .people import explain_difference, make_owner

ITSELF = (
    "its guide is the scan itself, expected a finer scan of another contrast of the same person; name one, or leave "
    "--guide out."
)
_KINDS = {"guide": "guide", "label": "label map"}  # by option


def find_paired_scans(
    path: str | os.PathLike,
    scan: str | Sequence[str] | None = None,
    guide: str | Sequence[str] | None = None,
    subject: str | None = None,
    label: str | None = None,
    dicom: bool = False,
    folders: Sequence[Path] = (),
) -> list[Case]:
    """Cases of :func:`~common.program.cases.scans.find_scans`, with their guides and label maps, which are no scans.

    A single scan and a single guide are a pair, unless sidecar JSON or names say that they are of different people or
    visits. Scans of one subject and visit share its guide; of several, that whose name agrees best. A scan with no
    guide or several guides gets a problem. Guides without a scan are named in a printed line. So it is with label maps.

    Args:
        path, scan, dicom, folders: as for :func:`~common.program.cases.scans.find_scans`.
        guide: glob patterns of guides, or the path of one; None for scans without guides.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        label: glob patterns of label maps, or the path of one; None for none.

    Returns:
        Cases with "guide" and "label_map".
    """
    root = Path(path).expanduser()
    folder = (root if root.is_dir() else root.parent).absolute()
    label_maps = [] if label is None else find_partners(folder, label, "label", True, folders)
    cases = find_scans(path, scan, dicom, {os.path.realpath(folder / name) for name in label_maps}, folders)
    if guide is not None:
        guides = find_partners(folder, guide, "guide", scan is not None, folders)  # or it is said above what is no scan
        if not root.is_dir():
            others = [name for name in guides if os.path.realpath(folder / name) != os.path.realpath(root)]
            if guides and not others:
                return [replace(case, problem=case.problem or f"{path}: {ITSELF}") for case in cases]
            guides = others
        elif scan is not None:
            check_no_duplicates({"lr": [os.path.relpath(case["image"], folder) for case in cases], "guide": guides})
        taken = {os.path.realpath(folder / name) for name in guides}
        cases = [case for case in cases if os.path.realpath(case["image"]) not in taken]
        if not cases:
            raise ValueError(f"{path}: found guides only, expected scans too; narrow --guide '{guide}'.")
        _assign_guides_or_labels(cases, folder, guides, subject, "guide")
    if label is not None:
        _assign_guides_or_labels(cases, folder, label_maps, subject, "label")
    return cases


def find_partners(
    root: Path, patterns: str | Sequence[str], option: str, report: bool, folders: Sequence[Path] = ()
) -> list[str]:
    """Paths of guides or label maps: relative to ``root`` for patterns, absolute for a named file.

    Args:
        root: folder of the patterns.
        patterns: glob patterns, or the path of a file.
        option: "guide" or "label".
        report: whether to print what matches and is none.
        folders: those in ``root`` of which raw files are wanted; none for all.

    Raises:
        FileNotFoundError, ValueError: when nothing matches, or the file that is named is none.
    """
    if isinstance(patterns, str) and ((path := Path(patterns).expanduser()).is_file() or explain_missing_content(path)):
        if reason := _explain_refusal(path, option):
            raise ValueError(f"--{option} {patterns}: {reason}")
        return [str(path.absolute())]
    if isinstance(patterns, str) and path.is_absolute():
        raise FileNotFoundError(f"--{option} {patterns}: there is no such file or folder.")
    files = [path for path in match_scans(root, patterns, option) if not is_result(root / path)]
    raw = {*list_raw_files(root, folders)[0]}  # of a BIDS dataset, unless the patterns are about its derivatives
    files = [path for path in files if path in raw] or files
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
    return None if option == "label" else explain_unsuitable_file(path)


def _assign_guides_or_labels(
    cases: Sequence[Case], root: Path, partners: Sequence[str], subject: str | None, option: str
) -> None:
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
        names = ", ".join(Path(path).name if Path(path).is_absolute() else path for path in unused[:3])
        print_once(f"{len(unused)} of {len(partners)} {kind}s have no scan and are not used: {names}{more}")
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
            without = "leave --guide out of mri-sr, or use --guided False" if option == "guide" else "leave --label out"
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
