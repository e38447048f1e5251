"""The subject of a file, by its path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from ...io.naming import make_case_stem

SUBJECT = re.compile(r"sub-[a-z0-9]+", re.IGNORECASE)  # as BIDS labels it


def identify_subject(path: str, expression: str | None) -> str:
    """The subject of a file, by its path. Raises a ValueError if a given expression does not match."""
    if expression is None:
        match = SUBJECT.search(path)
        return match[0] if match else make_case_stem(path)
    match = re.search(expression, path)
    if not match:
        raise ValueError(f"--subject '{expression}' does not match {path}; it has to match every path.")
    return match[1] if match.re.groups else match[0]


def check_no_duplicates(files: Mapping[str, Sequence[str]]) -> None:
    """Refuse, with a ValueError, a file that was found for two options."""
    for first, second in combinations(files, 2):
        both = sorted(set(files[first]) & set(files[second]))
        if both:
            raise ValueError(f"{both[0]} matches --{first} and --{second}; make the patterns exclusive.")
