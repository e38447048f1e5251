"""``python -m common datalist``: which volume serves in which group, drawn at random or chosen by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ..data.lists.datalist import (
    FILE,
    KINDS,
    SCANS,
    SETTINGS,
    check_exclusive,
    check_partners,
    check_subjects,
    find,
    folder,
    one_each,
    subject_of,
)
from ..files import replacing


def write_datalist(
    dataset_dir: str,
    hr: str | Sequence[str] | None = None,
    lr: str | Sequence[str] | None = None,
    guide: str | Sequence[str] | None = None,
    ct: str | Sequence[str] | None = None,
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
    ones. Or the split is by hand: a pattern for each of the setting's groups, or for test alone, which picks from the
    files of ``hr`` and ``lr``.

    The guided setting has the groups train, validation and test. A subject there has an LR volume, or an HR one that is
    degraded on the fly, or both, and with ``guide`` its guide, which follows it into its group. Test holds subjects
    with known HR only, and stays empty where there are none.

    In the cross-modality setting (Wang et al. 2023) the HR volumes of source are the ``ct``, and the other groups hold
    MR volumes, as in the unpaired setting. Validation and test hold subjects with known HR only, and stay empty where
    there are none; source holds the CT of everybody who is not in them. By hand they may be left out.

    Args:
        dataset_dir: folder of the data; patterns and the paths in ``dataset.json`` are relative to it.
        hr: glob patterns of HR volumes, several separated by commas; ``**`` goes into subfolders.
        lr: glob patterns of authentic LR volumes.
        guide: glob patterns of the subjects' HR volumes of another contrast, one each; of the guided setting only.
        ct: glob patterns of HR CT volumes; of the cross-modality setting only, which needs them.
        setting: "unpaired", no subject is in two groups; "misaligned", source and target hold the same subjects;
            "guided", LR volumes with the guide of the same subject, and no subject is in two groups; "cross_modality",
            HR CT and MR, and no subject is in two groups but source and target, where its CT and its MR may both be.
        split: shares of subjects in each group, positive, of any sum. By default 0.4,0.4,0.1,0.1 for source, target,
            validation and test, or 0.8,0.1,0.1 for train, validation and test, of which the first two count where test
            stays empty; in the cross-modality setting 0.8,0.1,0.1 for target, validation and test, over the subjects
            with MR. In the misaligned setting source and target both get the sum of theirs.
        seed: same seed and same files, same split.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        source: pattern of the files of this group, to split by hand; likewise ``target``, ``train``, ``validation``,
            ``test``. With ``test`` alone the other groups stay empty: to evaluate weights that are there.

    Raises:
        FileNotFoundError: no such folder, or a pattern without files.
        ValueError: too few subjects, a bad setting, split or subject, an option of another setting, a subject in groups
            where it must not be, in the guided setting a subject with two volumes of a kind, with a guide and nothing
            to guide, or without a guide where others have one, or in the cross-modality setting an LR volume in
            validation or test whose HR is not known.

    Source:
        Wang et al. 2023, section 3, for the cross-modality setting.
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
    cross = setting == "cross_modality"
    if ct and not cross:
        raise ValueError(f"datalist: --ct in the {setting} setting, which has no CT; use --setting cross_modality.")
    if cross and not ct:
        raise ValueError("datalist: no --ct pattern; source needs high-resolution CT, e.g. --ct '*/*_ct.nii.gz'.")
    patterns = {"hr": hr, "lr": lr, "guide": guide, "ct": ct}
    files = {kind: find(root, pattern, kind) for kind, pattern in patterns.items()}
    if not files["hr"] and setting not in ("guided", "cross_modality"):
        raise ValueError("datalist: no --hr pattern; source needs high-resolution volumes, e.g. --hr '*/*_t1w.nii.gz'.")
    if not files["hr"] and not files["lr"]:
        raise ValueError("datalist: no --hr and no --lr pattern; give the scans to learn from: --lr '*/*_t2w.nii.gz'.")
    check_exclusive(files)
    subjects = {path: subject_of(path, subject) for paths in files.values() for path in paths}
    if setting == "guided":
        of_subject = {kind: one_each(files[kind], subjects, kind) for kind in KINDS}
        if guide:
            check_partners({*of_subject["hr"], *of_subject["lr"]}, of_subject["guide"])
    need_hr = {"guided": ("test",), "cross_modality": ("validation", "test")}.get(setting, ())
    filled = [group for group in SETTINGS[setting] if group not in need_hr or files["hr"]]
    if any(by_hand.values()):
        for group in need_hr:
            if by_hand[group] and group not in filled:
                raise ValueError(
                    f"datalist: --{group} without --hr; {group} needs known HR: give --hr, or leave --{group} out."
                )
        if cross:
            filled = [group for group in filled if by_hand[group] or group not in need_hr]
        if not any(by_hand[group] for group in filled if group != "test"):
            filled = ["test"]
        missing = [group for group in filled if not by_hand[group]]
        if missing:
            raise ValueError(
                f"datalist: groups by hand need a pattern each, or --test alone; missing: --{', --'.join(missing)}."
            )
        chosen = {group: set(find(root, by_hand[group], group)) for group in filled}
    else:
        deal = _split_cross_modality if cross else _split
        members = deal(files, subjects, setting, filled, split, seed)
        chosen = {group: {p for p, s in subjects.items() if s in members[group]} for group in filled}
    groups: dict[str, list[dict]] = {group: [] for group in SETTINGS[setting]}
    for group in filled:
        ct_only = cross and group == "source"
        groups[group] = _entries(group, chosen[group], {**files, "hr": files["ct"]} if ct_only else files, subjects)
        if not groups[group] and ct_only:
            raise ValueError(
                "datalist: group source has no volumes: none of its files matches --ct, or all CT is of subjects in "
                "validation or test, where it must not train. Add CT of others, or split by hand."
            )
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
    for group in need_hr if cross else ():
        unknown = sorted({entry["subject"] for entry in groups[group] if "hr" not in entry})
        if unknown:
            raise ValueError(
                f"datalist: {group} needs known HR, but holds LR volumes without it of {', '.join(unknown)}: HR and LR "
                "are a pair where a subject has one volume of each. Narrow --lr or --hr, or move them to target."
            )
    check_subjects(setting, groups, "datalist")

    with replacing(root / FILE) as temporary:
        temporary.write_text(json.dumps({"setting": setting, **groups}, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote {root / FILE} ({setting})")
    for group, entries in groups.items():
        if group not in filled:
            print(f"  {group}: none, as " + (f"--{group} is not given" if files["hr"] else "no HR volume is known"))
            continue
        names = sorted({entry["subject"] for entry in entries})
        print(f"  {group}: {len(entries)} volumes of {len(names)} subjects: {' '.join(names)}")
    left = sorted(set(subjects.values()) - {entry["subject"] for entries in groups.values() for entry in entries})
    if left:
        print(f"  in no group: {' '.join(left)}")


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
    shares = _shares(split, filled, len(SETTINGS[setting]))
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
    counts = _counts([shares[name] for name in names], len(pool))
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


def _split_cross_modality(
    files: dict[str, list[str]],
    subjects: dict[str, str],
    setting: str,
    filled: list[str],
    split: str | Sequence[float] | None,
    seed: int,
) -> dict[str, set[str]]:
    """As :func:`_split`: MR subjects over target, validation and test, and the CT of whom the last two do not hold."""
    shares = _shares((0.8, 0.1, 0.1) if split is None else split, filled[1:], len(SETTINGS[setting]) - 1)
    with_hr, with_lr, with_ct = ({subjects[path] for path in files[kind]} for kind in (*SCANS, "ct"))
    pool, held = sorted(with_hr | with_lr), {}
    if "test" in filled:
        if len(with_hr) < 2 or len(pool) < 3:
            raise ValueError(
                f"datalist: found {len(pool)} MR subjects ({', '.join(pool)}), {len(with_hr)} of them with HR volumes, "
                "but at least 3 are needed, one each for target, validation, test, 2 of them with HR volumes "
                "(cross_modality). Add subjects, check --subject, which says what a subject is, or split by hand, "
                "where --validation and --test may be left out."
            )
        counts = _counts(list(shares.values()), len(pool))[1:]
        if counts.sum() > len(with_hr):
            counts = _counts(list(shares.values())[1:], len(with_hr))
        order = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool)) if pool[i] in with_hr]
        held = {"validation": set(order[: counts[0]]), "test": set(order[counts[0] : counts.sum()])}
    away = set().union(*held.values())
    return {"source": with_ct - away, "target": set(pool) - away, **held}


def _shares(split: str | Sequence[float], filled: list[str], most: int) -> dict[str, float]:
    """The share of each group that is to be filled; those of groups that stay empty, ``most`` in all, may be given."""
    try:
        values = [float(value) for value in (split.split(",") if isinstance(split, str) else split)]
    except (TypeError, ValueError):
        values = []
    if len(values) not in (len(filled), most) or not all(0 < value < np.inf for value in values):
        raise ValueError(
            f"datalist: --split {split}; expected {len(filled)} positive numbers, for {', '.join(filled)}."
        )
    return dict(zip(filled, values, strict=False))


def _counts(shares: Sequence[float], total: int) -> np.ndarray:
    """Whole numbers of this sum, each at least 1, in the proportion of the shares."""
    ideal, counts = np.array(shares) / np.sum(shares) * total, np.ones(len(shares), int)
    for _ in range(total - len(shares)):
        counts[np.argmax(ideal - counts)] += 1
    return counts


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
