"""Assign volumes to groups, at random or by hand."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.lists.datalist import FILE, GROUPS, KINDS, SCANS, check_groups, describe_counts, find_data_folder
from ...data.lists.subjects import check_no_duplicates, identify_subject
from ...io.files import find_files
from ...io.formats import EXTENSIONS, get_extension
from ...io.read import read_volume
from ...io.writing import write_atomically
from ...runtime.progress import make_bar
from ...transforms.scan.check import CheckHeaderd, CheckVoxelsd
from ..cases.case import Case
from ..cases.scan_kinds import explain_unreadable, explain_unsuitable_file, print_skipped, remove_voxel_files
from .alike import guess_persons, suggest_subject_pattern
from .pairs import warn_of_false_pairs

_LISTED = 20  # files in a message
# Endings of files that lie next to scans and describe them.
_ABOUT_SCANS = (".json", ".bval", ".bvec", ".mat", ".tsv", ".txt")


def write_datalist(
    dataset_dir: str,
    hr: str | Sequence[str] | None = None,
    lr: str | Sequence[str] | None = None,
    guide: str | Sequence[str] | None = None,
    ct: str | Sequence[str] | None = None,
    split: str | Sequence[float] | None = None,
    seed: int = 0,
    misaligned: bool = False,
    paired: bool = False,
    subject: str | None = None,
    source: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    validation: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
) -> None:
    """Write ``dataset_dir/dataset.json``, which every bundle reads: the volumes of each group, found by pattern.

    Source has what training knows in high resolution: HR volumes with their guides, and CT. Target has the scans to
    learn from: a subject's LR volumes, or if there are none its HR volumes, which are degraded on the fly. Validation
    and test have both; there, one HR and one LR volume of a subject are a true pair. In test all HR is known.

    Subjects are split at random, and a guide follows its subject. With LR volumes, subjects with one kind only go to
    source (HR) or target (LR), and subjects with both are split over the other groups. If no subject has both, source,
    validation and test share the HR subjects. Without HR volumes, target and validation share the LR subjects, and the
    others stay empty. CT goes to source, except for subjects in validation and test: it is never paired with MR. If
    there are guides or CT, and too few HR volumes for all groups, no HR volumes go to source. To split by hand, give a
    pattern for each group that is not to stay empty. It selects from the files of ``hr``, ``lr`` and ``ct``.

    Each file is read and checked as in training. Files that match a pattern but are no scans by their names or headers,
    such as masks, are skipped with a line. Files that describe scans, such as sidecar JSON, are skipped without one. A
    warning lists files of different groups if their paths look like one person's, volumes with other voxel sizes, and
    pairs whose HR and LR do not correlate.

    Args:
        dataset_dir: folder of the data; patterns and the paths in ``dataset.json`` are relative to it.
        hr: glob patterns of HR volumes of the contrast to super-resolve, separated by commas; ``**`` goes into
            subfolders.
        lr: glob patterns of authentic LR volumes of that contrast.
        guide: glob patterns of HR volumes of another contrast, one for each subject with MR.
        ct: glob patterns of HR CT volumes.
        split: four shares of subjects, for source, target, validation and test, with any sum. A share of 0 leaves the
            group without MR. The default is 0.4,0.4,0.1,0.1, and with CT but no HR and no guides 0.4,0.4,0,0. If HR and
            LR are misaligned, source and target both get the sum of their shares; without HR, target gets it.
        seed: the same seed and files give the same split.
        misaligned: true if source and target are to have the same subjects, whose HR and LR volumes do not match.
        paired: true if the HR and LR volume of a subject are a true pair, or become one by registration. Source then
            has both, for methods that learn from pairs, and also gets the share of target.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without its ending. ``sub-A`` and ``Sub-a`` are one.
        source: pattern of the files of this group, to split by hand.
        target: as ``source``.
        validation: as ``source``.
        test: as ``source``; alone it is enough to evaluate existing weights.

    Raises:
        FileNotFoundError: no such folder, or a pattern without files.
        ValueError: a matching file that training would refuse, too few subjects, a bad split or subject, a subject or
            the same voxels in two groups, with guides a subject with two volumes of a kind or with a scan or guide
            alone, no CT for training, or an LR volume in test without known HR.
    """
    root = find_data_folder(dataset_dir)
    if paired and (misaligned or not lr or not hr):
        raise ValueError(
            "datalist: --paired True is for HR and LR volumes of the same subjects in register: give --hr and --lr, "
            "and leave --misaligned out."
        )
    patterns = {"hr": hr, "lr": lr, "guide": guide, "ct": ct}
    files = {kind: _select_volumes(root, find_files(root, patterns[kind], kind), kind) for kind in KINDS}
    if not files["hr"] and not files["lr"]:
        raise ValueError("datalist: no --hr and no --lr pattern; give MR volumes to learn from: --hr '*/*_t1w.nii.gz'.")
    check_no_duplicates(files)
    spellings: dict[str, str] = {}
    subjects = {
        path: spellings.setdefault((name := identify_subject(path, subject)).casefold(), name)
        for paths in files.values()
        for path in paths
    }
    if guide:
        paths_by_subject = {kind: _select_one_each(files[kind], subjects, kind) for kind in (*SCANS, "guide")}
        _check_partners({*paths_by_subject["hr"], *paths_by_subject["lr"]}, paths_by_subject["guide"])
    given_groups = {"source": source, "target": target, "validation": validation, "test": test}
    if any(given_groups.values()):
        chosen = {group: set(find_files(root, pattern, group)) for group, pattern in given_groups.items()}
    else:
        chosen = _split_files(root, files, subjects, misaligned, paired, split, seed)
    groups = {group: _make_entries(group, chosen[group], files, subjects, paired) for group in GROUPS}
    for group, entries in groups.items():
        if given_groups[group] and not entries:
            kinds = {"source": "--hr or --ct (source takes no --lr without --paired True)"}.get(group, "--hr or --lr")
            raise ValueError(f"datalist: group {group} has no volumes: none of its files matches {kinds}.")
    unknown_hr = sorted({entry["subject"] for entry in groups["test"] if "hr" not in entry})
    if unknown_hr:
        raise ValueError(
            f"datalist: test needs known HR, but has LR volumes without it of {', '.join(unknown_hr)}: HR and LR are "
            "a pair if a subject has one volume of each. Narrow --lr or --hr, or give the groups by hand and move "
            "these subjects to target."
        )
    check_groups(root, groups, misaligned, "datalist")
    if ct and not any("ct" in entry for entry in groups["source"]):
        raise ValueError(
            "datalist: source gets none of the CT that --ct matches: all of it is of subjects in validation or test, "
            "and must not train, or --source selects none of it. Add CT of others, or leave --ct out."
        )

    data = {"misaligned": True, **groups} if misaligned else groups
    if (root / FILE).exists():
        print(f"{root / FILE} is replaced")
    with write_atomically(root / FILE) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote {root / FILE}" + " (misaligned)" * misaligned)
    for group, entries in groups.items():
        names = sorted({entry["subject"] for entry in entries})
        print(
            f"  {group}: {describe_counts(entries)} of {len(names)} subjects: {' '.join(names)}"
            if names
            else f"  {group}: none"
        )
    left = sorted(set(subjects.values()) - {entry["subject"] for entries in groups.values() for entry in entries})
    if left:
        print(f"  in no group: {' '.join(left)}")
    warn_of_false_pairs(root, [entry for entries in groups.values() for entry in entries])
    if subject is None:
        _warn_of_shared_persons(root, groups, misaligned)


def _select_volumes(root: Path, matches: Sequence[str], kind: str) -> list[str]:
    """Return the scans among a kind's files, and print which files are no scans."""
    paths = [path for path in remove_voxel_files(matches) if not path.lower().endswith(_ABOUT_SCANS)]
    if matches and not paths:
        raise ValueError(f"datalist: --{kind} matches no scan, only files such as {matches[0]}; name scans.")
    cases, others = [Case({kind: path}) for path in paths], {}
    for case in make_bar(cases, f"checking {kind}", delay=3):
        path = root / case[kind]
        case.problem = explain_unreadable(path)
        if case.problem is None and get_extension(path) is None:
            case.problem = f"not an image that is read ({', '.join(EXTENSIONS)}); narrow the pattern."
        elif case.problem is None and (reason := explain_unsuitable_file(path, ct=kind == "ct")) is not None:
            others[case[kind]] = reason
        elif case.problem is None:
            with case.catch_problem(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the warning is given when training loads the file
                CheckHeaderd("scan")({"scan": path})
                CheckVoxelsd("scan")({"scan": read_volume(path)[None]})
    if failed := [case for case in cases if case.problem is not None]:
        lines = [f"{case[kind]}: " + str(case.problem).removeprefix(f"{root / case[kind]}: ") for case in failed]
        listing = "\n  ".join(lines[:_LISTED])
        if len(failed) > _LISTED:
            listing += f"\n  and {len(failed) - _LISTED} more"
        raise ValueError(
            f"datalist: {len(failed)} of {len(paths)} files of --{kind} cannot be used; mend or remove them, or "
            f"narrow the pattern:\n  {listing}"
        )
    if paths and len(others) == len(paths):
        raise ValueError(f"datalist: --{kind} matches no scan: {paths[0]}: {others[paths[0]]}")
    print_skipped(others)
    return [path for path in paths if path not in others]


def _warn_of_shared_persons(root: Path, groups: Mapping[str, Sequence[Mapping[str, str]]], misaligned: bool) -> None:
    """Print a warning where volumes of different groups may be of one person."""
    group_of = {
        entry[kind]: "source" if misaligned and group == "target" else group
        for group, entries in groups.items()
        for entry in entries
        for kind in (*SCANS, "ct")
        if kind in entry
    }
    person = guess_persons(root, group_of)
    paths_by_person: dict[str, list[str]] = {}
    for path in group_of:
        paths_by_person.setdefault(person[path], []).append(path)
    shared = [paths for paths in paths_by_person.values() if len({group_of[path] for path in paths}) > 1]
    if shared:
        listing = "\n  ".join(", ".join(f"{path} ({group_of[path]})" for path in paths) for paths in shared[:_LISTED])
        if len(shared) > _LISTED:
            listing += f"\n  and {len(shared) - _LISTED} more"
        print(
            f"warning: by their names these may be scans of one person, in different groups:\n  {listing}\n"
            f"If they are, give the same command with {_suggest_subject_option(person)}"
        )


def _suggest_subject_option(person: Mapping[str, str]) -> str:
    """The option that makes each of these persons one subject."""
    expression = suggest_subject_pattern(person)
    return "a regular expression for --subject" if expression is None else f"--subject {shlex.quote(expression)}"


def _split_files(
    root: Path,
    files: Mapping[str, list[str]],
    subjects: Mapping[str, str],
    misaligned: bool,
    paired: bool,
    split: str | Sequence[float] | None,
    seed: int,
) -> dict[str, set[str]]:
    """Return the files of each group. A group with a share and volumes of its kind gets at least one subject."""
    if split is None:
        ct_and_lr = files["ct"] and not files["hr"] and not files["guide"]
        split = (0.4, 0.4, 0, 0) if ct_and_lr else (0.4, 0.4, 0.1, 0.1)
    shares = _parse_shares(split)
    hr_subjects, lr_subjects = ({subjects[path] for path in files[kind]} for kind in SCANS)
    both = hr_subjects & (lr_subjects or hr_subjects)
    members: dict[str, set[str]] = {group: set() for group in GROUPS}
    if misaligned or paired:
        names, pool = ["source", "validation", "test"], both
        shares["source"] += shares["target"]
    elif not hr_subjects:
        names, pool = ["target", "validation"], lr_subjects
        shares["target"] += shares["source"]
    elif both:
        # A subject with one kind only can serve one group; those with both go where they are needed.
        alone = {"source": hr_subjects - both, "target": lr_subjects - both}
        members.update({group: alone[group] for group in alone if shares[group]})
        names, pool = [group for group in GROUPS if not members[group]], both
    else:
        # Two cohorts: validation and test need known HR.
        members["target"] = lr_subjects if shares["target"] else set()
        names, pool = ["source", "validation", "test"], hr_subjects
    names = [name for name in names if shares[name]]
    if len(pool) < len(names) and not misaligned and not paired and (files["guide"] or files["ct"]):
        names = [name for name in names if name != "source"]  # learning from guides or CT needs no HR in source
    if len(pool) < len(names):
        kinds = "HR" if pool is hr_subjects or not lr_subjects else "LR" if pool is lr_subjects else "HR and LR"
        person = guess_persons(root, subjects)
        more = len({*person.values()}) > len({*subjects.values()})
        raise ValueError(
            f"datalist: found {len(pool)} subjects with {kinds} volumes ({', '.join(sorted(pool)) or 'none'}), but at "
            f"least {len(names)} are needed, one each for {', '.join(names)}. Add subjects, check --subject, which "
            "defines a subject, leave a group empty with a share of 0 in --split, or give the groups by hand."
            + (
                f" If a file is named like others in other folders, give {_suggest_subject_option(person)}"
                if more
                else ""
            )
        )
    if names:
        order = [sorted(pool)[i] for i in np.random.default_rng(seed).permutation(len(pool))]
        counts = _apportion_subjects([shares[name] for name in names], len(pool))
        for name, end, count in zip(names, np.cumsum(counts), counts, strict=True):
            members[name] = set(order[end - count : end])
    if misaligned:
        members["target"] = members["source"]
    chosen = {
        group: {path for kind in SCANS for path in files[kind] if subjects[path] in members[group]} for group in GROUPS
    }
    chosen["source"] |= {path for path in files["ct"] if subjects[path] not in members["validation"] | members["test"]}
    return chosen


def _parse_shares(split: str | Sequence[float]) -> dict[str, float]:
    try:
        values = [float(value) for value in (split.split(",") if isinstance(split, str) else split)]
    except (TypeError, ValueError):
        values = []
    if len(values) != len(GROUPS) or not all(0 <= value < np.inf for value in values) or not any(values):
        raise ValueError(
            f"datalist: --split {split}; expected {len(GROUPS)} numbers, for {', '.join(GROUPS)}, none of them "
            "negative and not all 0."
        )
    return dict(zip(GROUPS, values, strict=True))


def _apportion_subjects(shares: Sequence[float], total: int) -> np.ndarray:
    """Return whole numbers with this sum, each at least 1, in proportion to the shares."""
    ideal, counts = np.array(shares) / np.sum(shares) * total, np.ones(len(shares), int)
    for _ in range(total - len(shares)):
        counts[np.argmax(ideal - counts)] += 1
    return counts


def _make_entries(
    group: str, chosen: set[str], files: Mapping[str, list[str]], subjects: Mapping[str, str], paired: bool
) -> list[dict[str, str]]:
    """Return a group's entries: one for a subject with one volume of a kind, else one for each volume."""
    entries = []
    for name in sorted({subjects[path] for path in chosen if path in subjects}):
        paths_by_kind = {kind: [path for path in files[kind] if subjects[path] == name] for kind in KINDS}
        picked = {kind: [path for path in paths_by_kind[kind] if path in chosen] for kind in KINDS}
        source = (*SCANS, "ct") if paired else ("hr", "ct")
        kinds = source if group == "source" else ("lr",) if group == "target" and picked["lr"] else SCANS
        volumes = [(kind, path) for kind in kinds for path in picked[kind]]
        single = len({kind for kind, _ in volumes}) == len(volumes)
        for volume in [dict(volumes)] if single and volumes else [{kind: path} for kind, path in volumes]:
            guide = (
                {"guide": paths_by_kind["guide"][0]}
                if paths_by_kind["guide"] and any(kind in volume for kind in SCANS)
                else {}
            )
            entry = {**volume, **guide}
            entries.append({kind: entry[kind] for kind in KINDS if kind in entry} | {"subject": name})
    return entries


def _select_one_each(paths: Sequence[str], subjects: Mapping[str, str], option: str) -> dict[str, str]:
    """The path of each subject. Raises a ValueError if a subject has several."""
    paths_by_subject: dict[str, list[str]] = {}
    for path in paths:
        paths_by_subject.setdefault(subjects[path], []).append(path)
    several = [
        f"{name} ({', '.join(subject_paths)})"
        for name, subject_paths in paths_by_subject.items()
        if len(subject_paths) > 1
    ]
    if several:
        raise ValueError(
            f"--{option} matches several volumes of {', '.join(several)}; expected one per subject. Narrow the "
            "pattern, or give a regular expression for the subject, --subject."
        )
    return {name: subject_paths[0] for name, subject_paths in paths_by_subject.items()}


def _check_partners(scans: Collection[str], guides: Collection[str]) -> None:
    """Refuse, with a ValueError, subjects with a scan and no guide, or a guide and no scan."""
    alone = {"guide": sorted(set(scans) - set(guides)), "scan": sorted(set(guides) - set(scans))}
    if any(alone.values()):
        counts: Any = [f"{len(n)} {k}{'s' if len(n) != 1 else ''}" for n, k in ((scans, "scan"), (guides, "guide"))]
        counts = (" and " if len(scans) == len(guides) else " but ").join(counts)
        listing = [f"without a {kind}: {', '.join(names)}" for kind, names in alone.items() if names]
        raise ValueError(
            f"{counts}; {'; '.join(listing)}. Each scan needs the guide of its subject: add the missing files or leave "
            "these out, or give a regular expression for the subject in a path, --subject."
        )
