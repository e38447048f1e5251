"""A page of what was found about results: tables with what their columns mean, and pictures."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..io.writing import find_written, write_atomically

_STYLE = (
    "body{font:15px sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}"
    "img{max-width:100%}dt{font-weight:bold}"
)
Lines = Sequence[Sequence[str]]
Section = tuple[str, Mapping[str, str], Sequence[str], Lines, Lines, Mapping[str, Path]]


def write_page(path: str | os.PathLike, sections: Iterable[Section]) -> None:
    """Write an HTML file that needs no network and no other file.

    Args:
        path: the file to write.
        sections: of each its heading, what columns mean by their names, the names of the columns, the lines, those of
            means over persons, and pictures by name. Where there are means, the others are folded.
    """
    parts = []
    for heading, meanings, columns, lines, means, pictures in sections:
        table = _format_table(columns, lines)
        if means:
            table = f"{_format_table(columns, means)}<details><summary>each person</summary>{table}</details>"
        explained = "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(meanings[name])}</dd>"
            for name in columns
            if name in meanings
        )
        images = "".join(
            f'<h3>{html.escape(name)}</h3><img alt="{html.escape(name)}" '
            f'src="data:image/png;base64,{base64.b64encode(find_written(file).read_bytes()).decode("ascii")}">'
            for name, file in pictures.items()
        )
        parts.append(
            f"<h2>{html.escape(heading)}</h2>{table}<details><summary>columns</summary>"
            f"<dl>{explained}</dl></details>{images}"
        )
    page = f'<!doctype html><meta charset="utf-8"><title>judge</title><style>{_STYLE}</style>{"".join(parts)}'
    with write_atomically(path) as temporary:
        # File names may have bytes that are no text.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _format_table(columns: Sequence[str], lines: Lines) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"
