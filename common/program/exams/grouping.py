"""Find the scans that are stacks of one exam, and its contrasts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from nibabel.affines import voxel_sizes

from ...geometry.affines import (
    RATIO_ROUNDING,
    THICK,
    UnclearSliceAxisError,
    find_slice_permutation,
    list_thick_axes,
    name_axis,
)
from ...io.naming import make_case_stem
from ...runtime.errors import Notice
from ..cases.case import Case
from .contrast_agent import AGENT, has_agent, is_agent_word
from .owners import describe_unknown, read_metadata, split_by_owner

# Words of a file's name, or of a series' description, that say in which plane a stack is. Numbers do not: they may be
# those of patients.
_WHICH = re.compile(
    r"(acq-)?(ax|axial|tra|trans|transversal|transverse|cor|coronal|sag|sagittal|obl|oblique)", re.IGNORECASE
)
_WORD = re.compile(r"[^\s_.]+")
# Words that say what contrast a scan has; further ones that say how it was made. BIDS's other entities say it too.
_CONTRAST = re.compile(
    r"(s?(?:t1|t2|pd|t2star|t2flair|t1flair)(?:w|wi)?(?:fs|star)?|flair|stir|tirm|swi|mprage|spgr)"
    rf"(?:c|post|{AGENT})?"
)
_SEQUENCE = re.compile(r"tse|fse|se|tfe|ffe|gre|tir|space|cube|vista|2d|3d|(?!sub|ses)[a-z]+-.*")


def group_exams(cases: Sequence[Case]) -> list[list[Case]]:
    """Group scans by exam: by DICOM study, or by folder and name; then by person and visit."""
    return [exam for group in group_cases(cases, identify_study) for exam in split_by_owner(group)]


def identify_study(case: Case) -> Hashable:
    """A key that all scans of an exam share: the study, or the folder and the name without plane and contrast."""
    series = case.series.get(case["image"])
    if series is not None:
        return series.study
    words = [word for word in _split_entities(case["image"]) if not _says_how(word)]
    return str(Path(case["image"]).parent), tuple(words)


def identify_contrast(case: Case) -> Hashable:
    """A key that the stacks of one contrast share: words for contrasts, what a DICOM header says, a contrast agent.

    Without such a word it is the name without plane. A stack that its name puts into a wrong contrast is left out
    later, because the images differ.
    """
    series = case.series.get(case["image"])
    words = _split_entities(case["image"] if series is None else series.stem)
    named = frozenset(
        match[1].removesuffix("i").removesuffix("w") for word in words if (match := _CONTRAST.fullmatch(word))
    ) | {word for word in words if word.startswith("ce-")}
    agent = is_enhanced(case)
    if series is not None:
        return named, series.contrast, agent
    return named or tuple(word for word in words if not is_agent_word(word)), agent


def is_enhanced(case: Case) -> bool:
    """Whether a scan was made with a contrast agent, see :func:`~common.program.exams.contrast_agent.has_agent`."""
    return has_agent(read_metadata(case), "" if case.series else make_case_stem(case["image"]))


def group_cases(cases: Sequence[Case], key: Callable[[Case], Hashable]) -> list[list[Case]]:
    """Group cases by key, in the order of their first cases."""
    groups: dict[Hashable, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return list(groups.values())


def combine_exam(scans: Sequence[Case], fewest: int = 2, one_contrast: bool = False) -> list[Case]:
    """Make a case of each contrast of an exam, with a notice if nothing says that its scans are of one person.

    Args:
        scans, fewest: as for :func:`combine_contrasts`.
        one_contrast: whether all are stacks of one contrast.
    """
    exam = _combine_one_contrast(scans) if one_contrast else combine_contrasts(scans, fewest)
    if unknown := describe_unknown(scans):
        for case in exam:
            case.notices = [*case.notices, *([unknown] if "stacks" in case else [])]
    return exam


def combine_contrasts(scans: Sequence[Case], fewest: int = 2) -> list[Case]:
    """Make a case of each contrast of an exam, with the files of the others as "contrasts".

    Args:
        scans: of one exam, with "image" and "name".
        fewest: scans that an exam needs.

    Returns:
        The cases; those with a problem are no part of the exam. A scan that has no other is returned as it is, if one
        is too few, and so is one whose voxels are nearly cubes.
    """
    scans, thin = _part_thin(scans, [case for case in scans if _is_thin(case)])
    if thin:
        return [*combine_contrasts(scans, fewest), *thin]
    groups = group_cases(scans, identify_contrast)
    exam = [combine_stacks(group, fewest=1) for group in groups]
    good = [case for case in exam if case.problem is None]
    if len(good) < 2:
        return [group[0] if len(group) == 1 < fewest else combine_stacks(group, fewest) for group in groups]
    series, sources = ({k: v for case in good for k, v in getattr(case, of).items()} for of in ("series", "sources"))
    # Shared, so that a DICOM series is converted once.
    inputs = {file: described for case in good for file, described in case.inputs.items()}
    files = {id(case): [case["image"], *case["stacks"]] for case in good}
    joined = _join_slice_axes(good)
    for case in good:
        case.entry["contrasts"] = [files[id(other)] for other in good if other is not case]
        case.entry |= joined
        case.series, case.sources, case.inputs = series, sources, inputs
    return exam


def _combine_one_contrast(scans: Sequence[Case]) -> list[Case]:
    """The case of scans that are stacks of one contrast, and those that have no slices at all."""
    scans, thin = _part_thin(scans, [case for case in scans if _is_thin(case) and case.find_slice_axis() is None])
    if thin and len(scans) == 1 and "guide" not in scans[0]:
        scans[0].notices = [*scans[0].notices, "done alone, because no other scan of its exam has thick slices"]
        return [*scans, *thin]
    return [combine_stacks(scans), *thin]


def _part_thin(scans: Sequence[Case], thin: Sequence[Case]) -> tuple[Sequence[Case], Sequence[Case]]:
    """The scans to combine, and those without thick slices, with a notice; all are combined if none is thick."""
    if not 0 < len(thin) < len(scans):
        return scans, []
    for case in thin:
        case.check_files(whole=True)
        if case.problem is None:
            text = "done alone, because it has no thick slices; to use its edges, give it as --guide to one contrast"
            case.notices = [*case.notices, text]
    return [case for case in scans if case not in thin], thin


def _is_thin(case: Case) -> bool:
    """Whether a scan can be read and has no thick slices."""
    if case.problem is not None:
        return False
    try:
        sizes = voxel_sizes(case.read_grid()[0])
    except (OSError, ValueError):  # said by combine_stacks
        return False
    return bool(sizes.max() * RATIO_ROUNDING < THICK * sizes.min())


def combine_stacks(stacks: Sequence[Case], fewest: int = 2) -> Case:
    """Combine the stacks of an exam into one case, without those that have a problem.

    Args:
        stacks: cases with "image" and "name".
        fewest: stacks that are needed; with a guide one is enough.

    Returns:
        The case of the first stack that can be read, with the other files as "stacks", and all cases as its parts. Its
        name has the words that all names share, or all names if they share none. Stacks that are left out are warnings.
        If one stack is left, it is its own case, without "stacks".
        It has a problem if a stack is there twice, only some have a contrast agent, or there is nothing to combine.
    """
    for case in stacks:
        if case.problem is None:
            case.check_files(whole=True)
    good = [case for case in stacks if case.problem is None]
    reasons = [case.problem for case in stacks if case.problem is not None]
    files = [os.path.realpath(case["image"]) for case in good]
    if twice := [case.source for i, case in enumerate(good) if files[i] in files[:i]]:
        return replace(stacks[0], problem=f"{twice[0]}: named twice; name each stack once.")
    enhanced = {is_enhanced(case): case.source for case in good}
    if len(enhanced) > 1:
        text = f"{enhanced[True]} was made with a contrast agent, and {enhanced[False]} without, by name or header"
        return replace(stacks[0], problem=f"{text}; name stacks of one kind, or say --exam, which makes one of each.")
    if len(good) == 1 < fewest and reasons and "guide" not in good[0]:
        texts = [f"left out: {reason}" for reason in reasons]
        alone = "done alone, because no other stack of its exam can be read"
        return replace(good[0], warnings=[*good[0].warnings, *texts], notices=[*good[0].notices, alone])
    if len(good) < fewest and not (good and "guide" in good[0]):
        summary = f"found {len(good)} stack{'s' * (len(good) != 1)} that can be read"
        summary += ", expected at least two to combine, or one with --guide"
        return replace(stacks[0], problem=f"{stacks[0].source}: {'; '.join([summary, *reasons])}")
    names = [case.name for case in good]
    common = [word for word in names[0].split("_") if all(word in name.split("_") for name in names)]
    combined = {"name": "_".join(common or names), "stacks": [case["image"] for case in good[1:]]}
    return replace(
        good[0],
        entry={**good[0].entry, **combined, **_join_slice_axes(good)},
        series={file: series for case in good for file, series in case.series.items()},
        sources={file: source for case in good for file, source in case.sources.items()},
        inputs={file: described for case in good for file, described in case.inputs.items()},
        parts=good,
        warnings=[f"left out: {reason}" for reason in reasons],
        notices=[text for case in good for text in case.notices],
    )


def _join_slice_axes(cases: Sequence[Case]) -> dict[str, dict[str, str]]:
    """The "slice_axes" of cases, for an entry; empty if they have none."""
    axes = {file: axis for case in cases for file, axis in case.get("slice_axes", {}).items()}
    return {"slice_axes": axes} if axes else {}


def name_slice_axes(cases: Sequence[Case], slice_axis: str) -> None:
    """Give scans the one slice axis that the user names; several only where it is possible, with a notice elsewhere.

    Args:
        cases: the scans. A single one gets the axis in any case, with a notice if it seems to have another.
        slice_axis: "LR", "AP", "SI", or "auto" to name none.
    """
    for case in [case for case in cases if case.problem is None and slice_axis != "auto"]:
        with case.catch_problem():
            affine = case.read_grid()[0]
            try:
                possible = [find_slice_permutation(affine, "auto", case.find_slice_axis())[2]]
            except UnclearSliceAxisError:
                possible = list_thick_axes(affine) or [0, 1, 2]
            names = [name_axis(affine, axis) for axis in possible]
            advice = 'to name one for each scan, name the scans, not their folder, and give a list, such as "[SI,AP]".'
            if len(cases) == 1 or slice_axis in names:
                case.entry["slice_axes"] = {case["image"]: slice_axis}
                advice = f"{slice_axis} is taken, because it is named for this scan alone."
            if slice_axis not in names:
                text = f"its slices run along {' or '.join(names)}, and not along --slice_axis {slice_axis}"
                case.add_warning(f"{case.source}: {text}; {advice}", Notice)


def _split_entities(path: str) -> tuple[str, ...]:
    """The words of a name without its plane; at hyphens too, except in BIDS's entities."""
    words = _split_words(make_case_stem(path))
    if any(word.startswith("sub-") for word in words):
        return words
    return _split_words(make_case_stem(path).replace("-", "_"))


def _says_how(word: str) -> bool:
    return bool(_CONTRAST.fullmatch(word) or _SEQUENCE.fullmatch(word)) or is_agent_word(word)


def _split_words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name) if not _WHICH.fullmatch(word))
