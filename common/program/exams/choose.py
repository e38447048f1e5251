"""Choose the weights of each case."""

from __future__ import annotations

import ast
import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from ...io.images import open_image
from ...runtime.distributed import print_once
from ...runtime.errors import Notice
from ...transforms.result_grid import choose_cubes
from ...transforms.scan.acquired import compute_acquired_affine
from ..cases.case import Case
from ..catalogue import Candidate, list_candidates
from .ranking import Choice, format_spacing, rank_choices, rank_self_trained

_STACKS = "stacks"  # the bundle that makes one volume of several scans, where none is named


def reads_exams(bundle: str | None) -> bool:
    """Whether a bundle makes one volume of several scans.

    Args:
        bundle: its name or folder; None for any.
    """
    return bundle is not None and list_candidates(bundle, {})[0].fewest_stacks is not None


def find_candidates(
    bundle: str | None, scale: Any, override: Mapping[str, Any], together: bool | str, options: Sequence[str]
) -> tuple[list[Candidate], Candidate | None]:
    """Find the weights to choose from.

    Args:
        bundle: name or folder of the only bundle; None for all.
        scale: the only scale, or its largest factor, as on the command line; None for all.
        override: keys of inference.json and their values.
        together: True if all scans are stacks of one exam, "auto" for exams and single scans, False for single scans.
        options: other names that a misspelt key may have meant.

    Returns:
        The weights for single scans; and the bundle that combines the stacks of an exam, or None.
    """
    stacks, spacing = None, override.get("spacing")
    if spacing is not None and not (type(spacing) in (int, float) and 0 < spacing < math.inf):
        raise ValueError(f"--spacing is {spacing!r}, expected mm above 0, for example --spacing 0.8.")
    if together:
        # The overlay of model.pt; the bundle finds the other weights itself.
        is_named = reads_exams(bundle)
        stacks = list_candidates(str(bundle) if is_named else _STACKS, override, options)[0]
        bundle = None if is_named or together is True else bundle
        # Keys that only such bundles have do not apply to single scans.
        override = {
            key: value
            for key, value in override.items()
            if any(candidate.fewest_stacks is None for candidate in list_candidates(None, {key: value}))
        }
    known = list_candidates(bundle, override, options)
    if any(candidate.fewest_stacks is not None for candidate in known):
        names = " and ".join(f"--{name}" for name in (override if bundle is None else [f"bundle {bundle}"]))
        raise ValueError(f"{names}: that is for stacks of one exam; name them all, with --together or --exam.")
    return known if scale is None else _select_scale(known, scale), stacks


def parse_scale(scale: Any) -> Any:
    """Read a scale of a command line, such as the text "2x2x1"; what is no list of numbers stays as it is."""
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(scale.lower().replace("x", ",")) if isinstance(scale, str) else scale
    return scale


def _select_scale(candidates: Sequence[Candidate], scale: Any) -> list[Candidate]:
    """The candidates of a scale: three factors, also as text such as "2x2x1", or a number, the largest factor."""
    given, scale = scale, parse_scale(scale)
    wanted = [tuple(scale)] if isinstance(scale, list | tuple) else []
    if type(scale) in (int, float):
        wanted = [(scale,) * 3, (scale, scale, 1), (1, 1, scale)]
    every = [candidate for candidate in candidates if candidate.free is None]
    selected = [
        candidate
        for candidate in every
        if candidate.scale in wanted or (len(wanted) > 1 and max(candidate.scale) == scale)
    ]
    for candidate in candidates:
        scales = wanted[-1:] if candidate.free == "across" else wanted
        selected += [candidate.apply_scale(one) for one in scales] if candidate.free else []
    if not any(candidate.is_available for candidate in selected):
        scales = sorted({candidate.scale for candidate in every if candidate.is_available})
        there = ", ".join("x".join(map(str, one)) for one in scales)
        raise ValueError(
            f"--scale is {given}, expected three factors, such as 2x2x1, or the largest of them."
            + (f" There are weights for {there}." if there else "")
        )
    return selected


def choose_weights(
    cases: Sequence[Case], candidates: Sequence[Candidate], stacks: Candidate | None, guided: bool, requested: bool
) -> None:
    """Give each case the weights that suit its voxels best, or a problem.

    Args:
        cases: scans and exams.
        candidates: the weights for single scans.
        stacks: the bundle for exams; None if there are none.
        guided: whether the cases have guides.
        requested: whether the user asked for these weights; then they are used for any scan.
    """
    there = [candidate for candidate in candidates if candidate.is_available and (requested or any(candidate.ranges))]
    for candidate in candidates:
        if candidate.is_available and candidate not in there:
            print_once(
                f"{candidate.name} is not considered: {candidate.overrides['checkpoint']} does not say on which voxel "
                "sizes it "
                f"was trained. Use it by --bundle {candidate.bundle.name}, or train them again: training writes them."
            )
    missing = [candidate for candidate in candidates if not candidate.is_available]
    grid = next(
        ([candidate.overrides.get(key) for key in ("spacing", "grid_file")] for candidate in there), [None, None]
    )
    for case in cases:
        if case.problem is not None:
            continue
        with case.catch_problem():
            if "stacks" in case:
                case.choice = _choose_stack_weights(case, stacks)
                continue
            (affine, shape), across = case.read_grid(), case.find_slice_axis()
            if "image_matrix" in case:
                affine, shape = compute_acquired_affine(affine, shape, case["image_matrix"]), case["image_matrix"]
            cubes = choose_cubes(shape, affine, *grid)[1] if any(grid) else None
            choices = rank_choices(affine, there, guided, None if cubes is None else voxel_sizes(cubes)[0], across)
            case.choice = next((choice for choice in choices if requested or choice.doubt is None), None)
            if case.choice is not None and cubes is not None:
                after = voxel_sizes(cubes if grid[1] is None else open_image(grid[1]).affine)
                case.choice = replace(case.choice, spacing=(case.choice.spacing[0], tuple(after.tolist())))
            if case.choice is None:
                trained: list[Choice] = []
                with contextlib.suppress(ValueError):  # they are only a hint
                    trained = rank_choices(affine, missing, guided, across=across)
                named = [] if there else missing
                case.problem = _explain_no_choice(affine, across, choices, trained, guided, named)
            elif case.choice.is_assumed:
                case.add_warning(
                    f"{case['image']}: neither header nor voxel sizes show which axis runs across the slices; "
                    f"{case.choice.slice_axis}, the coarsest, is taken. To name another, give --slice_axis.",
                    Notice,
                )


def _choose_stack_weights(case: Case, candidate: Any) -> Choice:
    """The bundle for stacks, with cubic voxels of the smallest size in any stack, unless another size is asked for."""
    sizes = [voxel_sizes(case.read_grid(file)[0]) for file in case.images if file != case.get("guide")]
    voxel = candidate.overrides.get("spacing") or min(float(size.min()) for size in sizes)
    return Choice(candidate, "auto", (tuple(sizes[0]), (voxel,) * 3), excess=1.0, doubt=None)


def _explain_no_choice(
    affine: np.ndarray,
    across: int | None,
    choices: Sequence[Choice],
    trained: Sequence[Choice],
    guided: bool,
    missing: Sequence[Candidate],
) -> str:
    """Say why no weights can be chosen, and what to do; ``missing`` are bundles that were asked for by name."""
    if missing:
        docs = ", ".join(str(candidate.bundle / "docs" / "README.md") for candidate in missing)
        names = " and ".join(candidate.bundle.name for candidate in missing)
        return f"there are no weights of {names} here. Train them, as {docs} says, and give --checkpoint FILE."
    if not choices:
        also = "leave --guide out, or name another --bundle" if guided else "name another --bundle, or give a --guide"
        return f"there are no weights for scans {'with a guide' if guided else 'without a guide'}; {also}."
    nearest = choices[0]
    text = (
        f"no weights here suit voxels of {format_spacing(nearest.spacing[0])}; of the nearest, "
        f"{nearest.candidate.name}, "
        f"{nearest.doubt}."
    )
    for choice in rank_self_trained(affine, guided, across):
        name = choice.candidate.bundle.name
        text += (
            f" {name} needs none, as it learns from the scan, and would make voxels of "
            f"{format_spacing(choice.spacing[1])}: say --bundle {name}."
        )
    before = max(nearest.spacing[0]) / min(nearest.spacing[0])
    better = [choice for choice in trained if choice.anisotropy < 0.9 * before]
    if better:
        best = min(better, key=lambda choice: choice.anisotropy)
        text += (
            f" {best.candidate.name} would make them {format_spacing(best.spacing[1])}, but has to be trained first: "
            "see "
            f"{best.candidate.bundle / 'docs' / 'README.md'}."
        )
    return f"{text} To use {nearest.candidate.name} nonetheless, say --bundle {nearest.candidate.bundle.name}."
