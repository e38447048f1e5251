"""``python -m common datalist`` and ``load_datalist``: which volume is source, target, validation or test."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ..files import replacing

FILE = "dataset.json"
GROUPS = ("source", "target", "validation", "test")
KINDS = ("hr", "lr")
SETTINGS = ("unpaired", "misaligned")


def write_datalist(
    dataset_dir: str,
    hr: str | Sequence[str] | None = None,
    lr: str | Sequence[str] | None = None,
    setting: str = "unpaired",
    split: str | Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    seed: int = 0,
    subject: str | None = None,
    source: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    validation: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
) -> None:
    """Write ``dataset_dir/dataset.json``: each group's volumes, found by pattern.

    ``hr`` are high-resolution volumes, ``lr`` authentic low-resolution ones. Source holds HR volumes. Target holds a
    subject's LR volumes, or if it has none its HR volumes, which are degraded on the fly. Validation and test hold both
    kinds; one HR and one LR volume of a subject there are a true pair.

    Subjects are split at random. With LR volumes, subjects that have one kind only go to source (HR) or target (LR),
    and those with both are split over the other groups; if nobody has both, source, validation and test share the HR
    ones. Or the split is by hand: a pattern for each of the four groups, which picks from the files of ``hr`` and
    ``lr``.

    Args:
        dataset_dir: folder of the data; patterns and the paths in ``dataset.json`` are relative to it.
        hr: glob patterns of HR volumes, several separated by commas; ``**`` goes into subfolders.
        lr: glob patterns of authentic LR volumes.
        setting: "unpaired", no subject is in two groups; "misaligned", source and target hold the same subjects.
        split: shares of subjects in source, target, validation and test, positive, of any sum. In the misaligned
            setting source and target both get the sum of theirs.
        seed: same seed and same files, same split.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        source: pattern of the files of this group, to split by hand; likewise ``target``, ``validation``, ``test``.

    Raises:
        FileNotFoundError: no such folder, or a pattern without files.
        ValueError: too few subjects, a bad setting, split or subject, or a subject in groups where it must not be.
    """
    root = _folder(dataset_dir)
    if setting not in SETTINGS:
        raise ValueError(f"datalist: --setting {setting}; expected one of {', '.join(SETTINGS)}.")
    files = {kind: _find(root, pattern, kind) for kind, pattern in (("hr", hr), ("lr", lr))}
    if not files["hr"]:
        raise ValueError("datalist: no --hr pattern; source needs high-resolution volumes, e.g. --hr '*/*_t1w.nii.gz'.")
    both = sorted(set(files["hr"]) & set(files["lr"]))
    if both:
        raise ValueError(f"datalist: {both[0]} matches --hr and --lr; make the patterns exclusive.")
    subjects = {path: _subject(path, subject) for paths in files.values() for path in paths}
    by_hand = dict(zip(GROUPS, (source, target, validation, test), strict=True))
    if any(by_hand.values()):
        missing = [group for group, pattern in by_hand.items() if not pattern]
        if missing:
            raise ValueError(f"datalist: groups by hand need a pattern each; missing: --{', --'.join(missing)}.")
        chosen = {group: set(_find(root, pattern, group)) for group, pattern in by_hand.items()}
    else:
        groups = _split(files, subjects, setting, split, seed)
        chosen = {group: {p for p, s in subjects.items() if s in members} for group, members in groups.items()}
    data = {"setting": setting}
    for group in GROUPS:
        data[group] = _entries(group, chosen[group], files, subjects)
        if not data[group]:
            raise ValueError(
                f"datalist: group {group} has no volumes: none of its files matches --hr"
                + (" (source takes no --lr)." if group == "source" else " or --lr.")
            )
    _check_subjects(data, "datalist")

    with replacing(root / FILE) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote {root / FILE} ({setting})")
    for group in GROUPS:
        members = sorted({entry["subject"] for entry in data[group]})
        print(f"  {group}: {len(data[group])} volumes of {len(members)} subjects: {' '.join(members)}")
    left = sorted(set(subjects.values()) - {entry["subject"] for group in GROUPS for entry in data[group]})
    if left:
        print(f"  in no group: {' '.join(left)}")


def load_datalist(dataset_dir: str, group: str, kinds: str | Sequence[str] = KINDS) -> list[dict]:
    """Entries of one group of ``dataset_dir/dataset.json`` with absolute paths.

    Args:
        dataset_dir: folder with ``dataset.json``.
        group: "source", "target", "validation" or "test".
        kinds: keep entries that hold at least one of these keys, "hr" or "lr", and of their paths only these.

    Returns:
        One dict per entry: "hr" or "lr" or both, an absolute path each, and "subject".

    Raises:
        FileNotFoundError: no such folder, no ``dataset.json``, or a listed file is missing.
        ValueError: empty folder name, bad JSON, unknown or empty group, an entry without "hr" and "lr", or subjects in
            groups where the setting does not allow it.
    """
    root = _folder(dataset_dir)
    path = root / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Make it with: "
            f"python -m common datalist --dataset_dir {dataset_dir} --hr '**/*.nii.gz' "
            "(python -m common datalist --help tells how to give LR volumes and groups)."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. Repair it or make it anew with: python -m common datalist."
        ) from error
    if group not in GROUPS:
        raise ValueError(f"load_datalist: group {group!r}; expected one of {', '.join(GROUPS)}.")
    if not isinstance(data, dict) or not isinstance(data.get(group), list) or not data[group]:
        found = [k for k in GROUPS if isinstance(data, dict) and data.get(k)]
        raise ValueError(
            f"{path}: group {group!r} has no volumes; found groups with volumes: {', '.join(found) or 'none'}."
        )
    for name in GROUPS:
        for index, entry in enumerate(data.get(name) or []):
            if not isinstance(entry, dict) or not any(entry.get(kind) for kind in KINDS):
                raise ValueError(f'{path}: {name}[{index}] is {entry!r}; expected a path under "hr" or "lr" or both.')
            entry.setdefault("subject", _subject(entry.get("hr") or entry["lr"], None))
    _check_subjects(data, str(path))
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    entries = [
        {**{kind: str(root / entry[kind]) for kind in wanted if entry.get(kind)}, "subject": str(entry["subject"])}
        for entry in data[group]
    ]
    entries = [entry for entry in entries if len(entry) > 1]
    if not entries:
        raise ValueError(
            f"{path}: no entry of group {group!r} holds {' or '.join(wanted)}; this configuration needs it."
        )
    missing = [entry[kind] for entry in entries for kind in wanted if kind in entry and not Path(entry[kind]).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} listed files of group {group!r} do not exist:\n" + "\n".join(missing)
        )
    return entries


def _folder(dataset_dir: str) -> Path:
    if not str(dataset_dir or "").strip():
        raise ValueError("dataset_dir is empty; give the folder of the data, e.g. --dataset_dir /data/mri.")
    root = Path(dataset_dir).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir {root} is not a folder; give the folder of the data, --dataset_dir DIR.")
    return root


def _find(root: Path, patterns: str | Sequence[str] | None, option: str) -> list[str]:
    """Paths relative to ``root`` that match, hidden files left out, sorted."""
    found: set[str] = set()
    for pattern in patterns.split(",") if isinstance(patterns, str) else patterns or ():
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(
                f"datalist: --{option} '{pattern}'; expected a pattern inside of dataset_dir, relative to it."
            )
        matches = [p.relative_to(root) for p in root.glob(pattern.strip()) if p.is_file()]
        matches = [p.as_posix() for p in matches if not any(part.startswith(".") for part in p.parts)]
        if not matches:
            raise FileNotFoundError(f"datalist: no files match --{option} '{pattern}' in {root}.")
        found.update(matches)
    return sorted(found)


def _subject(path: str, expression: str | None) -> str:
    if expression is None:
        found = re.search(r"sub-[A-Za-z0-9]+", path)
        return found[0] if found else Path(path).name.split(".")[0]
    found = re.search(expression, path)
    if not found:
        raise ValueError(f"datalist: --subject '{expression}' does not match {path}; it has to match every path.")
    return found[1] if found.re.groups else found[0]


def _split(
    files: dict[str, list[str]], subjects: dict[str, str], setting: str, split: str | Sequence[float], seed: int
) -> dict[str, set[str]]:
    """Subjects of each group, every group with at least one."""
    try:
        values = [float(value) for value in (split.split(",") if isinstance(split, str) else split)]
    except (TypeError, ValueError):
        values = []
    if len(values) != len(GROUPS) or not all(0 < value < np.inf for value in values):
        raise ValueError(f"datalist: --split {split}; expected four positive numbers, for {', '.join(GROUPS)}.")
    shares = dict(zip(GROUPS, values, strict=True))
    with_hr = {subjects[path] for path in files["hr"]}
    with_lr = {subjects[path] for path in files["lr"]} or with_hr
    both, rng = sorted(with_hr & with_lr), np.random.default_rng(seed)
    groups: dict[str, set[str]] = {group: set() for group in GROUPS}
    if setting == "misaligned":
        names, pool = ["source", "validation", "test"], both
        shares = {**shares, "source": shares["source"] + shares["target"]}
    elif both:
        # A subject with one kind only can serve one group; those with both go where they are needed.
        groups["source"], groups["target"] = with_hr - with_lr, with_lr - with_hr
        names, pool = [group for group in GROUPS if not groups[group]], both
    else:
        # Two cohorts: validation and test need known HR.
        groups["target"] = with_lr
        names, pool = ["source", "validation", "test"], sorted(with_hr)
    if len(pool) < len(names):
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
    for name, end, count in zip(names, np.cumsum(counts), counts, strict=True):
        groups[name] = set(order[end - count : end])
    if setting == "misaligned":
        groups["target"] = groups["source"]
    return groups


def _entries(group: str, chosen: set[str], files: dict[str, list[str]], subjects: dict[str, str]) -> list[dict]:
    entries = []
    for name in sorted({subjects[path] for path in chosen if path in subjects}):
        hr, lr = ([p for p in files[kind] if p in chosen and subjects[p] == name] for kind in KINDS)
        if group == "source":
            lr = []
        elif group == "target" and lr:
            hr = []
        if len(hr) == len(lr) == 1:
            entries.append({"hr": hr[0], "lr": lr[0], "subject": name})
        else:
            entries += [{"hr": path, "subject": name} for path in hr] + [{"lr": path, "subject": name} for path in lr]
    return entries


def _check_subjects(data: dict, where: str) -> None:
    setting = data.get("setting", "unpaired")
    if setting not in SETTINGS:
        raise ValueError(f'{where}: "setting" is {setting!r}; expected one of {", ".join(SETTINGS)}.')
    members = {group: {str(entry["subject"]) for entry in data.get(group) or []} for group in GROUPS}
    for first, second in combinations(GROUPS, 2):
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
