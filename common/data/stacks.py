"""The stacks of an exam, as the data of MONAI's datasets."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from .scans import Scans, name_all


class Stacks(Scans):
    """The stacks of an exam: each subfolder holds those of a contrast; without subfolders all are of one contrast.

    An entry is a contrast: its first stack as "image", its others as "stacks", lists of those of the other contrasts as
    "contrasts".

    Args:
        dataset_dir: folder of the exam.
    """

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The entries."""
        root = Path(str(self.dataset_dir)).expanduser()
        groups: dict[Path, list[str]] = {}
        for name in self.list_names(root):
            groups.setdefault((root / name).parent, []).append(str(root / name))
        entries: list[dict[str, Any]] = []
        for folder, (first, *stacks) in groups.items():
            others = [files for other, files in groups.items() if other != folder]
            entries.append({"image": first, "stacks": stacks, **({"contrasts": others} if others else {})})
        return name_all(entries, root)
