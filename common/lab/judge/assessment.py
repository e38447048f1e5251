"""What an assessment about results is, and what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from matplotlib.figure import Figure
from nibabel.spatialimages import SpatialImage

from .person import Person

Rows = list[dict[str, Any]]


@dataclass
class Judgement:
    """What was found about one person; nothing is written yet.

    Attributes:
        rows: of the assessment's table; keys are columns.
        pictures: by file name without ending.
        volumes: NIfTI images, likewise.
    """

    rows: Rows
    pictures: dict[str, Figure] = field(default_factory=dict)
    volumes: dict[str, SpatialImage] = field(default_factory=dict)


class Assessment(Protocol):
    """An assessment about the results of one person.

    Attributes:
        name: of its table, ``<name>.csv``.
        question: that it answers, for the page.
        columns: what each column means, with its unit. ``person``, ``result`` and ``method`` come first in every
            table.
        asked_by: options of ``judge``, any of which asks it.
        by: columns that divide a person's rows, such as ``region``; means over persons are for each value. None
            for no means.
        person: of whom it is asked.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    columns: ClassVar[Mapping[str, str]]
    asked_by: ClassVar[Sequence[str]]
    by: ClassVar[Sequence[str] | None] = ()
    person: Person

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        """Take the files that the assessment needs from what was given by option, and check them."""
        self.person = person

    def judge(self) -> Judgement:
        """Answer it."""

    @staticmethod
    def draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Pictures over all persons, from all rows."""
        return {}
