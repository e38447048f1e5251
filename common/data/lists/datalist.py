"""``load_datalist`` and ``cross_validation``: the volumes of a group, as ``dataset.json`` lists them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from monai.data import partition_dataset

FILE = "dataset.json"
SCANS = ("hr", "lr")
KINDS = (*SCANS, "guide")
SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")  # as BIDS labels it
SETTINGS = {
    "unpaired": ("source", "target", "validation", "test"),
    "misaligned": ("source", "target", "validation", "test"),
    "guided": ("train", "validation", "test"),
    "cross_modality": ("source", "target", "validation", "test"),
}


def load_datalist(
    dataset_dir: str,
    group: str,
    kinds: str | Sequence[str] = KINDS,
    needs: str | None = None,
    optional: bool = False,
    ct: bool = False,
) -> list[dict]:
    """Entries of one group of ``dataset_dir/dataset.json`` with absolute paths.

    Args:
        dataset_dir: folder with ``dataset.json``.
        group: a group of the file's setting: "source", "target", "validation" or "test", in the guided setting "train",
            "validation" or "test".
        kinds: keep of an entry's paths only these, "hr", "lr" and "guide", and only entries with an "hr" or "lr" left.
        needs: a kind that every entry must hold.
        optional: whether the group may be empty.
        ct: whether the source group is to hold CT volumes, as in the cross-modality setting, or MR, as in the others.

    Returns:
        One dict per entry: "hr" or "lr" or both, "guide" where there is one, an absolute path each, and "subject".
        In the cross-modality setting the "hr" of source is a CT volume.

    Raises:
        FileNotFoundError: no such folder, no ``dataset.json``, or a listed file is missing.
        ValueError: empty folder name, bad JSON, a group that the setting does not have, or an empty one that is not
            optional, a source group of the other modality, an entry without "hr" and "lr" or without what it needs, or
            subjects in groups where the setting does not allow it.
    """
    path, setting, groups = _read(dataset_dir, group)
    if group == "source" and ct != (setting == "cross_modality"):
        found, expected = ("MR", "CT") if ct else ("CT", "MR")
        how = "--setting cross_modality --ct PATTERN --lr PATTERN" if ct else "--hr PATTERN"
        raise ValueError(
            f"{path} has the {setting} setting, whose source group holds {found}; this configuration learns from "
            f"{expected} there. Make a file for it with: python -m common datalist --dataset_dir {dataset_dir} {how} "
            "(python -m common datalist --help tells the rest)."
        )
    if not groups[group]:
        if optional:
            return []
        found = [name for name, entries in groups.items() if entries]
        raise ValueError(
            f"{path}: group {group!r} has no volumes; found groups with volumes: {', '.join(found) or 'none'}."
        )
    return _usable(path, groups[group], f"group {group}", kinds, needs)


def cross_validation(
    dataset_dir: str,
    folds: int,
    fold: int,
    held_out: bool,
    kinds: str | Sequence[str] = KINDS,
    needs: str | None = None,
) -> list[dict]:
    """Entries of one fold of a cross-validation over the subjects of all groups but validation, which stays.

    A subject's HR volume of source and LR volume of target, where it has one of each, are one entry. The folds depend
    on the subjects alone, so that every fold's training agrees on them. A subject is in one fold; in the unpaired
    and misaligned settings one without a known HR volume is in none, and always trains. The cross-modality setting is
    as the unpaired one, but its source, which is CT, is not pooled: it trains in every fold, and is loaded with
    :func:`load_datalist`.

    Args:
        dataset_dir: folder with ``dataset.json``.
        folds: how many, 2 or more.
        fold: which, from 0.
        held_out: the entries that the fold holds out, to evaluate on, or all others, to train on.
        kinds: as for :func:`load_datalist`.
        needs: as for :func:`load_datalist`; held-out entries need "hr" in any case.

    Returns:
        As :func:`load_datalist`.

    Raises:
        FileNotFoundError: as :func:`load_datalist`.
        ValueError: as :func:`load_datalist`, and for no such fold, fewer subjects than folds, a held-out entry without
            "hr", or in the cross-modality setting CT of a subject that a fold holds out.
    """
    if folds < 2 or fold not in range(folds):
        raise ValueError(f"cross-validation: fold {fold} of {folds}; expected 2 folds or more, counted from 0.")
    path, setting, groups = _read(dataset_dir, "test")
    apart = ("source", "validation") if setting == "cross_modality" else ("validation",)
    pooled = [group for group in groups if group not in apart]
    entries = []
    for group in pooled:
        # In the misaligned setting source and target may list the same scan.
        entries += [entry for entry in groups[group] if entry not in entries]
    entries = _joined(entries)
    # Whose HR is not known, in a setting where that is nothing amiss, cannot be evaluated and always trains.
    counted = [entry for entry in entries if entry.get("hr")] if "source" in groups else entries
    subjects = sorted({str(entry["subject"]) for entry in counted})
    if len(subjects) < folds:
        raise ValueError(
            f"{path}: found {len(subjects)} subjects in {', '.join(pooled[:-1])} and {pooled[-1]} "
            f"({', '.join(subjects) or 'none'}) for {folds} folds; add subjects, or use fewer folds."
        )
    if setting == "cross_modality":
        leaked = sorted(set(subjects) & {str(entry["subject"]) for entry in groups["source"]})
        if leaked:
            raise ValueError(
                f"{path}: source, which trains in every fold, has CT of {', '.join(leaked)}, but each fold holds out "
                "subjects with known HR, whose CT must not train. Leave this CT out of source (python -m common "
                "datalist --source PATTERN --target PATTERN --test PATTERN), or evaluate on group test, without folds."
            )
    held = partition_dataset(subjects, num_partitions=folds, shuffle=True, seed=0)[fold]
    entries = [entry for entry in entries if (str(entry["subject"]) in held) == held_out]
    where = f"the {'held-out' if held_out else 'training'} part of fold {fold}"
    if held_out:
        _require(path, entries, where, "hr")
    return _usable(path, entries, where, kinds, needs)


def _joined(entries: list[dict]) -> list[dict]:
    """The entries, by subject; an HR and an LR volume of a subject that has no others are one entry."""
    of_subject: dict[str, list[dict]] = {}
    for entry in entries:
        of_subject.setdefault(str(entry["subject"]), []).append(entry)
    joined = []
    for own in of_subject.values():
        kinds = sorted("+".join(kind for kind in SCANS if entry.get(kind)) for entry in own)
        joined += [{**own[0], **own[1]}] if kinds == ["hr", "lr"] else own
    return joined


def _read(dataset_dir: str, group: str) -> tuple[Path, str, dict[str, list[dict]]]:
    """The path of ``dataset.json``, its setting and the entries of the setting's groups; ``group`` must be one."""
    root = folder(dataset_dir)
    path = root / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Make it with: "
            f"python -m common datalist --dataset_dir {dataset_dir} --hr '**/*.nii.gz' "
            "(python -m common datalist --help tells how to give LR volumes, guides and groups)."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. Repair it or make it anew with: python -m common datalist."
        ) from error
    data = data if isinstance(data, dict) else {}
    setting = data.get("setting", "unpaired")
    if str(setting) not in SETTINGS:
        raise ValueError(f'{path}: "setting" is {setting!r}; expected one of {", ".join(SETTINGS)}.')
    if group not in SETTINGS[setting]:
        others = [name for name, groups in SETTINGS.items() if group in groups]
        raise ValueError(
            f"{path} has the {setting} setting, whose groups are {', '.join(SETTINGS[setting])}; there is no group "
            f"{group!r}."
            + (
                f" Make a file of the {others[0]} setting with: python -m common datalist --dataset_dir {dataset_dir} "
                f"--setting {others[0]} (python -m common datalist --help tells the rest)."
                if others
                else ""
            )
        )
    groups = {name: data[name] if isinstance(data.get(name), list) else [] for name in SETTINGS[setting]}
    for name, entries in groups.items():
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not any(entry.get(kind) for kind in SCANS):
                raise ValueError(f'{path}: {name}[{index}] is {entry!r}; expected a path under "hr" or "lr" or both.')
            entry.setdefault("subject", subject_of(entry.get("hr") or entry["lr"], None))
    check_subjects(setting, groups, str(path))
    return path, setting, groups


def _usable(path: Path, entries: list[dict], where: str, kinds: str | Sequence[str], needs: str | None) -> list[dict]:
    """The entries with a scan among ``kinds``, of their paths these, absolute and checked."""
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    scans = [kind for kind in SCANS if kind in wanted]
    entries = [entry for entry in entries if any(entry.get(kind) for kind in scans)]
    if not entries:
        raise ValueError(f"{path}: no entry of {where} holds {' or '.join(scans)}; this configuration needs it.")
    if needs is not None:
        _require(path, entries, where, needs)
    entries = [
        {**{k: str(path.parent / entry[k]) for k in wanted if entry.get(k)}, "subject": str(entry["subject"])}
        for entry in entries
    ]
    missing = [entry[kind] for entry in entries for kind in wanted if kind in entry and not Path(entry[kind]).is_file()]
    if missing:
        raise FileNotFoundError(f"{path}: {len(missing)} listed files of {where} do not exist:\n" + "\n".join(missing))
    return entries


def _require(path: Path, entries: list[dict], where: str, kind: str) -> None:
    lacking = sorted({str(entry["subject"]) for entry in entries if not entry.get(kind)})
    if lacking:
        otherwise = "train without a guide: --guided false" if kind == "guide" else "leave these subjects out"
        raise ValueError(f"{path}: no {kind} for {', '.join(lacking)} in {where}; add it, or {otherwise}.")


def folder(dataset_dir: str) -> Path:
    """The folder of the data, as an absolute path; a ValueError or FileNotFoundError where there is none."""
    if not str(dataset_dir or "").strip():
        raise ValueError("dataset_dir is empty; give the folder of the data, e.g. --dataset_dir /data/mri.")
    root = Path(dataset_dir).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {root} is not a folder; give the folder of the data, --dataset_dir DIR.")
    return root


def find(root: Path, patterns: str | Sequence[str] | None, option: str) -> list[str]:
    """Paths of files that match glob patterns, hidden ones left out.

    Args:
        root: folder that patterns and paths are relative to.
        patterns: several separated by commas; none find nothing.
        option: of the command line, that the patterns were given with, for messages.

    Returns:
        Paths relative to ``root``, sorted.

    Raises:
        FileNotFoundError: a pattern without files.
        ValueError: an empty pattern, or one that leaves ``root``.
    """
    found: set[str] = set()
    for pattern in patterns.split(",") if isinstance(patterns, str) else patterns or ():
        if not pattern.strip() or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f"--{option} '{pattern}'; expected a pattern inside of dataset_dir, relative to it.")
        matches = [p.relative_to(root) for p in root.glob(pattern.strip()) if p.is_file()]
        matches = [p.as_posix() for p in matches if not any(part.startswith(".") for part in p.parts)]
        if not matches:
            without = " Scans that have no guide are trained on and super-resolved with --guided false."
            raise FileNotFoundError(
                f"no files match --{option} '{pattern}' in {root}." + (without if option == "guide" else "")
            )
        found.update(matches)
    return sorted(found)


def subject_of(path: str, expression: str | None) -> str:
    """The subject of a file, by its path; a ValueError where the expression, if given, does not match."""
    if expression is None:
        found = SUBJECT.search(path)
        return found[0] if found else Path(path).name.split(".")[0]
    found = re.search(expression, path)
    if not found:
        raise ValueError(f"--subject '{expression}' does not match {path}; it has to match every path.")
    return found[1] if found.re.groups else found[0]


def check_exclusive(files: Mapping[str, Sequence[str]]) -> None:
    """Refuse, with a ValueError, a file that was found for two options."""
    for first, second in combinations(files, 2):
        both = sorted(set(files[first]) & set(files[second]))
        if both:
            raise ValueError(f"{both[0]} matches --{first} and --{second}; make the patterns exclusive.")


def one_each(paths: Sequence[str], subjects: Mapping[str, str], option: str) -> dict[str, str]:
    """The path of each subject; a ValueError where a subject has several."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(subjects[path], []).append(path)
    several = [f"{name} ({', '.join(of_name)})" for name, of_name in found.items() if len(of_name) > 1]
    if several:
        raise ValueError(
            f"--{option} matches several volumes of {', '.join(several)}; expected one of a subject. Narrow the "
            "pattern, or say with --subject, a regular expression, what a subject is."
        )
    return {name: of_name[0] for name, of_name in found.items()}


def check_partners(scans: Collection[str], guides: Collection[str]) -> None:
    """Refuse, with a ValueError, subjects with a scan and no guide, or a guide and no scan."""
    alone = {"guide": sorted(set(scans) - set(guides)), "scan": sorted(set(guides) - set(scans))}
    if any(alone.values()):
        counts = [f"{len(n)} {k}{'s' if len(n) != 1 else ''}" for n, k in ((scans, "scan"), (guides, "guide"))]
        counts = (" and " if len(scans) == len(guides) else " but ").join(counts)
        listing = [f"without a {kind}: {', '.join(names)}" for kind, names in alone.items() if names]
        raise ValueError(
            f"{counts}; {'; '.join(listing)}. Each scan needs the guide of its subject: add or leave out what is "
            "alone, or say with --subject, a regular expression, which part of a path is the subject."
        )


def check_subjects(setting: str, groups: Mapping[str, Sequence[Mapping]], where: str) -> None:
    """Refuse, with a ValueError that begins with ``where``, subjects in groups where the setting forbids it."""
    members = {group: {str(entry["subject"]) for entry in entries} for group, entries in groups.items()}
    for first, second in combinations(groups, 2):
        if setting == "misaligned" and (first, second) == ("source", "target"):
            different = sorted(members[first] ^ members[second])
            if different:
                raise ValueError(
                    f"{where}: in the misaligned setting source and target hold the same subjects, but only one of "
                    f"them holds {', '.join(different)}. Add their other volumes, or use the unpaired setting."
                )
            continue
        if setting == "cross_modality" and (first, second) == ("source", "target"):
            continue  # CT and MR of a subject are never paired, so both may train
        shared = sorted(members[first] & members[second])
        if shared:
            raise ValueError(
                f"{where}: subjects {', '.join(shared)} are in {first} and in {second}; in the {setting} setting a "
                "subject is in one of them only. Move their volumes to one group."
            )


def as_hr(entries: Sequence[Mapping]) -> list[dict]:
    """Entries with the CT volume in the place of "hr", alone."""
    return [{"hr": entry["ct"], "subject": entry["subject"]} for entry in entries]


def only_case(entries: Sequence[dict], case: int) -> list[dict]:
    """The entry of one case, counted from 0, as a list.

    Raises:
        ValueError: when there is no such case.
    """
    if isinstance(case, bool) or not isinstance(case, int) or not 0 <= case < len(entries):
        raise ValueError(f"case is {case!r}, expected one of the {len(entries)}: 0 to {len(entries) - 1}.")
    return [entries[case]]


def as_lr(entries: Sequence[Mapping]) -> list[dict]:
    """Entries as LR scans: the LR scans alone; where there is none at all, the HR scans, to be degraded."""
    authentic = [{k: v for k, v in entry.items() if k != "hr"} for entry in entries if "lr" in entry]
    return authentic or [dict(entry) for entry in entries]
