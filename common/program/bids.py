"""The names and the datasets of BIDS: what its own schema, a dataset's description and its .bidsignore say."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..io.files import decode_text, list_files, read_json_object

DESCRIPTION = "dataset_description.json"
_NO_RAW = ("derivatives/", "sourcedata/", "code/")
_LEVELS = ("participant", "group")  # of the analysis of a BIDS App


@functools.cache
def _load_schema() -> Any:
    from bidsschematools.schema import load_schema  # takes time, and most commands need no schema

    return load_schema()


@functools.cache
def list_suffixes(datatype: str) -> list[str]:
    """The suffixes of images of a datatype, such as "anat", in raw datasets."""
    rules = [rule for group in _load_schema().rules.files.raw.values() for rule in group.values()]
    rules = [rule for rule in rules if datatype in rule.datatypes and ".nii.gz" in rule.extensions]
    return list(dict.fromkeys(suffix for rule in rules for suffix in rule.suffixes))


@functools.cache
def list_datatypes(suffix: str) -> list[str]:
    """The datatypes that have images with a suffix in raw datasets; none if BIDS does not know it."""
    return [datatype for datatype in _load_schema().objects.datatypes if suffix in list_suffixes(datatype)]


@functools.cache
def list_keys(suffix: str | None = None) -> list[str]:
    """Keys of entities such as "sub", in their order in names.

    Args:
        suffix: of a derived anatomical image, whose keys are wanted; None for all such images.
    """
    schema = _load_schema()
    rules = [rule for rule in schema.rules.files.deriv.imaging.values() if "anat" in rule.datatypes]
    known = {entity for rule in rules if suffix in (None, *rule.suffixes) for entity in rule.entities}
    return [schema.objects.entities[entity].name for entity in schema.rules.entities if entity in known]


def split_name(name: str) -> tuple[dict[str, str], str] | None:
    """The entities of a name without its ending, by key, and its suffix; None if it is no name of BIDS."""
    *parts, suffix = name.split("_")
    label = _load_schema().objects.formats.label.pattern
    entities = dict(part.split("-", 1) for part in parts if re.fullmatch(f"[a-z]+-{label}", part))
    fits = len(entities) == len(parts) and "sub" in entities and entities.keys() <= {*list_keys()}
    return (entities, suffix) if fits else None


def find_other_datatype(path: str | os.PathLike, name: str) -> str | None:
    """The datatype of an image that is not anatomical by its name; None for an anatomical one, and other names.

    Args:
        path: of the image; its folder decides if a suffix is of several datatypes, or of none.
        name: its name without the ending.
    """
    folder, suffix = Path(os.path.abspath(path)).parent.name, name.rpartition("_")[2]
    datatypes, known = list_datatypes(suffix), _load_schema().objects.datatypes
    if not datatypes:
        is_wrong = not suffix.isalnum() or suffix.lower() in map(str.lower, list_suffixes("anat"))
        datatypes = ["anat" if is_wrong and folder not in known else folder]
    if not name.startswith("sub-") or "anat" in datatypes:
        return None
    return folder if folder in datatypes else " or ".join(datatypes)


def find_dataset(path: str | os.PathLike) -> Path | None:
    """The BIDS dataset of a file: the nearest folder above it with a dataset_description.json."""
    return next((folder for folder in Path(os.path.abspath(path)).parents if (folder / DESCRIPTION).is_file()), None)


def read_app_words(
    words: Sequence[str], output: str | None, participants: Sequence[str] | None, sessions: Sequence[str] | None
) -> tuple[str, str, list[Path]] | None:
    """The dataset, the output and the folders that the command line of a BIDS App means: BIDS_DIR OUTPUT participant.

    Args:
        words: without options; the level may be left out where labels are given.
        output: if it is not among the words.
        participants, sessions: as for :func:`choose_folders`.

    Returns:
        The dataset, the output, and the folders of :func:`choose_folders`; None for other command lines.

    Raises:
        ValueError: for another level or other words, and as :func:`choose_folders`.
    """
    count = 1 if output else 2
    has_level = len(words) == count + 1 and words[-1] in _LEVELS and not os.path.exists(words[-1])
    if participants is None and sessions is None and not (has_level and os.path.isdir(words[0])):
        return None
    if has_level and words[-1] != _LEVELS[0]:
        raise ValueError(f"{words[-1]}: there is no such level, as {_LEVELS[0]} makes complete results; name that.")
    if len(words) != count + has_level:
        raise ValueError(f"found {' '.join(words)}; expected BIDS_DIR OUTPUT {_LEVELS[0]}, for labels of a dataset.")
    return words[0], output or words[1], choose_folders(Path(words[0]).expanduser(), participants, sessions)


def choose_folders(dataset: Path, participants: Sequence[str] | None, sessions: Sequence[str] | None) -> list[Path]:
    """The folders of participants and sessions of a BIDS dataset.

    Args:
        dataset: its folder.
        participants, sessions: labels, with or without ``sub-`` and ``ses-``; None for all.

    Returns:
        The folders with these labels; the dataset itself for all.

    Raises:
        ValueError: when it is no dataset, or a label is not there, with those that are.
    """
    if not (dataset / DESCRIPTION).is_file():
        raise ValueError(f"{dataset} is no BIDS dataset; it has no {DESCRIPTION}. Name scans or folders alone.")
    folders = [dataset]
    for option, key, labels in (("participant_label", "sub", participants), ("session_label", "ses", sessions)):
        if labels is None and not (key == "sub" and sessions is not None):
            continue
        known = [path for folder in folders for path in sorted(folder.glob(f"{key}-*")) if path.is_dir()]
        names = sorted({path.name.removeprefix(f"{key}-") for path in known})
        wanted = names if labels is None else [str(label).strip().removeprefix(f"{key}-") for label in labels]
        if absent := [label for label in wanted if label not in names]:
            raise ValueError(
                f"--{option} {', '.join(absent)}: not in {dataset}, which has {', '.join(names) or 'none'}."
            )
        folders = [path for path in known if path.name.removeprefix(f"{key}-") in wanted]
    return folders


def list_raw_files(root: Path, folders: Sequence[Path] = ()) -> tuple[list[str], list[str]]:
    """The files of a folder as of :func:`list_files`, of a BIDS dataset the raw ones only.

    Left out are derivatives/, sourcedata/, code/, derivative datasets, and what .bidsignore names; but not what is in a
    folder that is one of these itself.

    Args:
        root: the folder.
        folders: those in it of which files are wanted, such as of :func:`choose_folders`; none for all.

    Returns:
        Paths relative to the folder, and those of the files and folders that are left out, the latter with a slash.
    """
    base = Path(os.path.abspath(root))
    find = functools.cache(lambda folder: find_dataset(folder / "_"))
    read = functools.cache(_read_ignored)
    left_out: list[str] = []

    def find_excluding(path: Path, slash: str) -> Path | None:
        """The dataset that a path, of a folder with a slash, lies in without being one of its raw data."""
        if (dataset := find(path.parent)) is None:
            return None
        name = path.relative_to(dataset).as_posix() + slash
        is_derivative = slash and read_json_object(path / DESCRIPTION)[0].get("DatasetType") == "derivative"
        return dataset if name in _NO_RAW or is_derivative or read(dataset).match_file(name) else None

    wanted = {find_excluding(folder, "/") for folder in (base, *base.parents[:-1])}  # what holds the folder itself

    selected = {Path(os.path.abspath(folder)) for folder in folders}
    around = {parent for folder in selected for parent in folder.parents}

    def leave_out(path: str) -> bool:
        if selected and base / path not in around and selected.isdisjoint({base / path, *(base / path).parents}):
            return True
        found = find_excluding(base / path, "/" * path.endswith("/")) not in {None, *wanted}
        left_out.extend([path] * found)
        return found

    return list_files(root, leave_out=leave_out), left_out


def _read_ignored(dataset: Path) -> Any:
    """The patterns of a dataset's .bidsignore, which are those of .gitignore."""
    from pathspec import GitIgnoreSpec

    path = dataset / ".bidsignore"
    return GitIgnoreSpec.from_lines(decode_text(path.read_bytes()).splitlines() if path.is_file() else ())
