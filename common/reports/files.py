"""Write figures whole or not at all, and tables as text."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.figure import Figure

from ..io.writing import write_atomically


def escape_text(name: str) -> str:
    """The text that a figure shows as this name of a file: matplotlib reads what stands between two $ as a formula."""
    return name.encode(errors="backslashreplace").decode().replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG. It is made without pyplot, so that no display is needed and no figure stays open."""
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Format a table: columns as wide as their widest cell, the first aligned left, a rule below the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
