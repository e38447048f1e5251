"""Scans with their guides, as the data of MONAI's datasets."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from ..io.files import find_files
from .lists.subjects import identify_subject
from .scans import Scans, name_all


class GuidedScans(Scans):
    """Scans, each with the "guide" of its subject.

    Args:
        dataset_dir: folder.
        lr: glob patterns of the scans' files, separated by commas; ``**`` goes into subfolders.
        guide: those of the guides' files.
        guided: whether there are guides; if not, ``guide`` is ignored.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.

    Raises:
        FileNotFoundError, ValueError: when a pattern matches nothing, or a scan has not one guide.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike | None,
        lr: str,
        guide: str,
        guided: bool = True,
        subject: str | None = None,
    ) -> None:
        super().__init__(dataset_dir)
        self.lr, self.guide, self.guided, self.subject = lr, guide, guided, subject

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The entries."""
        root = Path(str(self.dataset_dir)).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"dataset_dir '{root}' is no folder, expected one with scans and guides.")
        scans = find_files(root, self.lr, "lr")
        entries: list[dict[str, Any]] = [{"image": str(root / scan)} for scan in scans]
        guides = find_files(root, self.guide, "guide") if self.guided else []
        for scan, entry in zip(scans, entries, strict=True) if self.guided else ():
            name = identify_subject(scan, self.subject)
            same = [guide for guide in guides if guide != scan and identify_subject(guide, self.subject) == name]
            if len(same) != 1:
                raise ValueError(
                    f"{scan}: {name} has {len(same)} guides{': ' * bool(same)}{', '.join(same)}, expected one; narrow "
                    "--guide, use --guided False, or give a regular expression for the subject in a path, --subject."
                )
            entry["guide"] = str(root / same[0])
        return name_all(entries, root)
