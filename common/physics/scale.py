"""Scales and patch sizes along the three axes, for methods that act on some axes; across the slices is last.

Each function raises a ValueError with the name of the key if the numbers are not of its form.
"""

from __future__ import annotations

from collections.abc import Sequence


def get_in_plane_number(scale: Sequence[int], name: str = "scale") -> int:
    """Return n of ``[n, n, 1]``: the scale, or the patch size, of a method that acts in plane only."""
    if not _are_whole(scale) or scale[0] != scale[1] or scale[2] != 1:
        raise ValueError(f'{name} is {scale!r}, expected [n, n, 1] for slices, for example --{name} "[2,2,1]".')
    return scale[0]


def make_patch_size(lr_patch: int | Sequence[int], slices: int = 1) -> list[int]:
    """Voxels of an LR patch along each axis; one number stands for both axes in plane of this number of slices."""
    return [lr_patch, lr_patch, slices] if isinstance(lr_patch, int) else list(lr_patch)


def get_volume_scale(scale: Sequence[int]) -> list[int]:
    """Return the scale of a method that can act along any axis: three whole numbers of at least 1."""
    if not _are_whole(scale):
        raise ValueError(f'scale is {scale!r}, expected three whole numbers, for example --scale "[2,2,2]".')
    return list(scale)


def get_slice_factor(scale: Sequence[float], must_be_whole: bool = True) -> float:
    """Return n of ``[1, 1, n]``: the scale of a method that acts across slices only, with ``must_be_whole`` a whole
    number."""
    if not (_are_whole(scale) if must_be_whole else _are_numbers(scale)) or scale[0] != 1 or scale[1] != 1:
        number = "a whole number" if must_be_whole else "a number"
        raise ValueError(
            f'scale is {scale!r}, expected [1, 1, n] across slices, n {number}, for example --scale "[1,1,4]".'
        )
    return scale[2]


def choose_slice_axis(scale: Sequence[float], slice_axis: str | None = None) -> str:
    """Return the anatomical axis across the slices: the given one, else "SI" if no axis differs, else "auto".

    Args:
        scale: along the three axes.
        slice_axis: as for :func:`common.geometry.affines.find_slice_permutation`; None if the scale decides.
    """
    return slice_axis or ("SI" if len(set(scale)) == 1 else "auto")


def choose_zero_shot_images(scale: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Choose the images from which a 2-D network learns to super-resolve the scan itself by a scale.

    Args:
        scale: [n, n, n], [n, n, 1] or [1, 1, n], n above 1.

    Returns:
        Axes across which the images to super-resolve lie; axes across which the training images lie; and the three
        factors by which a layer of a training image becomes coarser.
    """
    if not _are_whole(scale) or scale[0] != scale[1] or max(scale) == 1 or (1 not in scale and len(set(scale)) > 1):
        raise ValueError(f"scale is {scale!r}, expected [n, n, n], [n, n, 1] or [1, 1, n].")
    plane, across = scale[1:]
    if across == 1:
        return [2], [2], [1, plane, plane]
    if plane == 1:
        return [0, 1], [2], [1, 1, across]
    return [0, 1, 2], [0, 1, 2], [1, plane, plane]


def _are_whole(numbers: Sequence[float]) -> bool:
    """Whether these are three whole numbers of at least 1."""
    return _are_numbers(numbers) and all(type(n) is int for n in numbers)


def _are_numbers(numbers: Sequence[float]) -> bool:
    """Whether these are three numbers of at least 1."""
    three = isinstance(numbers, (list, tuple)) and len(numbers) == 3
    return three and all(type(n) in (int, float) and n >= 1 for n in numbers)
