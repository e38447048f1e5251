"""Discover the cases in files and folders: scans and DICOM series, alone or as stacks of exams."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...geometry.affines import SLICE_AXES
from ...io.files import get_sidecar_path, read_sidecar
from ...io.formats import explain_missing_content, get_extension
from ...io.images import open_image_or_none
from ...io.naming import make_case_stem
from ...runtime.distributed import print_once
from ...transforms.scan.acquired import read_acquired_matrix
from ..bids import find_other_datatype, list_raw_files
from ..cases.case import Case
from ..cases.copies import is_same_volume
from ..cases.inputs import describe_series
from ..cases.scan_kinds import looks_like_scan, print_skipped
from ..cases.scans import explain_skipping, is_result, name_results
from ..dicom.recognition import enter_dicomdir, find_absent_images, is_named_as_dicom, may_be_dicom
from .grouping import combine_exam, group_exams, name_slice_axes
from .owners import identify_owner, warn_of_another_visit
from .partners import ITSELF, find_paired_scans, find_partners
from .people import IDENTITY, explain_strangers, make_owner

if TYPE_CHECKING:  # imported where there is DICOM, because its packages are optional
    from ..dicom.series import Series


def discover_cases(
    roots: Sequence[Path],
    temporary: Path,
    guide: str | None = None,
    subject: str | None = None,
    label: str | None = None,
    together: bool | str = False,
    exam: bool = False,
    visits: bool = False,
    fewest_stacks: int = 2,
    slice_axis: str | Sequence[str] | None = None,
    anatomical: bool = False,
    folders: Sequence[Path] = (),
) -> list[Case]:
    """Find the scans and DICOM series of files and folders. What cannot be done has a problem.

    Args:
        roots: files and folders.
        temporary: folder for the files that DICOM series will become, see :func:`convert_series`.
        guide: pattern or file of guides, as for :func:`find_paired_scans`, or what holds the DICOM series of one.
        subject: pattern of subjects, likewise.
        label: pattern or file of label maps, likewise.
        together: True if all scans are stacks of one contrast; "auto" to group the scans by exam and contrast.
        exam: whether the scans are of one exam; those of a single folder are grouped as by "auto".
        visits: whether an exam that is named may have scans of several visits.
        fewest_stacks: of an exam; with 1, a scan that has no other is an exam too.
        slice_axis: "LR", "AP", "SI" or "auto" for each file and folder; or one for all scans, see
            :func:`~common.program.exams.grouping.name_slice_axes`. None for none.
        anatomical: whether of several scans, or of a folder, those of other kinds by their BIDS names are skipped.
        folders: those in a folder of which files are wanted; none for all.
    """
    axes = _list_slice_axes(slice_axis, roots)
    read_series = functools.cache(partial(_read_series, folders=folders))  # once, of many files too
    converted = None if guide is None else _convert_guide(guide, temporary)
    guide = guide if converted is None else converted.file
    found = [
        partial(_find_cases, root, temporary, guide, subject, label, read_series, folders, axis)
        for root, axis in zip(roots, axes, strict=True)
    ]
    if len(roots) == 1 or together is True or exam:
        cases = [case for find in found for case in find()]
    else:
        cases = _find_scattered(dict(zip(roots, found, strict=True)))
    if anatomical and (len(cases) > 1 or roots[0].is_dir()):
        cases = _select_anatomical(cases)
    if converted is not None:
        for case in cases:
            converted.describe(case)
    cases = _check_copies(cases)
    if not together and not exam:
        return cases
    is_named = together is True or (exam and len(roots) > 1)
    if is_named and (problem := explain_strangers([*map(identify_owner, cases)], visits)) is not None:
        return [replace(cases[0], problem=problem)]
    series = [] if is_named else [case for case in cases if case.problem is None and case.volumes > 1]
    for case in series:
        case.notices = [*case.notices, "done alone, because a 4-D scan is no stack"]
    groups = [cases] if is_named else group_exams([case for case in cases if case not in series])
    if isinstance(slice_axis, str):
        name_slice_axes([case for group in groups for case in group], slice_axis)
    return [each for group in groups for each in combine_exam(group, fewest_stacks, together is True)] + series


def split_output(
    paths: Sequence[Path], is_result: Callable[[Path], bool] = is_result
) -> tuple[list[Path], Path | None]:
    """Split paths into scans and the output, which is the last of several if it is a folder or does not exist.

    After a single scan it may also be an earlier result.

    Args:
        paths: on the command line.
        is_result: whether a file is a result of the command.
    """
    *scans, last = paths
    if not scans:
        return [last], None
    if last.is_dir() and not any(last.glob("log*.jsonl")) and last not in map(get_folder, scans):
        files = [path for path in last.iterdir() if path.is_file() and not is_result(path)]
        holds_scans = any(get_extension(path) or is_named_as_dicom(path) or may_be_dicom(path) for path in files)
        if holds_scans or (len(scans) > 1 and any(scan.is_dir() for scan in scans) and any(last.iterdir())):
            raise ValueError(f"{last}: does it hold scans, or is it for results? Name the folder of the results by -o.")
    is_new = not last.exists() and not last.is_symlink()
    if is_new and len(scans) > 1 and get_extension(last):
        raise ValueError(
            f"{last}: there is no such scan, and a new file is the result of one; name a folder for several."
        )
    is_output = is_new or last.is_dir() or (len(scans) == 1 and is_result(last))
    return (scans, last) if is_output else ([*paths], None)


def find_common_folder(paths: Iterable[Path]) -> Path:
    """The folder that holds all files and folders."""
    folders = {get_folder(path) for path in paths}
    return folders.pop() if len(folders) == 1 else Path(os.path.commonpath([folder.absolute() for folder in folders]))


def get_folder(path: Path) -> Path:
    """The folder itself, or that of a file."""
    return path if path.is_dir() else path.parent


def set_acquired_matrix(cases: Sequence[Case], matrix: Any) -> None:
    """Give each case the matrix that was acquired.

    Args:
        cases: of scans, without exams.
        matrix: voxels along the axes of the file; "header" to read it in each header; None to leave the cases alone.
    """
    is_given = (
        isinstance(matrix, list | tuple) and len(matrix) == 3 and all(isinstance(n, int) and n > 1 for n in matrix)
    )
    if not is_given and matrix not in (None, "header"):
        raise ValueError(
            f"--acquired_matrix is {matrix!r}, expected header, or three numbers of voxels along the axes of the file, "
            'such as "[256,205,44]".'
        )
    for case in cases if matrix else ():
        if case.problem is None:
            with case.catch_problem():
                image = case["image"]
                metadata = case.series[image].acquisition if case.series else read_sidecar(image)[0]
                case.entry["image_matrix"] = (
                    [*matrix] if is_given else read_acquired_matrix(metadata, case.read_grid()[1])
                )


def convert_series(case: Case) -> None:
    """Write the NIfTI files of a case's DICOM series that are not there yet, with its warnings about them."""
    if not case.series:
        return
    from ..dicom.series import write_nifti

    for file, series in case.series.items():
        if file in case.inputs:  # it was compared with a result that is there
            continue
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with case.catch_problem(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            write_nifti(series, file)
            case.inputs[file] = describe_series(series, file)
            name = series.stem if "stacks" in case else case.name
            for each in caught:
                case.add_warning(f"{name}: {str(each.message).removeprefix(f'series {series.uid}: ')}", each.category)


def _find_scattered(finders: Mapping[Path, Callable[[], list[Case]]]) -> list[Case]:
    """Find the cases of several files and folders, each once.

    What is no scan is skipped with a line, as in a folder. A fault of a file or folder stops no other. Equal names of
    results are preceded by the folders, from the folder that holds all.
    """
    found: dict[str, tuple[Path, Case]] = {}
    skipped: dict[str, str] = {}
    for root, find in finders.items():
        if get_extension(root) and root.is_file() and (reason := explain_skipping(root)):
            skipped[str(root)] = reason
            continue
        try:
            cases = find()
        except (OSError, ValueError) as error:
            cases = [Case({"image": str(root), "name": root.name}, problem=str(error))]
        for case in cases:
            series = case.series.get(case["image"])
            if series is not None and series.exclusion:
                skipped[series.description] = series.exclusion
            else:
                found.setdefault(os.path.realpath(case["image"]), (root, case))
    print_skipped(skipped)
    if not found:
        raise ValueError(f"found no scan in {', '.join(map(str, finders))}; name scans, or folders that hold some.")
    partners = [case.get(key) for _, case in found.values() for key in ("guide", "label_map")]
    taken = {os.path.realpath(file) for file in partners if file}
    every = [pair for image, pair in found.items() if image not in taken]
    names, common = Counter(case.name for _, case in every), find_common_folder(finders).absolute()
    for root, case in every:
        if names[case.name] > 1:
            case.entry["name"] = "_".join([*get_folder(root).absolute().relative_to(common).parts, case.name])
    return [case for _, case in every]


def _select_anatomical(cases: Sequence[Case]) -> list[Case]:
    """Leave out the images that are not anatomical by their BIDS names, such as functional ones, with one line."""
    others: dict[str, dict[str, str]] = {}
    for case in cases:
        image = case["image"]
        if (datatype := find_other_datatype(image, stem := make_case_stem(image))) is not None:
            others.setdefault(datatype, {})[image] = stem.rpartition("_")[2]
    found = {image for images in others.values() for image in images}
    listing = "; ".join(
        f"{len(images)} of {datatype} ({', '.join(sorted(set(images.values())))})"
        for datatype, images in others.items()
    )
    print_skipped(
        dict.fromkeys(sorted(found), "no anatomical image, by its BIDS name."),
        f"passed over, as no anatomical images by their BIDS names: {listing}",
    )
    if len(found) == len(cases):
        raise ValueError(f"found no anatomical image; {listing}. Others are done without --bids.")
    return [case for case in cases if case["image"] not in found]


def _find_cases(
    root: Path,
    temporary: Path,
    guide: str | None,
    subject: str | None,
    label: str | None,
    read_series: Callable[[Path], list[Series]],
    folders: Sequence[Path],
    slice_axis: str = "auto",
) -> list[Case]:
    """Find the cases of a file or folder. DICOM series are named as the NIfTI files that they will become."""
    if not root.exists():
        raise FileNotFoundError(f"{root}: {explain_missing_content(root) or 'there is no such file or folder.'}")
    series, folder = _find_series(root, read_series, folders), get_folder(root)
    scans: list[Case] = []
    if root.is_dir() or not series:
        try:
            scans = find_paired_scans(root, None, guide, subject, label, True, folders)
        except FileNotFoundError as error:
            if not series:  # a folder of DICOM may have no other scans
                text = str(error).removeprefix("dataset_dir ").replace("no scan", "no scan and no DICOM series of one")
                raise FileNotFoundError(text) from None
        except ValueError:
            if not series:  # a folder of DICOM may have no other scans than results
                raise
    guides: list[str] = []
    if guide is not None and series:
        guides = find_partners(folder, guide, "guide", False, folders)
        scan_series = [each for each in series if str(_name_file(temporary, each)) not in guides]
        if not scan_series and not scans:
            case = Case({"image": guides[0], "name": root.name}, f"{root}: {ITSELF}", {guides[0]: str(root)})
            return [case]
        series = scan_series
    files = [(each, file) for each in series for file in _list_files(temporary, each)]
    unnamed = [Case({"image": str(folder / file.relative_to(temporary))}) for _, file in files]
    cases = name_results([*scans, *unnamed], folder)
    for case, (each, file) in zip(cases[len(scans) :], files, strict=True):
        image = case.entry["image"] = str(file)
        case.sources, reason = {image: _name_source(each)}, each.problem
        if file.exists():  # no series any more
            reason, case.inputs = None, {image: describe_series(each, image)}
            case.notices = ["a mosaic, opened by dcm2niix; so the result is NIfTI, and there is no derived series."]
        else:
            case.series = {image: each}
        if len(guides) > 1:
            reason = reason or "with --guide, name the file or the folder of the guide of this series."
        elif guides and not (case.problem or reason):
            case.entry["guide"] = path = str(folder / guides[0])
            warn_of_another_visit(case, identify_owner(case), make_owner(path, None, f"the guide {path}"))
        if label is not None and not (case.problem or reason):
            case.entry["label_map"] = label
            if len(cases) > 1 or not Path(label).expanduser().is_file():
                reason = "with --label, name this series alone and the file of its label map."
            else:
                warn_of_another_visit(case, identify_owner(case), make_owner(label, None, f"the label map {label}"))
        if case.problem is None and reason is not None:
            case.problem = f"{each.description}: {reason}"
    name_slice_axes(cases, slice_axis)
    return cases


def check_slice_axes(slice_axis: Any) -> Any:
    """A slice axis of the command line, or a list of them, in capitals; refuse what is none."""
    if isinstance(slice_axis, list | tuple):
        return [check_slice_axes(axis) for axis in slice_axis]
    known = {axis.lower(): axis for axis in SLICE_AXES}
    if (axis := known.get(str(slice_axis).lower())) is None:
        raise ValueError(f"--slice_axis is {slice_axis!r}, expected one of {', '.join(SLICE_AXES)}.")
    return axis


def _list_slice_axes(slice_axis: str | Sequence[str] | None, roots: Sequence[Path]) -> list[str]:
    """The slice axis of each file and folder that the user names, "auto" for those without one of their own."""
    if isinstance(slice_axis, str) or slice_axis is None:
        return ["auto"] * len(roots)
    if len(slice_axis) != len(roots):
        raise ValueError(
            f"--slice_axis names {len(slice_axis)} axes for {len(roots)} scans or folders; give one for each, in their "
            "order, and name the scans of a folder one by one."
        )
    return [*slice_axis]


def _name_file(temporary: Path, series: Series) -> Path:
    """The NIfTI file that a series will become."""
    return temporary / series.uid / f"{series.stem}.nii.gz"


def _list_files(temporary: Path, series: Series) -> list[Path]:
    """The NIfTI files that a series will become; those of mosaics are made, if dcm2niix is installed."""
    file = _name_file(temporary, series)
    if series.is_mosaic:
        from ..dicom.mosaics import convert_mosaics, find_converter

        if find_converter():
            try:
                return convert_mosaics(series, file.parent / file.name.removesuffix(".nii.gz"))
            except ValueError as error:
                series.problem = str(error)
    return [file]


def _name_source(series: Series) -> str:
    return f"{series.files[0].parent} (DICOM series {series.uid})" if series.files else series.description


@dataclass
class _Guide:
    """The DICOM series of a guide as a file, with what was said when it was converted."""

    file: str
    series: Series
    warnings: list[warnings.WarningMessage]

    def describe(self, case: Case) -> None:
        """Say in a case which series its guide is, also in what was said about its file."""
        source = _name_source(self.series)
        case.problem = case.problem and case.problem.replace(self.file, source)
        case.warnings = [text.replace(self.file, source) for text in case.warnings]
        if case.get("guide") != self.file:
            return
        case.sources = {**case.sources, self.file: source}
        case.inputs[self.file] = describe_series(self.series, self.file)
        if case.series:
            case.series = {**case.series, self.file: self.series}
        for each in self.warnings:
            case.add_warning(f"the guide: {each.message}", each.category)


def _convert_guide(guide: str, temporary: Path) -> _Guide | None:
    """Convert a guide that is a DICOM series, with whose it is in its sidecar JSON; None for other guides."""
    path = enter_dicomdir(Path(guide).expanduser())
    if not path.is_dir() and not (path.is_file() and get_extension(path) is None and may_be_dicom(path)):
        return None
    from ..dicom.series import write_nifti
    from ..dicom.volume_or_series import choose_series

    series = choose_series(path, f"--guide {guide}")
    file = _name_file(temporary, series)
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        write_nifti(series, file)
    owner = {key: str(series.headers[0].get(key) or "") for key in IDENTITY}
    get_sidecar_path(file).write_text(json.dumps(read_sidecar(file)[0] | owner))
    return _Guide(str(file), series, caught)


def _check_copies(cases: Sequence[Case]) -> list[Case]:
    """Leave out files with the voxels of a series that is there too; give a problem to a scan that is its own guide."""
    series = [case for case in cases if case.series and case.problem is None]
    copies: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the scan is loaded
        for case in (case for case in cases if case.problem is None):
            scan = case.open_scan()
            if "guide" in case and is_same_volume(scan, open_image_or_none(case["guide"])):
                case.problem = f"{case.source}: {ITSELF}"
            for other in series if not case.series else ():
                if is_same_volume(scan, other.open_scan()):
                    text = f"the same volume as {other.source}, which is done; to do this one, name it alone."
                    copies[case["image"]] = text
    print_skipped(copies)
    return [case for case in cases if case["image"] not in copies]


def _read_series(folder: Path, folders: Sequence[Path]) -> list[Series]:
    from ..dicom.search import find_series

    return find_series(folder, folders)


def _find_series(root: Path, read_series: Callable[[Path], list[Series]], folders: Sequence[Path]) -> list[Series]:
    """Find the DICOM series of a folder, or of one file, without results of super-resolution.

    A series that is no scan is skipped. If the file that is named holds nothing else, this is its problem.
    """
    files = [root]
    if root.is_dir():
        names, left_out = list_raw_files(root, folders)
        files = [root / name for name in names]
        _print_left_out(root, left_out)
    if not any(is_named_as_dicom(file) or may_be_dicom(file) for file in files) and not find_absent_images(files):
        return []
    series_list = read_series(get_folder(root))
    scans = [each for each in series_list if not each.is_derived]
    if len(scans) < len(series_list):
        print_once(
            f"{len(series_list) - len(scans)} of {len(series_list)} DICOM series are results of super-resolution: "
            "passed over"
        )
    if root.is_file():
        scans = [each for each in scans if each.has_file(root)]
        if all(each.exclusion for each in scans):
            return [replace(each, problem=each.exclusion) for each in scans]
    print_skipped({each.description: each.exclusion for each in scans if each.exclusion})
    return [each for each in scans if not each.exclusion]


def _print_left_out(root: Path, left_out: Sequence[str]) -> None:
    """Print a line about the folders and scans of a BIDS dataset that hold no raw images."""
    named = sorted(name for name in left_out if name.endswith("/"))
    if scans := sorted(filter(looks_like_scan, left_out)):
        named.append(f"{len(scans)} of .bidsignore, such as {scans[0]}")
    if named:
        print_once(f"{root}: a BIDS dataset, of which raw images are done; left out unless named: {', '.join(named)}")
