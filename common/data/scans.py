"""The scans of a folder, as the data of MONAI's datasets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..io.files import list_files
from ..io.formats import EXTENSIONS, get_extension
from ..io.naming import make_case_stem


class Scans(Sequence):
    """The scans of a folder and its subfolders, in the order of their paths, or one file.

    Each entry has "image", and "name" for its result: that of the file, preceded by its folders if names are equal.
    The folder is read when it is first asked for. Without one MONAI can build a config, and reading an entry fails.

    Args:
        dataset_dir: file or folder; hidden files and other formats are left out.

    Raises:
        FileNotFoundError: when there is no such file or folder, or no scan in it.
    """

    def __init__(self, dataset_dir: str | os.PathLike | None) -> None:
        self.dataset_dir = dataset_dir

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The entries."""
        root = Path(str(self.dataset_dir)).expanduser()
        files = [root] if root.is_file() else [root / name for name in self.list_names(root)]
        return name_all([{"image": str(file)} for file in files], root)

    def list_names(self, root: Path) -> list[str]:
        names = [name for name in list_files(root) if get_extension(name)] if root.is_dir() else []
        # Of a pair of files the header stands for both.
        names = [name for name in names if not (name.endswith(".img") and name[:-4] + ".hdr" in names)]
        if not names:
            what = "holds no scan" if root.is_dir() else "is no folder"
            raise FileNotFoundError(f"dataset_dir '{root}' {what}; expected {', '.join(EXTENSIONS)}.")
        return names

    def __len__(self) -> int:
        return 1 if self.dataset_dir is None else len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        if self.dataset_dir is None:
            raise ValueError("dataset_dir is null, expected a folder of scans or one scan: give --dataset_dir.")
        return self.entries[index]


def name_entries(entries: Sequence[dict[str, Any]], root: Path) -> None:
    """Give each entry the "name" of its result: its file's without extensions, preceded by its folders if names are
    equal.

    Args:
        entries: with "image".
        root: folder that the folders are relative to.
    """
    stems = Counter(make_case_stem(entry["image"]) for entry in entries)
    for entry in entries:
        stem = make_case_stem(entry["image"])
        folders = Path(os.path.relpath(Path(entry["image"]).parent, root)).parts if stems[stem] > 1 else ()
        entry["name"] = "_".join([*folders, stem])


def name_all(entries: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Name the results; refuse equal names, as of a.nii and a.nii.gz."""
    name_entries(entries, root)
    images: dict[str, str] = {}
    for entry in entries:
        if (other := images.setdefault(entry["name"], entry["image"])) != entry["image"]:
            raise ValueError(f"{entry['image']}: its result would have the same name as that of {other}; rename one.")
    return entries
