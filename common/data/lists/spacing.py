"""Read the grids of a datalist's scans from their headers, and check that they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from nibabel.affines import voxel_sizes

from ...geometry.affines import find_slice_permutation, name_axis
from ...io.images import open_image, open_image_or_none
from ...io.slice_axis import read_slice_axis


def check_scale(source: Sequence[Mapping], target: Sequence[Mapping], factors: Sequence[int], slice_axis: str) -> None:
    """Refuse authentic LR scans whose voxels are not ``factors`` times as large as the HR scans'.

    Args:
        source: entries with "hr".
        target: entries; those with "lr" are checked against the median HR spacing, within 20 %.
        factors: of the super-resolution, in the order of the axes after :class:`common.transforms.SliceAxisd`.
        slice_axis: as for :class:`common.transforms.SliceAxisd`.
    """
    lr: dict = {}
    hr: list = []
    for entry in [*source, *target]:
        for key, path in (("hr", hr), ("lr", lr)):
            mm = _read_spacing(entry[key], slice_axis) if key in entry else None
            if mm is not None:
                hr.append(mm) if path is hr else lr.update({entry[key]: mm})
    if not lr or not hr:
        return
    expected = np.median(hr, axis=0) * np.asarray(factors)
    wrong = [f"{p}: {np.round(mm, 3).tolist()} mm" for p, mm in lr.items() if (abs(mm / expected - 1) > 0.2).any()]
    if wrong:
        raise ValueError(
            f"the scale factor {list(factors)} and the median spacing of the HR scans ask for LR voxels of about "
            f"{np.round(expected, 3).tolist()} mm (axes ordered for slice_axis {slice_axis}), but found:\n  "
            + "\n  ".join(wrong)
            + "\nSet scale to the ratio that your scans have, or resample them."
        )


def measure_in_plane_spacing(entries: Sequence[Mapping], slice_axis: str) -> list[float]:
    """Median spacing of the HR scans in plane.

    Args:
        entries: with "hr". Files that cannot be read are skipped here and reported when the volumes are loaded.
        slice_axis: as for :class:`common.transforms.SliceAxisd`.

    Returns:
        Two numbers in mm, in the order of the axes after :class:`common.transforms.SliceAxisd`.
    """
    spacing = {entry["hr"]: size for entry in entries if (size := _read_spacing(entry["hr"], slice_axis)) is not None}
    if not spacing:
        return [1.0, 1.0]
    median = np.median(list(spacing.values()), axis=0)[:2]
    wrong = [
        f"{p}: {np.round(mm[:2], 3).tolist()} mm" for p, mm in spacing.items() if abs(mm[:2] / median - 1).max() > 0.05
    ]
    if wrong:
        raise ValueError(
            f"the HR scans' median in-plane spacing is {np.round(median, 3).tolist()} mm, expected of all of them to "
            "5 %, but found:\n  " + "\n  ".join(wrong) + "\nResample them, or leave them out."
        )
    return [float(mm) for mm in median]


def measure_thin_slice_spacing(entries: Sequence[Mapping], slice_axis: str, scale: int) -> list[float]:
    """Median spacing of the HR grid after super-resolution across slices.

    Args:
        entries: of MR, with "lr" (thick slices) or else "hr" (thin slices). Files that cannot be read are skipped here
            and reported when the volumes are loaded.
        slice_axis: axis across the slices, "LR", "AP" or "SI", as from :func:`identify_slice_axis`.
        scale: HR slices per LR slice.

    Returns:
        Three numbers in mm, in the order of the axes after :class:`common.transforms.SliceAxisd`, slices last; 1 each
        when no file can be read.
    """
    grids = {}
    for entry in entries:
        path, finer = (entry["lr"], [1, 1, scale]) if "lr" in entry else (entry["hr"], 1)
        mm = _read_spacing(path, slice_axis)
        if mm is not None:
            grids[path] = mm / finer
    if not grids:
        return [1.0, 1.0, 1.0]
    median = np.median(list(grids.values()), axis=0)
    wrong = [f"{p}: {np.round(mm, 3).tolist()} mm" for p, mm in grids.items() if (abs(mm / median - 1) > 0.2).any()]
    if wrong:
        raise ValueError(
            f"super-resolution by {scale} across slices (slice_axis {slice_axis}) leads to a median HR grid of "
            f"{np.round(median, 3).tolist()} mm, expected of all scans to 20 %, but found:\n  "
            + "\n  ".join(wrong)
            + "\nResample these scans, or leave them out."
        )
    return [float(mm) for mm in median]


def compute_cubic_scale(mm: np.ndarray) -> tuple[float, ...]:
    """The scale across slices that makes voxels of this spacing cubic, rounded to thousandths."""
    factor = max(1.0, round(float(mm[2] / np.sqrt(mm[0] * mm[1])), 3))
    return 1, 1, int(factor) if factor.is_integer() else factor


def identify_slice_axis(entries: Sequence[Mapping], slice_axis: str) -> str:
    """The anatomical axis across the slices of all scans, also for volumes whose own spacing does not show it.

    Args:
        entries: with "lr", or else "hr". Files that cannot be read are skipped here and reported when the volumes are
            loaded.
        slice_axis: "LR", "AP" or "SI"; or "auto" to find it by the scans' spacing. Scans that do not show it, such as
            isotropic ones, follow the others.

    Returns:
        "LR", "AP" or "SI"; "SI" if no file can be read.
    """
    if slice_axis != "auto":
        return slice_axis
    axes: dict[str, str] = {}
    unclear: list[str] = []
    for path in (entry["lr"] if "lr" in entry else entry["hr"] for entry in entries):
        image = open_image_or_none(path)
        if image is None:
            continue  # a file that cannot be read is reported, with the others, when the volumes are loaded
        try:
            axes[path] = name_axis(image.affine, find_slice_permutation(image.affine, "auto", read_slice_axis(path))[2])
        except ValueError as error:
            unclear.append(f"{path}: {error}")
    if len(set(axes.values())) > 1:
        raise ValueError(
            "slice_axis is 'auto', expected the same axis across slices in all scans, but found:\n  "
            + "\n  ".join(f"{path}: {axis}" for path, axis in axes.items())
            + "\nTrain on one axis: leave the other scans out, or set the axis, for example --slice_axis SI."
        )
    if unclear and not axes:
        raise ValueError("slice_axis is 'auto', but no scan shows it:\n  " + "\n  ".join(unclear))
    return next(iter(axes.values()), "SI")


def _read_spacing(path: str, slice_axis: str) -> np.ndarray | None:
    """Spacing of a file, in the order of the axes after SliceAxisd; None if it cannot be read."""
    try:
        affine = open_image(path).affine
        return voxel_sizes(affine)[list(find_slice_permutation(affine, slice_axis, read_slice_axis(path)))]
    except Exception:
        return None  # a file that cannot be read is reported, with the others, when the volumes are loaded
