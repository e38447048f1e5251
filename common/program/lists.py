"""Read the lists that people write, as spreadsheets and editors store them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.files import decode_text

_SEPARATORS = ",;\t"
_BLANKS = r"[\s\ufeff\u200b]+"  # those of other programs too
_CONTROL = r"[\x00-\x1f\x7f]"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes of .xlsx and .ods, and of .xls
_SHOWN = 20  # problems in a message


@dataclass(frozen=True)
class Line:
    """A line of a list.

    Attributes:
        number: in the file, from 1.
        cells: texts by column, without those that are empty.
    """

    number: int
    cells: dict[str, str]


def read_list(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    find_problems: Callable[[dict[str, str]], Iterable[str]] = lambda cells: (),
) -> list[Line]:
    """Read a list with a header line, and check all of it.

    Commas, semicolons or tabs separate the cells; the header tells which. The text is UTF-8, UTF-16 or Windows-1252.
    Capitals and blanks of the header, blanks around cells, and lines without any text do not matter.

    Args:
        path: the file.
        required: columns that must be there, and filled in each line.
        optional: further columns that may be there.
        find_problems: says what is wrong with the cells of a line.

    Returns:
        The lines after the header, at least one.

    Raises:
        ValueError: names the file, and each line and column with a problem.
    """
    data = path.read_bytes()
    if data.startswith(_WORKBOOKS):
        raise ValueError(f"{path} is a workbook, expected text; save it as CSV.")
    separator, rows = _split_rows(path, decode_text(data), {*required, *optional})
    if not rows:
        raise ValueError(f"{path} is empty; expected a header with the columns {', '.join(required)}.")
    (first, header), *rows = rows
    columns = [*map(_name_column, header)]
    counts = Counter(filter(None, columns))
    problems = [f"it has no column {name}" for name in required if name not in counts]
    problems += [f"{name} is no column of it" for name in counts if name not in {*required, *optional}]
    problems += [f"the column {name} is there {count} times" for name, count in counts.items() if count > 1]
    if missing := {*required} - {*columns}:
        for number, row in rows:
            if missing <= {*map(_name_column, row)}:
                raise ValueError(
                    f"{path}, line {first}: the header, line {number}, must come first; take out what is above it."
                )
    if problems:
        known = f" and any of {', '.join(optional)}" if optional else ""
        raise ValueError(
            f"{path}, line {first}: {'; '.join(problems)}. Expected the columns {', '.join(required)}{known}."
        )
    if not rows:
        raise ValueError(f"{path} has only the header, line {first}; expected lines below it.")
    lines = []
    for number, row in rows:
        named = [*zip(columns, row, strict=False)]
        beyond = any(row[len(columns) :]) or any(cell for name, cell in named if not name)
        line = Line(number, {name: cell for name, cell in named if name and cell})
        lines.append(line)
        if beyond:
            found = [
                f"found {len(row)} cells, expected one for each of {len(counts)} columns; a path with a "
                f"{_name_separator(separator)} in it needs quotes around it"
            ]
        else:
            found = [f"{name} is empty" for name in required if name not in line.cells]
            broken = [name for name, cell in line.cells.items() if "\n" in cell]
            found += [f"{name} goes over several lines; close the quotes where its text ends" for name in broken]
            odd = [name for name, cell in line.cells.items() if name not in broken and re.search(_CONTROL, cell)]
            found += [f"{name} has a control character, {line.cells[name]!r}; take it out" for name in odd]
        problems += [f"line {number}: {problem}" for problem in found or find_problems(line.cells)]
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        listing = "\n  ".join([*problems[:_SHOWN], *more])
        raise ValueError(f"{path} cannot be used; mend it:\n  {listing}")
    return lines


def _split_rows(path: Path, text: str, known: set[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator of the cells, and the rows that hold some text: each its first line's number, and its cells."""
    text = io.StringIO(text, newline=None).read()  # all kinds of ends of lines become one
    said = re.match(r'\ufeff?"?sep=(.)"?\n', text)  # by Excel
    first = [line for line in text.split("\n")[:_SHOWN] if _has_text([line])]

    def count_known(separator: str) -> int:
        return max((len(known & {*map(_name_column, line.split(separator))}) for line in first), default=0)

    separator = said[1] if said else max(_SEPARATORS, key=count_known)
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    rows, last = [], 0
    try:
        for row in reader:
            if _has_text(row) and not (said and last == 0):
                rows.append((last + 1, [*map(_strip, row)]))
            last = reader.line_num
    except csv.Error as error:
        raise ValueError(f"{path}, line {last + 1}: {error}; check its quotes.") from None
    return separator, rows


def _has_text(cells: Iterable[str]) -> bool:
    """Whether cells hold more than blanks, separators and quotes."""
    return bool(re.sub(rf'{_BLANKS}|["{_SEPARATORS}]', "", "".join(cells)))


def _strip(cell: str) -> str:
    return re.sub(rf"^{_BLANKS}|{_BLANKS}$", "", cell)


def _name_column(cell: str) -> str:
    return re.sub(rf"({_BLANKS}|-)+", "_", _strip(cell).strip('"').lower())


def _name_separator(separator: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(separator, separator)
