"""``python -m common datalist``, ``load_datalist`` and ``cross_validation``: which volume serves in which group."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from monai.data import partition_dataset

from ..files import replacing

FILE = "dataset.json"
SCANS = ("hr", "lr")
KINDS = (*SCANS, "guide")
SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")  # as BIDS labels it
SETTINGS = {
    "unpaired": ("source", "target", "validation", "test"),
    "misaligned": ("source", "target", "validation", "test"),
    "guided": ("train", "validation", "test"),
}


def write_datalist(
    dataset_dir: str,
    hr: str | Sequence[str] | None = None,
    lr: str | Sequence[str] | None = None,
    guide: str | Sequence[str] | None = None,
    setting: str = "unpaired",
    split: str | Sequence[float] | None = None,
    seed: int = 0,
    subject: str | None = None,
    source: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    train: str | Sequence[str] | None = None,
    validation: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
) -> None:
    """Write ``dataset_dir/dataset.json``: each group's volumes, found by pattern.

    ``hr`` are high-resolution volumes, ``lr`` authentic low-resolution ones. Source holds HR volumes. Target holds a
    subject's LR volumes, or if it has none its HR volumes, which are degraded on the fly. Validation and test hold both
    kinds; one HR and one LR volume of a subject there are a true pair.

    Subjects are split at random. With LR volumes, subjects that have one kind only go to source (HR) or target (LR),
    and those with both are split over the other groups; if nobody has both, source, validation and test share the HR
    ones. Or the split is by hand: a pattern for each of the setting's groups, which picks from the files of ``hr`` and
    ``lr``.

    The guided setting has the groups train, validation and test. A subject there has an LR volume, or an HR one that is
    degraded on the fly, or both, and with ``guide`` its guide, which follows it into its group. Test holds subjects
    with known HR only, and stays empty where there are none.

    Args:
        dataset_dir: folder of the data; patterns and the paths in ``dataset.json`` are relative to it.
        hr: glob patterns of HR volumes, several separated by commas; ``**`` goes into subfolders.
        lr: glob patterns of authentic LR volumes.
        guide: glob patterns of the subjects' HR volumes of another contrast, one each; of the guided setting only.
        setting: "unpaired", no subject is in two groups; "misaligned", source and target hold the same subjects;
            "guided", LR volumes with the guide of the same subject, and no subject is in two groups.
        split: shares of subjects in each group, positive, of any sum. By default 0.4,0.4,0.1,0.1 for source, target,
            validation and test, or 0.8,0.1,0.1 for train, validation and test, of which the first two count where test
            stays empty. In the misaligned setting source and target both get the sum of theirs.
        seed: same seed and same files, same split.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        source: pattern of the files of this group, to split by hand; likewise ``target``, ``train``, ``validation``,
            ``test``.

    Raises:
        FileNotFoundError: no such folder, or a pattern without files.
        ValueError: too few subjects, a bad setting, split or subject, an option of another setting, a subject in groups
            where it must not be, or in the guided setting a subject with two volumes of a kind, with a guide and
            nothing to guide, or without a guide where others have one.
    """
    root = folder(dataset_dir)
    if setting not in SETTINGS:
        raise ValueError(f"datalist: --setting {setting}; expected one of {', '.join(SETTINGS)}.")
    by_hand = {"source": source, "target": target, "train": train, "validation": validation, "test": test}
    foreign = [group for group, pattern in by_hand.items() if pattern and group not in SETTINGS[setting]]
    if foreign:
        raise ValueError(
            f"datalist: --{', --'.join(foreign)}: no group of the {setting} setting, which has "
            f"{', '.join(SETTINGS[setting])}; use these, or another --setting."
        )
    if guide and setting != "guided":
        raise ValueError(f"datalist: --guide in the {setting} setting, which has no guides; use --setting guided.")
    files = {kind: find(root, pattern, kind) for kind, pattern in (("hr", hr), ("lr", lr), ("guide", guide))}
    if not files["hr"] and setting != "guided":
        raise ValueError("datalist: no --hr pattern; source needs high-resolution volumes, e.g. --hr '*/*_t1w.nii.gz'.")
    if not files["hr"] and not files["lr"]:
        raise ValueError("datalist: no --hr and no --lr pattern; give the scans to learn from: --lr '*/*_t2w.nii.gz'.")
    check_exclusive(files)
    subjects = {path: subject_of(path, subject) for paths in files.values() for path in paths}
    if setting == "guided":
        of_subject = {kind: one_each(files[kind], subjects, kind) for kind in KINDS}
        if guide:
            check_partners({*of_subject["hr"], *of_subject["lr"]}, of_subject["guide"])
    filled = [group for group in SETTINGS[setting] if group != "test" or files["hr"]]
    if any(by_hand.values()):
        if test and "test" not in filled:
            raise ValueError("datalist: --test without --hr; test needs known HR: give --hr, or leave --test out.")
        missing = [group for group in filled if not by_hand[group]]
        if missing:
            raise ValueError(f"datalist: groups by hand need a pattern each; missing: --{', --'.join(missing)}.")
        chosen = {group: set(find(root, by_hand[group], group)) for group in filled}
    else:
        members = _split(files, subjects, setting, filled, split, seed)
        chosen = {group: {p for p, s in subjects.items() if s in members[group]} for group in filled}
    groups: dict[str, list[dict]] = {group: [] for group in SETTINGS[setting]}
    for group in filled:
        groups[group] = _entries(group, chosen[group], files, subjects)
        if not groups[group]:
            raise ValueError(
                f"datalist: group {group} has no volumes: none of its files matches --hr"
                + (" (source takes no --lr)." if group == "source" else " or --lr.")
            )
    if setting == "guided":
        unknown = [entry["subject"] for entry in groups["test"] if "hr" not in entry]
        if unknown:
            raise ValueError(
                f"datalist: test needs known HR, but --test picks no --hr file of {', '.join(unknown)}. Let it match "
                "theirs, or move them to another group."
            )
    _check_subjects(setting, groups, "datalist")

    with replacing(root / FILE) as temporary:
        temporary.write_text(json.dumps({"setting": setting, **groups}, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote {root / FILE} ({setting})")
    for group, entries in groups.items():
        if group not in filled:
            print(f"  {group}: none, as no HR volume is known")
            continue
        names = sorted({entry["subject"] for entry in entries})
        print(f"  {group}: {len(entries)} volumes of {len(names)} subjects: {' '.join(names)}")
    left = sorted(set(subjects.values()) - {entry["subject"] for entries in groups.values() for entry in entries})
    if left:
        print(f"  in no group: {' '.join(left)}")


def load_datalist(
    dataset_dir: str, group: str, kinds: str | Sequence[str] = KINDS, needs: str | None = None
) -> list[dict]:
    """Entries of one group of ``dataset_dir/dataset.json`` with absolute paths.

    Args:
        dataset_dir: folder with ``dataset.json``.
        group: a group of the file's setting: "source", "target", "validation" or "test", in the guided setting "train",
            "validation" or "test".
        kinds: keep of an entry's paths only these, "hr", "lr" and "guide", and only entries with an "hr" or "lr" left.
        needs: a kind that every entry must hold.

    Returns:
        One dict per entry: "hr" or "lr" or both, "guide" where there is one, an absolute path each, and "subject".

    Raises:
        FileNotFoundError: no such folder, no ``dataset.json``, or a listed file is missing.
        ValueError: empty folder name, bad JSON, a group that the setting does not have, or an empty one, an entry
            without "hr" and "lr" or without what it needs, or subjects in groups where the setting does not allow it.
    """
    path, groups = _read(dataset_dir, group)
    if not groups[group]:
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
    and misaligned settings one without a known HR volume is in none, and always trains.

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
        ValueError: as :func:`load_datalist`, and for no such fold, fewer subjects than folds, or a held-out entry
            without "hr".
    """
    if folds < 2 or fold not in range(folds):
        raise ValueError(f"cross-validation: fold {fold} of {folds}; expected 2 folds or more, counted from 0.")
    path, groups = _read(dataset_dir, "test")
    pooled = [group for group in groups if group != "validation"]
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


def _read(dataset_dir: str, group: str) -> tuple[Path, dict[str, list[dict]]]:
    """The path of ``dataset.json``, and what it holds for each group of its setting, of which ``group`` must be one."""
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
    _check_subjects(setting, groups, str(path))
    return path, groups


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
            raise FileNotFoundError(f"no files match --{option} '{pattern}' in {root}.")
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


def _split(
    files: dict[str, list[str]],
    subjects: dict[str, str],
    setting: str,
    filled: list[str],
    split: str | Sequence[float] | None,
    seed: int,
) -> dict[str, set[str]]:
    """Subjects of each group that is to be filled, every one with at least one."""
    if split is None:
        split = (0.8, 0.1, 0.1) if setting == "guided" else (0.4, 0.4, 0.1, 0.1)
    try:
        values = [float(value) for value in (split.split(",") if isinstance(split, str) else split)]
    except (TypeError, ValueError):
        values = []
    # Where test stays empty, its share may be given or not.
    if len(values) not in (len(filled), len(SETTINGS[setting])) or not all(0 < value < np.inf for value in values):
        raise ValueError(
            f"datalist: --split {split}; expected {len(filled)} positive numbers, for {', '.join(filled)}."
        )
    shares = dict(zip(filled, values, strict=False))
    with_hr = {subjects[path] for path in files["hr"]}
    with_lr = {subjects[path] for path in files["lr"]} or with_hr
    both, rng = sorted(with_hr & with_lr), np.random.default_rng(seed)
    groups: dict[str, set[str]] = {group: set() for group in filled}
    if setting == "guided":
        names, pool = filled, sorted(with_hr | with_lr)
    elif setting == "misaligned":
        names, pool = ["source", "validation", "test"], both
        shares = {**shares, "source": shares["source"] + shares["target"]}
    elif both:
        # A subject with one kind only can serve one group; those with both go where they are needed.
        groups["source"], groups["target"] = with_hr - with_lr, with_lr - with_hr
        names, pool = [group for group in filled if not groups[group]], both
    else:
        # Two cohorts: validation and test need known HR.
        groups["target"] = with_lr
        names, pool = ["source", "validation", "test"], sorted(with_hr)
    if len(pool) < len(names):
        if setting == "guided":
            kinds = "HR or LR volumes"
        else:
            kinds = "HR and LR volumes" if files["lr"] and pool == both else "HR volumes"
        raise ValueError(
            f"datalist: found {len(pool)} subjects with {kinds} ({', '.join(pool) or 'none'}), but at least "
            f"{len(names)} are needed, one each for {', '.join(names)} ({setting}). Add subjects, or check --subject, "
            "which says what a subject is."
        )
    weights = np.array([shares[name] for name in names])
    ideal, counts = weights / weights.sum() * len(pool), np.ones(len(names), int)
    for _ in range(len(pool) - len(names)):
        counts[np.argmax(ideal - counts)] += 1
    order = [pool[i] for i in rng.permutation(len(pool))]
    if setting == "guided" and with_hr:
        # Test is dealt last, so it gets subjects with known HR when these stand there; what they lack train gets.
        known = [name for name in order if name in with_hr][-counts[-1] :]
        order = [name for name in order if name not in known] + known
        counts[0] += counts[-1] - len(known)
        counts[-1] = len(known)
    for name, end, count in zip(names, np.cumsum(counts), counts, strict=True):
        groups[name] = set(order[end - count : end])
    if setting == "misaligned":
        groups["target"] = groups["source"]
    return groups


def _entries(group: str, chosen: set[str], files: dict[str, list[str]], subjects: dict[str, str]) -> list[dict]:
    entries = []
    for name in sorted({subjects[path] for path in chosen if path in subjects}):
        hr, lr = ([p for p in files[kind] if p in chosen and subjects[p] == name] for kind in SCANS)
        guides = [p for p in files["guide"] if subjects[p] == name]
        rest = {"guide": guides[0], "subject": name} if guides else {"subject": name}
        if group == "source":
            lr = []
        elif group == "target" and lr:
            hr = []
        if len(hr) == len(lr) == 1:
            entries.append({"hr": hr[0], "lr": lr[0], **rest})
        else:
            entries += [{"hr": path, **rest} for path in hr] + [{"lr": path, **rest} for path in lr]
    return entries


def _check_subjects(setting: str, groups: dict[str, list[dict]], where: str) -> None:
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
        shared = sorted(members[first] & members[second])
        if shared:
            raise ValueError(
                f"{where}: subjects {', '.join(shared)} are in {first} and in {second}; in the {setting} setting a "
                "subject is in one of them only. Move their volumes to one group."
            )


def only_case(entries: Sequence[dict], case: int) -> list[dict]:
    """The entry of one case, counted from 0, as a list.

    Raises:
        ValueError: when there is no such case.
    """
    if isinstance(case, bool) or not isinstance(case, int) or not 0 <= case < len(entries):
        raise ValueError(f"case is {case!r}, expected one of the {len(entries)}: 0 to {len(entries) - 1}.")
    return [entries[case]]
