"""Check the volumes of a datalist against each other: copies in two groups, and voxels of another size."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from ...io.images import open_image_or_none
from ...runtime.progress import make_bar

_LISTED = 20  # files in a message
_SAMPLES = 16  # along each axis
_COPY = 1e-4  # largest distance of copies: that of 8-bit voxels is smaller, that of a repeated scan, by noise, larger
_OTHER_SIZE = 1.25  # ratio of voxel sizes; scanners and protocols of one cohort differ by less


@functools.cache
def check_volumes(files: tuple[tuple[str, str, str, float], ...], where: str) -> None:
    """Refuse copies of a volume in two groups, and print volumes whose voxels have another size than most.

    A copy has the same voxels. Its name, format, data type, intensity scale, affine and order of axes may differ.
    Voxels are read only of files whose shape is found in two groups. Files that cannot be read are skipped; they are
    reported when the volumes are loaded. A process checks the same files once.

    Args:
        files: group, kind, path, and time of the last change of each.
        where: the start of a message.
    """
    images = {path: image for _, _, path, _ in files if (image := open_image_or_none(path)) is not None}
    _print_other_sizes([file for file in files if file[2] in images], images, where)
    shapes = {path: tuple(sorted(size for size in image.shape if size > 1)) for path, image in images.items()}
    groups_by_shape: dict[tuple, set[str]] = {}
    for group, _, path, _ in files:
        groups_by_shape.setdefault(shapes.get(path, ()), set()).add(group)
    alike = {path: group for group, _, path, _ in files if path in shapes and len(groups_by_shape[shapes[path]]) > 1}
    samples = {}
    for path in make_bar(alike, "comparing volumes", delay=3):
        samples[path] = _sample_voxels(images[path])
    copies = [
        f"{path} ({alike[path]}) and {other} ({alike[other]})"
        for path, other in combinations(alike, 2)
        if alike[path] != alike[other] and shapes[path] == shapes[other] and _are_copies(samples[path], samples[other])
    ]
    if copies:
        raise ValueError(
            f"{where}: the same voxels are in two groups, expected in one:\n  {_list(copies)}\n"
            "Leave one file of each pair out, or put both into one group."
        )


def _print_other_sizes(files: Sequence[tuple[str, str, str, float]], images: Mapping[str, Any], where: str) -> None:
    """Print the files of each kind whose voxels differ from the median size."""
    for kind in dict.fromkeys(kind for _, kind, *_ in files):
        # In the order of their sizes, because axes may be stored in any order.
        sizes = {path: np.sort(voxel_sizes(images[path].affine)) for _, other, path, _ in files if other == kind}
        groups = {path: group for group, _, path, _ in files}
        median = np.median([*sizes.values()], axis=0)
        with np.errstate(all="ignore"):
            others = [
                f"{path} ({groups[path]}): {np.round(mm, 3).tolist()} mm"
                for path, mm in sizes.items()
                if np.abs(np.log(mm / median)).max() > np.log(_OTHER_SIZE)
            ]
        if others and os.environ.get("RANK", "0") == "0":
            print(
                f"warning: {where}: the {kind} volumes have a median voxel size of {np.round(median, 3).tolist()} mm, "
                f"but these have another:\n  {_list(others)}\n"
                "Correct the header if it is wrong; else resample these volumes, or leave them out.",
                file=sys.stderr,
                flush=True,
            )


def _list(lines: Sequence[str]) -> str:
    return "\n  ".join([*lines[:_LISTED], *([f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else [])])


def _sample_voxels(image: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Voxels at places that flips keep, with mean 0 and norm 1, and the same in order; None if they cannot differ."""
    try:
        voxels = np.squeeze(np.asanyarray(image.dataobj))
        first = [((np.arange(_SAMPLES // 2) + 0.5) * size / _SAMPLES).astype(int) for size in voxels.shape]
        places = [np.r_[half, size - 1 - half[::-1]] for half, size in zip(first, voxels.shape, strict=True)]
        samples = np.nan_to_num(voxels[np.ix_(*places)].astype(float), posinf=0, neginf=0)
    except Exception:
        return None  # a file that cannot be read is reported when it is loaded
    samples -= samples.mean()
    norm = np.linalg.norm(samples)
    return (samples / norm, np.sort(samples / norm, axis=None)) if samples.ndim == 3 and norm > 0 else None


def _are_copies(a: tuple[np.ndarray, np.ndarray] | None, b: tuple[np.ndarray, np.ndarray] | None) -> bool:
    """Whether the samples of two volumes agree in some order and direction of the axes."""
    if a is None or b is None or 1 - a[1] @ b[1] > _COPY:
        return False
    axes = range(3)
    turned = (b[0].transpose(order) for order in permutations(axes))
    flips = [tuple(axis for axis in axes if on[axis]) for on in product((False, True), repeat=3)]
    flipped = (np.flip(volume, flip) for volume in turned for flip in flips)
    return any(1 - np.vdot(a[0], each) < _COPY for each in flipped)
