"""Rank weights for a scan by its spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from nibabel.affines import voxel_sizes

from ...data.lists.spacing import compute_cubic_scale
from ...geometry.affines import (
    RATIO_ROUNDING,
    THICK,
    UnclearSliceAxisError,
    find_slice_permutation,
    list_thick_axes,
    name_axis,
)
from ...physics.scale import choose_slice_axis
from ..bundles import list_bundles
from ..catalogue import WITHIN, Candidate, list_candidates, read_card

# Up to these factors outside of the range, weights are used with a warning. On a real head, made into a stack of thick
# slices, they were still better than cubic there. The first limits the axis that is nearest to the range, the second
# the others: a mouse's thick slices can be as far apart as a human head's thin slices.
_TOO_FINE, _FAR_TOO_FINE, _TOO_COARSE = 2.0, 4.0, 2.5
_UNEVEN = 1.4  # ratio of slice thickness to pixel size, or its inverse, above which only the coarser axes are refined


@dataclass(frozen=True)
class Choice:
    """A candidate for a scan.

    Attributes:
        candidate: the weights.
        slice_axis: the slice axis to use them with.
        spacing: spacing of the scan and of the result in mm, along the stored axes.
        excess: factor by which the scan's spacing lies outside of the training range; 1 if it is inside.
        doubt: why not to use them; None if there is no reason.
        is_assumed: whether nothing shows the slice axis, so that the coarsest is taken.
    """

    candidate: Candidate
    slice_axis: str
    spacing: tuple[tuple[float, ...], tuple[float, ...]]
    excess: float
    doubt: str | None
    is_assumed: bool = False

    @property
    def anisotropy(self) -> float:
        """Longest over shortest side of the result's voxels."""
        return max(self.spacing[1]) / min(self.spacing[1])


def rank_choices(
    affine: np.ndarray,
    candidates: Sequence[Candidate],
    guided: bool,
    wanted: float | None = None,
    across: int | None = None,
) -> list[Choice]:
    """Rank the weights for a scan: first those trained for its spacing, then those that make its voxels cubic.

    Of two sizes that are alike in this, the large one is first on a GPU, and the other on a CPU.

    Where nothing shows which axis runs across thick slices, the coarsest one is assumed for weights that then fit
    better than all that need no axis.

    Args:
        affine: 4x4, voxel to world of the scan, in mm.
        candidates: the weights to choose from.
        guided: whether there is a guide.
        wanted: size of cubes to which results are resampled, in mm. Then weights whose voxels are as fine rank before
            those that make voxels cubic, the smallest scale first. None to leave results as they are.
        across: the stored axis across the slices, where it is known.

    Raises:
        ValueError: when the slice axis or the scale is unclear for all of them.
    """
    choices, errors = _list_choices(affine, candidates, guided, across)
    least = min((choice.excess for choice in choices), default=math.inf)
    if least > WITHIN and any(isinstance(error, UnclearSliceAxisError) for error in errors):
        for axis in list_thick_axes(affine)[:1]:
            found = [each for each in _list_choices(affine, candidates, guided, axis)[0] if each.slice_axis == "auto"]
            named = [replace(each, slice_axis=name_axis(affine, axis), is_assumed=True) for each in found]
            choices += [each for each in named if each.excess < least]
    if errors and not choices:
        raise errors[-1]

    def compute_rank(choice: Choice) -> tuple:
        unknown = choice.candidate.ranges.count(None)
        # Among scales that give similar voxels the smallest: slices must not become finer than pixels.
        scale = math.prod(choice.candidate.scale)
        missed = choice.anisotropy if wanted is None else max(WITHIN, max(choice.spacing[1]) / wanted)
        fits = choice.excess > WITHIN, round(missed, 2), unknown, round(choice.excess, 2), scale
        return *fits, not choice.candidate.suits_device

    return sorted(choices, key=compute_rank)


def _list_choices(
    affine: np.ndarray, candidates: Sequence[Candidate], guided: bool, across: int | None
) -> tuple[list[Choice], list[ValueError]]:
    """The candidates with their slice axes and scales, and why there is none for others; as :func:`rank_choices`."""
    choices, errors = list[Choice](), list[ValueError]()
    for candidate in candidates:
        try:
            if candidate.free is not None:
                candidate = candidate.apply_scale(_choose_scale(affine, candidate, across))
        except ValueError as error:
            errors.append(error)
            continue
        axes = [choose_slice_axis(candidate.scale, candidate.slice_axis)]
        if len(set(candidate.scale)) > 1 and "slice_axis" not in candidate.overrides and "auto" not in axes:
            axes.insert(0, "auto")  # before the training's axis: the slices of this scan may run along another
        for axis in axes if candidate.guided == guided else ():
            try:
                order = find_slice_permutation(affine, axis, across)
            except ValueError as error:
                errors.append(error)  # nothing shows which axis runs across the slices
                continue
            choices.append(_make_choice(affine, candidate, axis, order))
            break
    return choices, errors


def rank_self_trained(affine: np.ndarray, guided: bool, across: int | None = None) -> list[Choice]:
    """Rank the bundles that learn from the scan itself, as :func:`rank_choices`; empty if none suits."""
    try:
        folders = [folder for folder in list_bundles(None) if not read_card(folder)["weights"]]
        candidates = [
            candidate
            for folder in folders
            for candidate in list_candidates(str(folder), {})
            if candidate.free is not None
        ]
        return rank_choices(affine, candidates, guided, across=across)
    except ValueError:
        return []


def format_spacing(spacing: Sequence[float]) -> str:
    """Voxel sizes in mm."""
    return " x ".join(f"{size:.3g}" for size in spacing) + " mm"


def _choose_scale(affine: np.ndarray, candidate: Candidate, across: int | None) -> tuple[float, ...]:
    """Scale for a method that takes any: it makes the voxels cubic, or halves them if they nearly are."""
    axis = candidate.overrides.get("slice_axis", "auto")
    try:
        order = find_slice_permutation(affine, axis, across)
    except ValueError:
        if candidate.free == "across" or axis != "auto":
            raise
        return 2, 2, 2
    mm = voxel_sizes(affine)[list(order)]
    if candidate.free == "across":
        if max(scale := compute_cubic_scale(mm)) == 1:
            raise ValueError(
                f"{candidate.bundle.name} makes slices thinner, but those of {format_spacing(mm)} are no thicker than "
                "pixels are "
                'wide; give a scale, for example --scale "[1,1,2]", or another --bundle.'
            )
        return scale
    thickness = mm[2] / np.sqrt(mm[0] * mm[1])
    if thickness > _UNEVEN:
        return 1, 1, max(2, round(thickness))
    return (2, 2, 2) if thickness * _UNEVEN > 1 else (2, 2, 1)


def _make_choice(affine: np.ndarray, candidate: Candidate, axis: str, order: Sequence[int]) -> Choice:
    stored = voxel_sizes(affine)
    ordered = stored[list(order)]
    after = np.empty(3)
    after[list(order)] = ordered / candidate.scale
    known = np.array([pair is not None for pair in candidate.ranges])
    low, high = np.array([pair or (np.inf, 0) for pair in candidate.ranges]).T
    fine, coarse = (low / ordered)[known], (ordered[known] / high[known])
    acted = fine[np.array(candidate.scale)[known] > 1]
    thick = ordered[2] / ordered[:2].max() * RATIO_ROUNDING
    doubt = None
    if acted.size and (acted.min() > _TOO_FINE or acted.max() > _FAR_TOO_FINE):
        doubt = f"its voxels are {acted.max():.1f} times finer than the finest that these weights sharpen"
    elif coarse.size and coarse.max() > _TOO_COARSE:
        doubt = f"its voxels are {coarse.max():.1f} times coarser than the coarsest that these weights know"
    elif candidate.scale[:2] == (1, 1) and (thick < THICK or thick / candidate.scale[2] < 1 / THICK):
        doubt = f"slices must be {THICK} times as thick as pixels are wide, and not become as much thinner than these"
    spacing = tuple(stored.tolist()), tuple(after.tolist())
    return Choice(candidate, axis, spacing, max([1.0, *fine.tolist(), *coarse.tolist()]), doubt)
