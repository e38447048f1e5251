"""Write tables, pictures and volumes of judgements, and a page of all."""

from __future__ import annotations

import base64
import csv
import html
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from ...io.writing import write_atomically
from ...program.files import find_written
from ...reports.files import align_columns, save_figure
from ...runtime.errors import get_message
from ...runtime.progress import track
from .assessment import Assessment, Judgement, Rows
from .inputs import ASSESSMENTS
from .person import Person

_FIRST = {
    "person": "of whom a line is; mean and SD (standard deviation) are over persons, each of whom counts once",
    "result": "the file, or what it is compared with",
    "method": "the same for all persons: result 1 is the first result of each",
}
_UNITS = {
    **dict.fromkeys(("psnr", "psnr_masked"), "dB"),
    **dict.fromkeys(("added", "restored", "scan_difference", "result_difference"), "%"),
    **{"shift": "mm", "turn": "degrees"},
}  # of columns whose name does not say it

_STYLE = (
    "body{font:15px sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}"
    "td:last-child{white-space:normal}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}"
    "img{max-width:100%}dt{font-weight:bold}"
)
_Lines = Sequence[Sequence[str]]


class JudgementWriter:
    """Judges persons, and writes what was found.

    The pictures and volumes of a person are written when all assessments are made, and rows are kept after that, so
    one that fails leaves none. Tables are written at the end.

    Args:
        output_dir: folder of all files.
        report: whether to write the page.
    """

    def __init__(self, output_dir: Path, report: bool) -> None:
        self.output_dir, self.report = output_dir, report
        self.rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self.pictures: dict[str, dict[str, Path]] = defaultdict(dict)

    def add_person(self, person: Person, assessments: Sequence[Assessment]) -> None:
        """Judge a person by all assessments."""
        methods = {volume.label: method for method, volume in person.methods.items()}
        found: list[Judgement] = [assessment.judge() for assessment in track(assessments)]
        for assessment, judgement in zip(assessments, found, strict=True):
            for name, figure in judgement.pictures.items():
                self._save(assessment.name, name, figure)
            for name, image in judgement.volumes.items():
                with write_atomically(self.output_dir / f"{name}.nii.gz") as temporary:
                    nib.save(image, temporary)
        for assessment, judgement in zip(assessments, found, strict=True):
            self.rows[assessment.name] += [
                {"person": person.name, "method": methods.get(row["result"], row["result"]), **row}
                for row in judgement.rows
            ]

    def write(self) -> None:
        """Write and print the tables, draw what is drawn over all persons, and write the page."""
        sections = []
        for assessment in ASSESSMENTS:
            if not (rows := self.rows.get(assessment.name)):
                continue
            try:
                figures = assessment.draw(rows)
            except Exception as error:  # whatever it is, the tables are kept
                warnings.warn(f"judge: no picture over all for {assessment.name} ({get_message(error)}).", stacklevel=2)
                figures = {}
            for name, figure in figures.items():
                self._save(assessment.name, name, figure)
            averages = [] if assessment.by is None else average_over_persons(rows, assessment.by)
            meanings = {**_FIRST, **assessment.columns}
            columns = [name for name in meanings if any(name in row for row in rows)]
            own, means = (
                [[_format_cell(row.get(name)) for name in columns] for row in each] for each in (rows, averages)
            )
            lines = [*own, *means]
            file = self.output_dir / f"{assessment.name}.csv"
            with write_atomically(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as text:
                csv.writer(text).writerows([columns, *lines])
            headings = [f"{name} ({_UNITS[name]})" if name in _UNITS else name for name in columns]
            print(f"\n{assessment.question}\n{align_columns([headings, *lines])}", flush=True)
            for name in columns:
                if name not in _FIRST:
                    print(textwrap.fill(f"{name}: {meanings[name]}", 120, subsequent_indent="  "))
            print(f"Wrote {file}", flush=True)
            meanings = {heading: meanings[name] for heading, name in zip(headings, columns, strict=True)}
            pictures = self.pictures[assessment.name]
            sections.append(_format_section(assessment.question, meanings, own, means, pictures))
        if self.report and sections:
            page = (
                f'<!doctype html><meta charset="utf-8"><title>judge</title><style>{_STYLE}</style>{"".join(sections)}'
            )
            with write_atomically(self.output_dir / "judge.html") as temporary:
                # File names may have bytes that are no text.
                temporary.write_text(page, encoding="utf-8", errors="replace")
            print(f"Wrote {self.output_dir / 'judge.html'}")

    def _save(self, table: str, name: str, figure: Figure) -> None:
        path = self.output_dir / f"{name}.png"
        save_figure(figure, path)
        self.pictures[table][name] = path
        print(f"Wrote {path}", flush=True)


def _format_cell(value: Any) -> str:
    """A number with four significant digits at most, an empty text for what is not known."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)


def average_over_persons(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> Rows:
    """The mean and the standard deviation over persons, by method and other columns; none for a single person.

    Several lines of one person are averaged first: one person is one unit.

    Args:
        rows: of a table, with the columns ``person`` and ``method``.
        by: other columns of which each value is apart, such as ``region``.

    Returns:
        Two lines for each: ``person`` is "mean of 8" and "SD of 8".
    """
    groups: dict[tuple, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[tuple(row.get(name) for name in ("method", *by))][row["person"]].append(row)
    averages: Rows = []
    for key, persons in groups.items():
        if len(persons) < 2:
            continue
        known = dict(zip(("method", *by), key, strict=True))
        first = next(iter(persons.values()))[0]
        numbers = [name for name, value in first.items() if isinstance(value, float) and name not in known]
        means, deviations = {}, {}
        for name in numbers:
            own = [np.mean([line.get(name, np.nan) for line in lines]) for lines in persons.values()]
            values = np.array([value for value in own if not np.isnan(value)])
            if len(values) > 1:
                means[name], deviations[name] = float(values.mean()), float(values.std(ddof=1))
        for word, found in (("mean", means), ("SD", deviations)):
            averages.append({"person": f"{word} of {len(persons)}", "result": known["method"], **known, **found})
    return averages


def _format_section(
    heading: str, meanings: Mapping[str, str], lines: _Lines, means: _Lines, pictures: Mapping[str, Path]
) -> str:
    """A section of the page, which needs no other file. Where there are means over persons, the lines are folded."""
    table = _format_table(meanings, lines)
    if means:
        table = f"{_format_table(meanings, means)}<details><summary>each person</summary>{table}</details>"
    explained = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in meanings.items())
    images = "".join(
        f'<h3>{html.escape(name)}</h3><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(find_written(file).read_bytes()).decode("ascii")}">'
        for name, file in pictures.items()
    )
    return (
        f"<h2>{html.escape(heading)}</h2>{table}<details><summary>columns</summary>"
        f"<dl>{explained}</dl></details>{images}"
    )


def _format_table(columns: Iterable[str], lines: _Lines) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"
