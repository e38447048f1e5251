"""Write tables, pictures and volumes of judgements."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
from matplotlib.figure import Figure

from ..io.writing import write_atomically
from ..reports.files import align_columns, save_figure
from ..reports.judgement import write_page
from ..runtime.progress import track
from . import PARTS
from .averages import average_over_persons
from .judgement import Judgement, Part
from .person import Person

_FIRST = {
    "person": "of whom a line is; mean and SD (standard deviation) are over persons, each of whom counts once",
    "result": "the file, or what it is compared with",
    "method": "the same for all persons: result 1 is the first result of each",
}


class JudgementWriter:
    """Judges persons, and writes what was found.

    The pictures and volumes of a person are written when all parts have judged the person, so one that fails leaves
    nothing. Tables are written at the end.

    Args:
        output_dir: folder of all files.
        report: whether to write the page.
    """

    def __init__(self, output_dir: Path, report: bool) -> None:
        self.output_dir, self.report = output_dir, report
        self.rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self.pictures: dict[str, dict[str, Path]] = defaultdict(dict)

    def add(self, person: Person) -> None:
        """Judge a person by all parts that the files are there for.

        Raises:
            ValueError: when the files are there for no part, or a part cannot judge them.
        """
        asked = [part for part in PARTS if part.is_asked(person)]
        if not asked:
            raise ValueError(
                f"judge: there is nothing to compare {person.results[0].name} with; give --left_out, --repeated, "
                "--scan or --hr."
            )
        found: dict[str, Judgement] = {part.name: part.judge(person) for part in track(asked)}
        for part in asked:
            judgement = found[part.name]
            methods = {volume.label: method for method, volume in person.methods.items()}
            self.rows[part.name] += [
                {"person": person.name, "method": methods.get(row["result"], row["result"]), **row}
                for row in judgement.rows
            ]
            for name, figure in judgement.pictures.items():
                self._save(part, name, figure)
            for name, image in judgement.volumes.items():
                with write_atomically(self.output_dir / f"{name}.nii.gz") as temporary:
                    nib.save(image, temporary)

    def write(self) -> None:
        """Write and print the tables, draw what is drawn over all persons, and write the page."""
        sections = []
        for part in PARTS:
            if not (rows := self.rows.get(part.name)):
                continue
            for name, figure in (part.draw(rows) if part.draw else {}).items():
                self._save(part, name, figure)
            averages = [] if part.by is None else average_over_persons(rows, part.by)
            meanings = {**_FIRST, **part.columns}
            columns = [name for name in meanings if any(name in row for row in rows)]
            own, means = (
                [[_format_cell(row.get(name)) for name in columns] for row in each] for each in (rows, averages)
            )
            lines = [columns, *own, *means]
            file = self.output_dir / f"{part.name}.csv"
            with write_atomically(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as text:
                csv.writer(text).writerows(lines)
            print(f"\n{part.question}\n{align_columns(lines)}\nWrote {file}", flush=True)
            sections.append((part.question, meanings, columns, own, means, self.pictures[part.name]))
        if self.report and sections:
            write_page(self.output_dir / "judge.html", sections)
            print(f"Wrote {self.output_dir / 'judge.html'}")

    def _save(self, part: Part, name: str, figure: Figure) -> None:
        path = self.output_dir / f"{name}.png"
        save_figure(figure, path)
        self.pictures[part.name][name] = path
        print(f"Wrote {path}", flush=True)


def _format_cell(value: Any) -> str:
    """A number with four significant digits at most, an empty text for what is not known."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)
