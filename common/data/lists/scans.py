"""Scans to super-resolve, found in a folder, and their guides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..naming import case_stem
from .datalist import SUBJECT, check_exclusive, check_partners, find, folder, one_each, subject_of


def find_images(path: str, output_dir: str | None = None) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder, in the order of their names, or one file.

    Args:
        path: a folder, searched with its subfolders, or a file.
        output_dir: a folder whose files are passed over: results are no scans.

    Returns:
        ``[{"image": path}, ...]``.

    Raises:
        FileNotFoundError: when there is no such path, or no NIfTI in the folder.
    """
    root = Path(path)
    if root.is_file():
        return [{"image": str(root)}]
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir '{path}' is neither a folder nor a file; name scans to super-resolve.")
    files = _scans((p for p in root.rglob("*") if not p.name.startswith(".")), output_dir)
    if not files:
        raise FileNotFoundError(f"dataset_dir '{path}' holds no .nii or .nii.gz file, in its subfolders neither.")
    names = [p.name.removesuffix(".gz").removesuffix(".nii") for p in files]
    twice = sorted({str(p) for p, name in zip(files, names, strict=True) if names.count(name) > 1})
    if twice:
        raise ValueError(f"results are named by their inputs, and these have the same name: {', '.join(twice)}")
    return [{"image": str(p)} for p in files]


def find_pairs(
    dataset_dir: str,
    lr: str | Sequence[str],
    guide: str | Sequence[str] | None = None,
    subject: str | None = None,
    output_dir: str | None = None,
) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder that match a pattern, each with the guide of its subject.

    One scan and one guide are a pair whatever their names, unless these have two labels ``sub-<label>``.

    Args:
        dataset_dir: folder of the scans; patterns are relative to it.
        lr: glob patterns of LR scans, several separated by commas; ``**`` goes into subfolders.
        guide: glob patterns of guides; default none, scans alone.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        output_dir: a folder whose files are passed over: results are no scans.

    Returns:
        ``[{"image": path, "guide": path}, ...]``, in the order of the scans' names; with "subject" where several scans
        have the same file name, because results are named by it.

    Raises:
        FileNotFoundError: no such folder, or no NIfTI that matches.
        ValueError: no pattern of scans, a file that matches both patterns, a scan without guide or a guide without
            scan, two of one subject, or scans whose results would have the same name.
    """
    root = folder(dataset_dir)
    if not lr:
        raise ValueError("no --lr pattern; name the scans to super-resolve, e.g. --lr '*_t2w.nii.gz'.")
    if output_dir is not None and Path(output_dir).resolve() in root.resolve().parents:
        output_dir = None  # a folder that is named although it lies there holds scans
    files: dict[str, list[str]] = {}
    for option, patterns in (("lr", lr), ("guide", guide)):
        scans = _scans((root / name for name in find(root, patterns, option)), output_dir)
        files[option] = [p.relative_to(root).as_posix() for p in scans]
        if patterns is not None and not scans:
            raise FileNotFoundError(
                f"no .nii or .nii.gz file matches --{option} '{patterns}' in {root}"
                + ("." if output_dir is None else f", where what lies below output_dir '{output_dir}' is passed over.")
            )
    check_exclusive(files)
    subjects = {name: subject_of(name, subject) for names in files.values() for name in names}
    if guide is None:
        guides = {}
    elif len(files["lr"]) == len(files["guide"]) == 1:
        guides = {files["lr"][0]: files["guide"][0]}
        labels = [found[0] for name in (files["lr"][0], files["guide"][0]) if (found := SUBJECT.search(name))]
        if len(set(labels)) > 1:
            raise ValueError(
                f"the scan {files['lr'][0]} is of {labels[0]} and the guide {files['guide'][0]} of {labels[1]}, "
                "expected the same person; name the guide of this scan."
            )
    else:
        scan_of, guide_of = (one_each(names, subjects, option) for option, names in files.items())
        check_partners(scan_of, guide_of)
        guides = {name: guide_of[key] for key, name in scan_of.items()}
    stems = [case_stem(name) for name in files["lr"]]
    entries, results = [], {}
    for name, stem in zip(files["lr"], stems, strict=True):
        entry = {"image": str(root / name)}
        if guide is not None:
            entry["guide"] = str(root / guides[name])
        if stems.count(stem) > 1:
            entry["subject"] = subjects[name]
        entries.append(entry)
        results.setdefault(case_stem(name, entry.get("subject")), []).append(name)
    twice = [name for names in results.values() if len(names) > 1 for name in names]
    if twice:
        raise ValueError(
            f"results are named by their inputs and subjects, and these have the same: {', '.join(twice)}; say with "
            "--subject, a regular expression, which part of a path is the subject, or narrow --lr."
        )
    return entries


def _scans(files: Iterable[Path], output_dir: str | None) -> list[Path]:
    """Those that are NIfTI and no results, sorted."""
    files = sorted(p for p in files if p.name.endswith((".nii", ".nii.gz")))
    if output_dir is not None:
        files = [p for p in files if Path(output_dir).resolve() not in p.resolve().parents]
    return files
