"""A reader's page of blinded pairs, and its key."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import ceil
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes

from ..io.writing import write_atomically
from ..reports.planes import PLANES, find_foreground, to_ras
from ..reports.reader_page import Pair, Picture, encode_picture, write_reader_page
from .person import Person

_REPEATED = 0.2  # share of the pairs that come twice
_SAME_UNITS = 1.5  # largest ratio of the brightness of two volumes that one grey window shows


@dataclass(frozen=True)
class _Shown:
    """A line of the key: what a pair shows."""

    person: str
    plane: str
    millimetres: float
    left: str
    right: str
    left_file: str
    right_file: str
    repeats: int | None = None

    def swap(self, repeats: int | None = None) -> _Shown:
        """The same pair with its sides swapped."""
        swapped = replace(self, left=self.right, right=self.left, repeats=repeats)
        return replace(swapped, left_file=self.right_file, right_file=self.left_file)


_Entry = tuple[_Shown, Picture, Picture]  # what is shown, on the left, on the right


class ReaderPageWriter:
    """Collects pairs of planes of persons, and writes them as a page, ``readers.html``, and its key.

    Methods are the scan's cubic interpolation, if there is a scan, and the results. Each two of them are shown in six
    planes: in each direction the middle of the body, and where they differ most.

    Args:
        output_dir: folder of both files.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.pairs: list[_Entry] = []

    def add(self, person: Person) -> None:
        """Add the pairs of a person.

        Raises:
            ValueError: when there is only one method, or two have other grids or units.
        """
        methods = person.methods
        if len(methods) < 2:
            raise ValueError("judge: --readers compares two methods; name two results, or one and its --scan.")
        for first, second in combinations(methods, 2):
            self.pairs += _cut_pairs(person, first, second)

    def write(self) -> None:
        """Write page and key."""
        if not self.pairs:
            return
        study = hashlib.sha256("".join(a.png + b.png for _, a, b in self.pairs).encode()).hexdigest()[:12]
        rng = np.random.default_rng(int(study, 16))
        order = _shuffle(self.pairs, rng)
        pictures = list(dict.fromkeys(picture for _, *sides in order for picture in sides))
        pictures = [pictures[i] for i in rng.permutation(len(pictures))]  # else the left one would be the first
        number = {picture: i for i, picture in enumerate(pictures)}
        pairs = [Pair(i, s.plane, number[left], number[right]) for i, (s, left, right) in enumerate(order, 1)]
        page, key = self.output_dir / "readers.html", self.output_dir / "readers_key.csv"
        write_reader_page(page, study, pairs, pictures)
        with write_atomically(key) as temporary, temporary.open("w", newline="", encoding="utf-8") as table:
            lines = [{"study": study, "pair": i, **asdict(shown)} for i, (shown, _, _) in enumerate(order, 1)]
            writer = csv.DictWriter(table, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        count = len(self.pairs)
        print(f"Wrote {page}: {count} pairs, {len(order) - count} of them twice; give it to the readers.")
        print(f"Wrote {key}: which method is on which side; keep it. Then: judge --ratings FILE,FILE --key {key}")


def _shuffle(pairs: Sequence[_Entry], rng: np.random.Generator) -> list[_Entry]:
    """Shuffle pairs, and swap the sides of half of them. Some come again later, with their sides swapped."""
    count, half = len(pairs), ceil(len(pairs) / 2)
    order: list[_Entry] = []
    for index, is_swapped in zip(rng.permutation(count), rng.permutation(np.arange(count) % 2), strict=True):
        shown, left, right = pairs[index]
        order.append((shown.swap(), right, left) if is_swapped else (shown, left, right))
    # From the first half, at least half a page later. The last is inserted first, so that no number changes.
    again = rng.choice(half, min(ceil(_REPEATED * count), half), replace=False).tolist()
    for place, index in sorted(((int(rng.integers(i + half, count + 1)), i) for i in again), reverse=True):
        shown, left, right = order[index]
        order.insert(place, (shown.swap(repeats=index + 1), right, left))
    return order


def _cut_pairs(person: Person, first: str, second: str) -> list[_Entry]:
    """Six planes of two methods: in each direction the middle, and where they differ most in tissue."""
    one, other = person.methods[first], person.methods[second]
    if not one.is_on_grid_of(other):
        raise ValueError(
            f"judge: --readers: {one.name} with {one.voxels.shape} voxels and {other.name} with {other.voxels.shape} "
            "lie on different grids; crop or resample one of them first."
        )
    tops = [float(np.quantile(volume.voxels, 0.999)) for volume in (one, other)]
    if not 1 / _SAME_UNITS < tops[1] / tops[0] < _SAME_UNITS:
        raise ValueError(
            f"judge: --readers: the 99.9th percentile of {one.name} is {tops[0]:.4g}, that of {other.name} "
            f"{tops[1]:.4g}; one grey window shows both, so give them the same units first."
        )
    tissue = person.tissue
    # No minimum: an interpolation undershoots at edges, and air would be grey.
    low, high = min(float(np.median(one.voxels[~tissue])), 0.0), max(tops)
    (a, affine), (b, _) = (to_ras(volume.voxels, volume.affine) for volume in (one, other))
    tissue, _ = to_ras(tissue, person.results[0].affine)
    spacing = voxel_sizes(affine)
    centre, box = find_foreground(a.clip(low, high))
    entries: list[_Entry] = []
    for plane, axis in PLANES.items():
        across = tuple(i for i in range(3) if i != axis)
        area = tissue.sum(axis=across)
        difference = np.where(tissue, abs(a - b), 0).sum(axis=across)
        away = abs(np.arange(len(area)) - centre[axis]) > len(area) // 20
        # Planes with little tissue show nothing to a reader.
        difference[(area < area.max() / 2) | ~away] = 0
        for index in (centre[axis], int(difference.argmax())):
            at = tuple(index if i == axis else box[i] for i in range(3))
            left, right = (encode_picture(volume[at], spacing[list(across)], (low, high)) for volume in (a, b))
            place = float(affine[axis] @ [*(index if i == axis else 0 for i in range(3)), 1])
            entries.append(
                (_Shown(person.name, plane, round(place, 2), first, second, one.name, other.name), left, right)
            )
    return entries
