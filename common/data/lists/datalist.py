"""``load_datalist`` and ``load_fold``: the volumes of a group, as ``dataset.json`` lists them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from monai.data import partition_dataset

from ...io.files import read_json_object
from ...io.formats import EXTENSIONS, explain_missing_content, get_extension
from ...runtime.errors import format_call
from .copies import check_volumes
from .subjects import identify_subject

FILE = "dataset.json"
GROUPS = ("source", "target", "validation", "test")
SCANS = ("hr", "lr")
KINDS = (*SCANS, "guide", "ct")


def load_datalist(
    dataset_dir: str, group: str, kinds: str | Sequence[str] = SCANS, needs: str | None = None, optional: bool = False
) -> list[dict]:
    """Entries of one group of ``dataset_dir/dataset.json`` with absolute paths.

    Args:
        dataset_dir: folder with ``dataset.json``.
        group: "source", high-resolution volumes for training; "target", the scans to learn from; "validation"; or
            "test".
        kinds: kinds of paths to keep. Entries without "hr", "lr" or "ct" among them are left out. "hr" is a
            high-resolution MR volume of the contrast that is to be super-resolved, "lr" a low-resolution scan of it,
            "guide" a high-resolution volume of another contrast of the same subject, "ct" a high-resolution CT.
        needs: a kind that every entry must have.
        optional: whether entries without the needed kind are skipped, and the result may be empty.

    Returns:
        One dict per entry: an absolute path for each of its kinds, and "subject".
    """
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}; expected one of {', '.join(GROUPS)}.")
    path, groups, _ = _read_datalist(dataset_dir)
    return _select_usable(path, groups, groups[group], f"group {group!r}", kinds, needs, optional)


def load_fold(
    dataset_dir: str,
    folds: int,
    fold: int,
    held_out: bool,
    kinds: str | Sequence[str] = SCANS,
    needs: str | None = None,
) -> list[dict]:
    """Entries of one fold of a cross-validation over the subjects of all groups except validation.

    Folds are made of the subjects with a known HR volume, and depend on these only, so they are the same in all runs.
    Other subjects cannot be evaluated and always train. If a subject has one HR volume in source and one LR volume in
    target, they become one entry. The CT of source is a separate entry; it does not train in the fold that holds its
    subject out. The validation group may be empty.

    Args:
        dataset_dir: folder with ``dataset.json``.
        folds: number of folds, 2 or more.
        fold: number of the fold, from 0.
        held_out: True for the held-out entries, to evaluate on; False for all others, to train on.
        kinds: as for :func:`load_datalist`.
        needs: as for :func:`load_datalist`; held-out scans need "hr" in any case.

    Returns:
        As :func:`load_datalist`.
    """
    if folds < 2:
        raise ValueError(f"cross-validation: {folds} folds; expected 2 or more.")
    if fold not in range(folds):
        raise ValueError(f"cross-validation: fold {fold} of {folds}; expected 0 to {folds - 1}.")
    path, groups, _ = _read_datalist(dataset_dir)
    scans, ct = [], []
    for group in ("source", "target", "test"):
        for entry in groups[group]:
            scan = {key: value for key, value in entry.items() if key != "ct"}
            # In a misaligned cohort, source and target may list the same scan.
            if any(scan.get(kind) for kind in SCANS) and scan not in scans:
                scans.append(scan)
            if group == "source" and entry.get("ct"):
                ct.append({"ct": entry["ct"], "subject": entry["subject"]})
    subjects = sorted({str(scan["subject"]) for scan in scans if scan.get("hr")})
    if len(subjects) < folds:
        raise ValueError(
            f"{path}: found {len(subjects)} subjects with known HR in source, target and test "
            f"({', '.join(subjects) or 'none'}) for {folds} folds; add subjects, or use fewer folds."
        )
    held = partition_dataset(subjects, num_partitions=folds, shuffle=True, seed=0)[fold]
    parts: dict[bool, list[dict]] = {True: [], False: []}
    for entry in [*_join_pairs(scans), *ct]:
        parts[str(entry["subject"]) in held].append(entry)
    names = {part: f"the {'held-out' if part else 'training'} part of fold {fold}" for part in parts}
    check_volumes(_list_files(path.parent, {names[part]: parts[part] for part in parts}), str(path))
    where = names[held_out]
    if held_out:
        _require_volumes(path, groups, [entry for entry in parts[True] if "ct" not in entry], where, "hr")
    return _select_usable(path, groups, parts[held_out], where, kinds, needs)


def _join_pairs(entries: list[dict]) -> list[dict]:
    """Entries by subject; if a subject has just one HR and one LR volume, they become one entry."""
    entries_by_subject: dict[str, list[dict]] = {}
    for entry in entries:
        entries_by_subject.setdefault(str(entry["subject"]), []).append(entry)
    joined = []
    for subject_entries in entries_by_subject.values():
        kinds = sorted("+".join(kind for kind in SCANS if entry.get(kind)) for entry in subject_entries)
        joined += [{**subject_entries[0], **subject_entries[1]}] if kinds == ["hr", "lr"] else subject_entries
    return joined


def check_misaligned(dataset_dir: str, misaligned: bool) -> None:
    """Refuse to move the HR volumes of a cohort whose source and target have different subjects.

    Args:
        dataset_dir: folder with ``dataset.json``.
        misaligned: whether HR volumes are to be moved.
    """
    path, _, may_move = _read_datalist(dataset_dir)
    if misaligned and not may_move:
        raise ValueError(
            f"misaligned is true, but {path} is not of a misaligned cohort, whose source and target have the same "
            "subjects. Leave --misaligned out, or make the file with: "
            f"{format_call('datalist')} --misaligned True ..."
        )


def _read_datalist(dataset_dir: str) -> tuple[Path, dict[str, list[dict]], bool]:
    """The path of ``dataset.json``, the entries of its groups, and whether the cohort is misaligned."""
    root = find_data_folder(dataset_dir)
    path = root / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Make it with: {_suggest_command(root, ['hr'])}")
    data, problem = read_json_object(path)
    if problem is not None:
        raise ValueError(f"{path}: {problem}. Repair it or make it anew with: {_suggest_command(root, ['hr'])}")
    # Older files have a "setting". Two settings used other names.
    setting = data.get("setting", "unpaired")
    if setting not in ("unpaired", "misaligned", "guided", "cross_modality"):
        raise ValueError(
            f'{path}: "setting" is {setting!r}, which is not used any more. Remove it, or make the file anew with: '
            f"{_suggest_command(root, ['hr'])}"
        )
    if setting == "guided":
        data = {**data, "source": [], "target": data.get("train")}
    groups = {name: data.get(name) or [] for name in GROUPS}
    for name, entries in groups.items():
        if not isinstance(entries, list):
            raise ValueError(f"{path}: {name} is {entries!r}; expected a list of entries.")
        for index, entry in enumerate(entries):
            volumes = [entry[kind] for kind in (*SCANS, "ct") if entry.get(kind)] if isinstance(entry, dict) else []
            if not volumes:
                raise ValueError(f'{path}: {name}[{index}] is {entry!r}; expected a path under "hr", "lr" or "ct".')
            for kind in KINDS:
                if entry.get(kind) and not isinstance(entry[kind], str):
                    raise ValueError(f"{path}: {name}[{index}], {kind} is {entry[kind]!r}; expected a file's path.")
            entry.setdefault("subject", identify_subject(volumes[0], None))
            if setting == "cross_modality" and name == "source" and "hr" in entry:
                entry["ct"] = entry.pop("hr")
    misaligned = setting == "misaligned" or data.get("misaligned") is True
    check_groups(root, groups, misaligned, str(path))
    return path, groups, misaligned


def _select_usable(
    path: Path,
    groups: Mapping[str, list[dict]],
    entries: list[dict],
    where: str,
    kinds: str | Sequence[str],
    needs: str | None,
    optional: bool = False,
) -> list[dict]:
    """The entries that have a volume among ``kinds``, with only these paths, absolute and checked."""
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    volumes = [kind for kind in (*SCANS, "ct") if kind in wanted]
    entries = [entry for entry in entries if any(entry.get(kind) for kind in volumes)]
    if optional:
        entries = [entry for entry in entries if needs is None or entry.get(needs)]
    elif not entries:
        held = "; ".join(f"{name} {describe_counts(paths)}" for name, paths in groups.items() if paths)
        raise ValueError(
            f"{path}: {where} has no volumes of the kind {' or '.join(volumes)}, which this configuration needs; found "
            f"{held or 'no volumes at all'}. Make a file that has them with: "
            f"{_suggest_command(path.parent, [needs or volumes[0]], groups)}"
        )
    elif needs is not None:
        _require_volumes(path, groups, entries, where, needs)
    entries = [
        {**{k: str(path.parent / entry[k]) for k in wanted if entry.get(k)}, "subject": str(entry["subject"])}
        for entry in entries
    ]
    paths = [entry[kind] for entry in entries for kind in wanted if kind in entry]
    absent = {file: explain_missing_content(file) for file in paths}
    missing = [f"{file}: {why}" if why else file for file, why in absent.items() if why or not Path(file).is_file()]
    if missing:
        raise FileNotFoundError(f"{path}: {len(missing)} listed files of {where} do not exist:\n" + "\n".join(missing))
    unread = [file for file in paths if get_extension(file) is None]
    if unread:
        raise ValueError(
            f"{path}: {len(unread)} listed files of {where} have a format that cannot be read, expected "
            f"{', '.join(EXTENSIONS)}; convert them to NIfTI:\n" + "\n".join(unread)
        )
    return entries


def _require_volumes(path: Path, groups: Mapping[str, list[dict]], entries: list[dict], where: str, kind: str) -> None:
    lacking = sorted({str(entry["subject"]) for entry in entries if not entry.get(kind)})
    if lacking:
        otherwise = "train without a guide: --guided False" if kind == "guide" else "leave these subjects out"
        raise ValueError(
            f"{path}: no {kind} for {', '.join(lacking)} in {where}; add it, or {otherwise}. To add it: "
            f"{_suggest_command(path.parent, [kind], groups)}"
        )


def _suggest_command(root: Path, kinds: Sequence[str], groups: Mapping[str, list[dict]] | None = None) -> str:
    """The command that writes a file with volumes of these kinds and of those that the groups have."""
    held = {kind for entries in (groups or {}).values() for entry in entries for kind in KINDS if entry.get(kind)}
    patterns = " ".join(f"--{kind} PATTERN" for kind in KINDS if kind in held | set(kinds))
    return (
        f"{format_call('datalist')} --dataset_dir {root} {patterns} (a PATTERN is e.g. '*/*_t1w.nii.gz'; "
        f"see {format_call('datalist')} --help)"
    )


def describe_counts(entries: Sequence[Mapping]) -> str:
    """How many volumes of each kind the entries hold, in words."""
    counts = {kind: sum(bool(entry.get(kind)) for entry in entries) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def find_data_folder(dataset_dir: str | os.PathLike) -> Path:
    """The folder of the data as an absolute path. Raises a ValueError or FileNotFoundError if there is none."""
    if not str(dataset_dir or "").strip():
        raise ValueError("dataset_dir is empty; give the folder of the data, e.g. --dataset_dir /data/mri.")
    root = Path(dataset_dir).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {root} is not a folder; give the folder of the data, --dataset_dir DIR.")
    return root


def check_groups(root: Path, groups: Mapping[str, Sequence[Mapping]], misaligned: bool, where: str) -> None:
    """Refuse subjects or copies of a volume in two groups, see :func:`check_subjects` and :func:`check_volumes`."""
    check_subjects(groups, misaligned, where)
    # In a misaligned file, source and target may list the same scan.
    parts = {**groups, **({"source": [*groups["source"], *groups["target"]], "target": []} if misaligned else {})}
    check_volumes(_list_files(root, parts), where)


def _list_files(root: Path, parts: Mapping[str, Sequence[Mapping]]) -> tuple[tuple[str, str, str, float], ...]:
    """Part, kind, path and time of each volume."""
    listed = ((p, kind, entry.get(kind)) for p, entries in parts.items() for entry in entries for kind in KINDS)
    files = [(part, kind, root / path) for part, kind, path in listed if path]
    return tuple((part, kind, str(f), f.stat().st_mtime_ns if f.exists() else 0) for part, kind, f in files)


def check_subjects(groups: Mapping[str, Sequence[Mapping]], misaligned: bool, where: str) -> None:
    """Refuse, with a ValueError that begins with ``where``, subjects in two groups.

    In a misaligned file, source and target may share subjects. In any file, the CT of a subject may be in source and
    its MR in target, because CT and MR are never paired.
    """
    for first, second in combinations(GROUPS, 2):
        training = (first, second) == ("source", "target")
        if training and misaligned:
            continue
        others = {str(entry["subject"]) for entry in groups[second]}
        mine = {
            str(entry["subject"]) for entry in groups[first] if not training or any(entry.get(kind) for kind in SCANS)
        }
        if shared := sorted(mine & others):
            raise ValueError(
                f"{where}: subjects {', '.join(shared)} are in {first} and in {second}, expected in one of them. Move "
                "their volumes to one group"
                + (
                    ', or, if HR and LR are of the same subjects, set "misaligned": true (--misaligned True).'
                    if training
                    else "."
                )
            )


def use_ct_as_hr(entries: Sequence[Mapping]) -> list[dict]:
    """Entries with only the CT volume, under "hr"."""
    return [{"hr": entry["ct"], "subject": entry["subject"]} for entry in entries]


def select_hr(entries: Sequence[Mapping]) -> list[dict]:
    """Entries with a known HR volume, with only this volume."""
    known = [{"hr": entry["hr"], "subject": entry["subject"]} for entry in entries if "hr" in entry]
    if not known:
        raise ValueError(
            f"found {len(entries)} scans and no HR volume of them, expected some to learn from; list HR volumes in "
            'group target under "hr", or train without them, as train.json does.'
        )
    return known


def select_case(entries: Sequence[dict], case: int) -> list[dict]:
    """The entry of one case, counted from 0, as a list."""
    if isinstance(case, bool) or not isinstance(case, int) or not 0 <= case < len(entries):
        raise ValueError(f"case is {case!r}, expected one of the {len(entries)}: 0 to {len(entries) - 1}.")
    return [entries[case]]


def pair_contrasts(entries: Sequence[Mapping], contrasts: Sequence[Sequence[str]]) -> list[dict]:
    """Each entry once for each pair of contrasts.

    Args:
        entries: with "hr", "guide" or both, of the first pair of contrasts.
        contrasts: pairs of the names of contrasts, of HR and of the guide, as they are in file names.
    """
    paired = []
    for entry in entries:
        for pair in contrasts:
            names = zip(("hr", "guide"), contrasts[0], pair, strict=True)
            paired.append({**entry, **{key: entry[key].replace(old, new) for key, old, new in names if key in entry}})
    return paired


def select_lr(entries: Sequence[Mapping], keep_hr: bool = False) -> list[dict]:
    """Entries with their LR scans, and also HR with ``keep_hr``; if none has LR, with HR, to be degraded."""
    authentic = [{k: v for k, v in entry.items() if k != "hr" or keep_hr} for entry in entries if "lr" in entry]
    return authentic or [dict(entry) for entry in entries]
