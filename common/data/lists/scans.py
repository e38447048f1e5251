"""Scans to super-resolve, found in a folder, and their guides."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib

from ...processes import say
from ..naming import case_stem
from .datalist import SUBJECT, check_exclusive, files_below, find, folder, subject_of


def find_images(path: str | os.PathLike) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder, in the order of their paths, or one file.

    Results of super-resolution are no scans, see :func:`is_result`: they are passed over with one printed line.

    Args:
        path: a folder, searched with its subfolders, linked ones too; or a file.

    Returns:
        ``[{"image": path, "name": name}, ...]``, as :func:`named` names them.

    Raises:
        FileNotFoundError: when there is no such path, or no NIfTI in the folder.
        ValueError: when there are results only.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return named([{"image": file} for file in _scans([root])], root.parent)
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir '{path}' is neither a folder nor a file; name scans to super-resolve.")
    # A folder that is reached in two ways is read once.
    found = {file.parent.resolve() / file.name: file for file in (root / name for name in reversed(files_below(root)))}
    files = sorted(file for file in found.values() if _is_nifti(file))
    if not files:
        raise FileNotFoundError(f"dataset_dir '{path}' holds no .nii or .nii.gz file, in its subfolders neither.")
    return named([{"image": file} for file in _scans(files)], root)


def find_pairs(
    dataset_dir: str | os.PathLike,
    lr: str | Sequence[str],
    guide: str | Sequence[str] | None = None,
    subject: str | None = None,
) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder that match a pattern, each with the guide of its subject.

    One scan and one guide are a pair whatever their names, unless these have two labels ``sub-<label>``. Scans of one
    subject share its guide. A scan without guide, or with several, is an entry with a "problem"; guides without scan
    are named in a printed line. Results are passed over, as by :func:`find_images`.

    Args:
        dataset_dir: folder of the scans, that patterns are relative to; or one scan, whatever ``lr`` is.
        lr: glob patterns of LR scans, several separated by commas; ``**`` goes into subfolders.
        guide: glob patterns of guides, or the path of one; default none, scans alone.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.

    Returns:
        ``[{"image": path, "guide": path, "name": name}, ...]``, in the order of the scans' paths, as :func:`named`
        names them; one with a "problem", which says why it cannot be done, has no guide.

    Raises:
        FileNotFoundError: no such folder, or no NIfTI that matches.
        ValueError: no pattern of scans, a file that matches both patterns, or results only.
    """
    one = Path(dataset_dir or "").expanduser()
    root = one.absolute().parent if one.is_file() else folder(dataset_dir)
    if not lr and not one.is_file():
        raise ValueError("no --lr pattern; name the scans to super-resolve, e.g. --lr '*_t2w.nii.gz'.")
    scans = [one.name] if one.is_file() else _matching(root, lr, "lr")
    guides = [] if guide is None else _guides(root, guide)
    if one.is_file():
        guides = [path for path in guides if path != one.name]
    check_exclusive({"lr": scans, "guide": guides})
    entries = [{"image": path} for path in _scans([root / path for path in scans])]
    return named(entries if guide is None else _with_guides(entries, root, guides, subject), root)


def find_scans(path: str | os.PathLike, guide: str | None = None, subject: str | None = None) -> list[dict[str, str]]:
    """Entries as :func:`find_images` finds them, without the guides, each with the guide of its subject.

    Args:
        path: a folder or a file.
        guide: glob patterns of guides, relative to the folder, or the path of one; default none.
        subject: as for :func:`find_pairs`.

    Returns:
        As :func:`find_pairs`.

    Raises:
        FileNotFoundError, ValueError: as :func:`find_images`; or when there are guides only.
    """
    entries = find_images(path)
    if guide is None:
        return entries
    root = Path(path).expanduser().absolute()
    root = root.parent if root.is_file() else root
    guides = _guides(root, guide)
    taken = {os.path.realpath(root / name) for name in guides}
    entries = [entry for entry in entries if os.path.realpath(entry["image"]) not in taken]
    if not entries:
        raise ValueError(f"{path}: found guides only, expected scans beside them; narrow --guide '{guide}'.")
    return _with_guides(entries, root, guides, subject)


def named(entries: Sequence[Mapping[str, str]], root: Path) -> list[dict[str, str]]:
    """Entries with the "name" of their results: that of the file without extensions; where several are equal, after
    their folders.

    Args:
        entries: with "image".
        root: folder that the folders are named from.

    Returns:
        The entries. Those whose names are the same nonetheless, such as of a.nii and a.nii.gz, have a "problem".
    """
    images = [entry["image"] for entry in entries]
    stems = [case_stem(image) for image in images]
    of_stem = Counter(stems)
    of_name: dict[str, list[str]] = {}
    names = []
    for image, stem in zip(images, stems, strict=True):
        folders = Path(os.path.relpath(Path(image).parent, root)).parts if of_stem[stem] > 1 else ()
        names.append("_".join([*folders, stem]))
        of_name.setdefault(names[-1], []).append(image)
    result = []
    for entry, name in zip(entries, names, strict=True):
        others = ", ".join(image for image in of_name[name] if image != entry["image"])
        same = f"{entry['image']}: its result would have the same name, {name}, as of {others}; rename one of them."
        result.append({**({"problem": same} if others else {}), **entry, "name": name})
    return result


def is_result(path: str | os.PathLike) -> bool:
    """Whether a file's header says that it is a result of super-resolution."""
    try:
        return nib.load(path).header["descrip"].tobytes().startswith(b"super-resolved")
    except Exception:
        return False  # what is wrong with a file is said when it is loaded


def _scans(files: Sequence[Path]) -> list[str]:
    """Those that are no results, of which a printed line tells."""
    results = [file for file in files if is_result(file)]
    scans = [str(file) for file in files if file not in set(results)]
    if results and not scans:
        raise ValueError(
            f"{results[0]}{f' and {len(results) - 1} more' if len(results) > 1 else ''}: found results of "
            "super-resolution only, expected scans; there is nothing to do. Name scans."
        )
    if results:
        say(f"{len(results)} of {len(files)} files are results of super-resolution and are passed over: {results[0]}")
    return scans


def _is_nifti(path: str | os.PathLike) -> bool:
    return Path(path).name.lower().endswith((".nii", ".nii.gz"))


def _matching(root: Path, patterns: str | Sequence[str], option: str) -> list[str]:
    files = [path for path in find(root, patterns, option) if _is_nifti(path)]
    if not files:
        raise FileNotFoundError(f"no .nii or .nii.gz file matches --{option} '{patterns}' in {root}.")
    return files


def _guides(root: Path, guide: str | Sequence[str]) -> list[str]:
    """Paths of guides: relative to ``root`` where they match patterns, absolute where a file is named."""
    if isinstance(guide, str) and (path := Path(guide).expanduser()).is_file():
        return [str(path.absolute())]
    return [path for path in _matching(root, guide, "guide") if not is_result(root / path)]


def _with_guides(
    entries: Sequence[Mapping[str, str]], root: Path, guides: Sequence[str], subject: str | None
) -> list[dict[str, str]]:
    """Entries with the "guide" of each, or the "problem" with it."""
    scans = [os.path.relpath(entry["image"], root) for entry in entries]
    found = _paired(scans, guides, subject)
    found = [{**own, "guide": str(root / own["guide"])} if "guide" in own else own for own in found]
    return [{**entry, **own} for entry, own in zip(entries, found, strict=True)]


def _paired(scans: Sequence[str], guides: Sequence[str], subject: str | None) -> list[dict[str, str]]:
    """For each scan its "guide", or the "problem" with it."""
    if len(scans) == len(guides) == 1:
        labels = [found[0] for name in (*scans, *guides) if (found := SUBJECT.search(name))]
        if len(set(labels)) > 1:
            return [
                {
                    "problem": f"{scans[0]} is of {labels[0]} and the guide {guides[0]} of {labels[1]}, expected the "
                    "same person; name the guide of this scan."
                }
            ]
        return [{"guide": guides[0]}]
    of_subject: dict[str, list[str]] = {}
    for path in guides:
        of_subject.setdefault(subject_of(path, subject), []).append(path)
    subjects = [subject_of(path, subject) for path in scans]
    unused = [path for name, paths in of_subject.items() if name not in subjects for path in paths]
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        say(f"{len(unused)} of {len(guides)} guides have no scan and are not used: {', '.join(unused[:3])}{more}")
    found: list[dict[str, str]] = []
    for path, name in zip(scans, subjects, strict=True):
        own = of_subject.get(name, [])
        advice = "say with --subject, a regular expression, which part of a path is the subject."
        if len(own) == 1:
            found.append({"guide": own[0]})
        elif own:
            found.append(
                {"problem": f"{path}: {name} has several guides ({', '.join(own)}); narrow --guide, or {advice}"}
            )
        else:
            found.append({"problem": f"{path}: {name} has no guide; add it, use --guided false, or {advice}"})
    return found
