"""What is found about a result, and the parts that find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from nibabel.spatialimages import SpatialImage

from .person import Person

Rows = list[dict[str, Any]]


@dataclass
class Judgement:
    """What a part found about one person; nothing is written yet.

    Attributes:
        rows: of the part's table; keys are columns.
        pictures: by file name without ending.
        volumes: NIfTI images, likewise.
    """

    rows: Rows
    pictures: dict[str, Figure] = field(default_factory=dict)
    volumes: dict[str, SpatialImage] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question that ``judge`` answers.

    Attributes:
        name: of its table, ``<name>.csv``.
        question: in a sentence, for the page.
        columns: what each column means, with its unit. ``person``, ``result`` and ``method`` come first in every
            table.
        is_asked: whether the files of a person are there for it.
        judge: answers it for a person.
        draw: pictures over all persons, from all rows; None for none.
        by: columns that divide a person's rows, such as ``region``; means over persons are for each value. None
            for no means.
    """

    name: str
    question: str
    columns: Mapping[str, str]
    is_asked: Callable[[Person], bool]
    judge: Callable[[Person], Judgement]
    draw: Callable[[Sequence[Mapping[str, Any]]], dict[str, Figure]] | None = None
    by: Sequence[str] | None = ()
