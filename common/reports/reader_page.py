"""One HTML file on which people rate pairs of pictures, blinded; it needs no network and no other file."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from ..io.writing import write_atomically

_TEMPLATE = Path(__file__).with_suffix(".html")
_PREFERENCE = ("left, clearly", "left", "same", "right", "right, clearly")


@dataclass(frozen=True)
class Question:
    """What is asked about each pair.

    Attributes:
        name: in the file of ratings.
        text: for the reader.
        answers: in the order of their keys, from 1.
        is_ordinal: whether answers go from left to right in steps, the same in the middle.
    """

    name: str
    text: str
    answers: tuple[str, ...]
    is_ordinal: bool


QUESTIONS = (
    Question("sharper", "Which is sharper?", _PREFERENCE, True),
    Question("preferred", "Which would you rather read?", _PREFERENCE, True),
    Question("wrong", "Do you see a structure that is wrong?", ("none", "left", "right", "both"), False),
)


@dataclass(frozen=True)
class Picture:
    """A plane as PNG, base64, and its width over its height in mm."""

    png: str
    ratio: float


@dataclass(frozen=True)
class Pair:
    """Two pictures of one plane, by their numbers in the page; ``pair`` is its number in the order of display."""

    pair: int
    plane: str
    left: int
    right: int


def encode_picture(plane: np.ndarray, spacing: Sequence[float], window: tuple[float, float]) -> Picture:
    """A plane as a picture, anterior or superior up, the patient's right (or front) on the left.

    Args:
        plane: array of shape (columns, rows): two of the axes R, A, S in their order.
        spacing: mm per voxel of both.
        window: values that become black and white.
    """
    stream = io.BytesIO()
    imsave(stream, plane[::-1, ::-1].T, cmap="gray", vmin=window[0], vmax=window[1], format="png")
    ratio = plane.shape[0] * spacing[0] / (plane.shape[1] * spacing[1])
    return Picture(base64.b64encode(stream.getvalue()).decode("ascii"), round(float(ratio), 5))


def write_reader_page(path: str | os.PathLike, study: str, pairs: Sequence[Pair], pictures: Sequence[Picture]) -> None:
    """Write the page.

    Args:
        path: the file to write.
        study: a text that stands in the file of ratings, so that ratings are matched with their key.
        pairs: in the order of display.
        pictures: that they name.
    """
    content = {
        "study": study,
        "questions": [asdict(question) for question in QUESTIONS],
        "pairs": [asdict(pair) for pair in pairs],
        "pictures": [asdict(picture) for picture in pictures],
    }
    page = _TEMPLATE.read_text(encoding="utf-8").replace("{{study}}", json.dumps(content).replace("<", "\\u003c"))
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
