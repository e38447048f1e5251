"""``Case``: a scan on its way from its file to its result."""

from __future__ import annotations

import os
import re
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...geometry.affines import find_slice_permutation
from ...io.files import get_sidecar_path
from ...io.images import open_image, open_image_or_none
from ...io.naming import format_case, make_case_stem
from ...io.read import check_affine, check_length
from ...io.slice_axis import read_slice_axis
from ...runtime.errors import Contradiction, Notice, get_first_line
from ...transforms.scan.load import check_volume
from ..files import HeldFiles, lock_path
from .inputs import State, check_unchanged, describe_file, read_state
from .volumes import count_volumes


@dataclass(eq=False)
class Case(Mapping[str, Any]):
    """A scan, or the stacks of an exam, with its weights, and how it ended.

    As a mapping it is the entry of a data list that transforms read.

    Attributes:
        entry: "image", the file of the scan, and "name", that of its results; possibly "guide", "label_map", "stacks",
            further files of an exam, "contrasts", lists of the files of its other contrasts, "slice_axes", the axes
            that the user names by file, and "image_matrix", its acquired matrix. In evaluation "hr", "lr" and
            "subject".
        problem: why it cannot be done, or why it failed; else None.
        sources: what temporary files were made of, such as a DICOM series, by file.
        series: the DICOM series that become files, by file.
        inputs: descriptions of files that were converted, by file; see :func:`describe_file`.
        choice: the weights, a :class:`common.program.exams.ranking.Choice`; None if nothing is to be chosen.
        parts: the cases of an exam's stacks.
        warnings: texts of the warnings about it, each once.
        contradicts: whether one of them is a :class:`common.runtime.errors.Contradiction`.
        notices: likewise, of each :class:`common.runtime.errors.Notice`.
        result: path of the file from ``SaveVolumed``, or None.
        verdict: what the result is worth, in a sentence; None if that is not known.
        started: when its turn began, by ``time.perf_counter``; it may have been loaded ahead.
        ended: end of its handlers' work; 0 before.
        files: of its result, held back until all are written.
        existing: the path of its result, and what was there at the start; None where anything may be replaced.
    """

    entry: dict[str, Any]
    problem: str | None = None
    sources: dict[str, str] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    choice: Any = None
    parts: list[Case] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    contradicts: bool = False
    notices: list[str] = field(default_factory=list)
    result: str | None = None
    verdict: str | None = None
    started: float = 0.0
    ended: float = 0.0
    files: HeldFiles = field(default_factory=HeldFiles, init=False)
    existing: tuple[Path, State] | None = field(default=None, init=False)

    def __getitem__(self, key: str) -> Any:
        return self.entry[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entry)

    def __len__(self) -> int:
        return len(self.entry)

    @property
    def name(self) -> str:
        """The name of its results."""
        path = self.get("image") or self.get("hr") or self["lr"]
        return self.get("name") or make_case_stem(path, self.get("subject"))

    @property
    def images(self) -> list[str]:
        """The files of the scan, its guide, further stacks of its exam, and those of other contrasts."""
        further = [*self.get("stacks", ()), *(file for files in self.get("contrasts", ()) for file in files)]
        return [*(str(self[key]) for key in ("image", "guide") if key in self), *map(str, further)]

    @property
    def files_read(self) -> list[str]:
        """These images, and the label map."""
        return [*self.images, *([str(self["label_map"])] if "label_map" in self else [])]

    @property
    def source(self) -> str:
        """The scan's file, or what it was made of."""
        image = self.get("image", "")
        return self.sources.get(image, image)

    @property
    def volumes(self) -> int:
        """How many volumes its scan has, which are done one by one; 1 for an exam."""
        if "stacks" in self or "image" not in self:
            return 1
        series = self.series.get(self["image"])
        return count_volumes(self["image"]) if series is None else series.volumes

    @property
    def failure(self) -> str:
        """Its problem, with its source before it, for a list of failures."""
        source, reason = self.source or format_case(self), self.hide_temporary_files(str(self.problem))
        return reason if reason.startswith(f"{source}:") else f"{source}: {reason}"

    @property
    def seconds(self) -> float:
        """Duration of its turn, until now if it has not ended; 0 if it has not begun."""
        return (self.ended or time.perf_counter()) - self.started if self.started else 0.0

    @contextmanager
    def catch_problem(self) -> Iterator[None]:
        """Make an error its problem, so that other cases go on."""
        try:
            yield
        except Exception as error:
            self.problem = self.hide_temporary_files(get_first_line(error))

    def check_files(self, whole: bool) -> None:
        """Make damage of its files its problem; those of a DICOM series are checked once they are converted.

        Args:
            whole: whether to read the files, which finds all damage, and voxels that are no image.
        """
        with self.catch_problem(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when it is loaded
            for file in self.images:
                if file in self.series and not os.path.exists(file):
                    continue
                if whole and self.volumes == 1:
                    check_volume({"image": file})
                else:
                    check_length(file, whole)

    def move_files(self) -> None:
        """Move the files of its result to where they belong, unless another run has written there."""
        if self.existing is None:
            return self.files.move()
        path, seen = self.existing
        with lock_path(path):
            check_unchanged(path, seen, self.files.files.get(get_sidecar_path(path)) or path)
            self.files.move()
            self.existing = path, read_state(path)

    def hide_temporary_files(self, message: str) -> str:
        """Replace temporary files in a warning or reason by what they were made of; that of a scan by its name.

        All files of an exam are replaced by the names of :meth:`name_files`, so that each stack has one name.

        Args:
            message: the text.
        """
        names = {file: self.name if file == self.get("image") else source for file, source in self.sources.items()}
        names = self.name_files() if "stacks" in self else names
        pattern = "|".join(re.escape(file) for file in sorted(names, key=len, reverse=True))
        return re.sub(pattern, lambda match: names[match[0]], message) if pattern else message

    def name_files(self) -> dict[str, str]:
        """Names for its files and what they were made of, by path, that no folder is part of; equal ones are counted.

        A DICOM series has the number and description of the series as its name, as results have.
        """
        names: dict[str, str] = {}
        for file in dict.fromkeys(self.files_read):
            source = self.sources.get(file, file)
            is_series = file in self.series or "SeriesInstanceUID" in self.inputs.get(file, {})
            name = make_case_stem(file) if is_series else Path(source).name
            if count := sum(other == name or other.startswith(f"{name} (") for other in {*names.values()}):
                name = f"{name} ({count + 1})"
            names |= dict.fromkeys((file, source, os.path.abspath(source), os.path.realpath(source)), name)
        return names

    def add_warning(self, message: Warning | str, category: type[Warning]) -> None:
        """Add a warning or notice, if it is new.

        Args:
            message: the text.
            category: :class:`common.runtime.errors.Notice` for a notice.
        """
        self.contradicts |= issubclass(category, Contradiction)
        texts = self.notices if issubclass(category, Notice) else self.warnings
        if (text := self.hide_temporary_files(str(message))) not in texts:
            texts.append(text)

    def list_warnings(self) -> list[tuple[str, str]]:
        """All warnings, then all notices: "warning" or "notice", and the text."""
        return [*(("warning", text) for text in self.warnings), *(("notice", text) for text in self.notices)]

    def strip_name(self, message: str) -> str:
        """Remove the case's file or name from the beginning of a warning or reason; of several stacks its name only."""
        names = [] if self.get("stacks") else [*self.values(), self.source]
        names += [self.name_files()[self["image"]]] if self.get("stacks") == [] else []
        for name in (*names, self.name):
            message = message.removeprefix(f"{name}: ")
        return message

    def shorten(self, message: str) -> str:
        """The first clause of a warning or reason, without the case's name, for one line."""
        clause = re.split(r";\s|\.\s|\n", self.strip_name(message))[0]
        return textwrap.shorten(clause.rstrip("."), 140, placeholder=" ...")

    def open_scan(self) -> Any:
        """Open its scan without reading the voxels; None if that fails."""
        series = self.series.get(self["image"])
        return open_image_or_none(self["image"]) if series is None else series.open()

    def read_grid(self, file: str | None = None) -> tuple[np.ndarray, tuple[int, ...]]:
        """Read the affine and the shape of its scan, or of another stack."""
        file = file or self["image"]
        if file in self.series:
            return self.series[file].affine, self.series[file].shape[:3]
        image = open_image(file)
        check_affine(file, image.affine)
        return image.affine, image.shape[:3]

    def find_slice_axis(self, file: str | None = None) -> int | None:
        """The stored axis across the slices of its scan, or of another stack; None if nothing names it.

        The user decides, then DICOM, whose slices lie along the last axis, then the file.
        """
        file = file or self["image"]
        if (axis := self.get("slice_axes", {}).get(file, "auto")) != "auto":
            return find_slice_permutation(self.read_grid(file)[0], axis)[2]
        return 2 if file in self.series else read_slice_axis(file)

    def describe_inputs(self) -> list[dict[str, Any]]:
        """Describe the scan, its guide, stacks and label map, see :func:`describe_file`; those of an exam by names."""
        described = [self.inputs.get(file) or describe_file(file) for file in self.files_read]
        if "stacks" not in self:
            return described
        names = self.name_files()
        return [{"Name": names[file], **each} for file, each in zip(self.files_read, described, strict=True)]

    def summarise(self) -> str:
        """One line that says how it ended, with its warnings in short."""
        duration = f"{self.seconds:.1f} s"
        if self.problem is not None:
            return f"{self.name}: failed after {duration}: {self.shorten(self.problem)}"
        is_part = self.result is None or ".part-" in self.result  # of a 4-D scan, which is joined elsewhere
        result = f"{self.name}, {duration}" if is_part else f"{self.name} -> {self.result}, {duration}"
        result += f": {self.verdict}" if self.verdict else ""
        return "; ".join([result, *(f"warning: {self.shorten(text)}" for text in self.warnings)])
