"""Scales and patch sizes along the three axes, for methods that act on some axes; across the slices is last."""

from __future__ import annotations

from collections.abc import Sequence


def in_plane(**named: Sequence[int]) -> int:
    """Return n of ``[n, n, 1]``: the scale, or the patch size, of a method that acts in plane only.

    Args:
        named: one list of three numbers under its key, such as ``in_plane(scale=[2, 2, 1])``.

    Raises:
        ValueError: if the list is different; the message names the key.
    """
    ((name, numbers),) = named.items()
    if not _whole(numbers) or numbers[0] != numbers[1] or numbers[2] != 1:
        raise ValueError(f'{name} is {numbers!r}, expected [n, n, 1] for slices, for example --{name} "[2,2,1]".')
    return numbers[0]


def patch_of(lr_patch: int | Sequence[int], slices: int = 1) -> list[int]:
    """Voxels of an LR patch along each axis.

    Args:
        lr_patch: three numbers, or one number for both axes in plane.
        slices: number of slices, if ``lr_patch`` is one number.
    """
    return [lr_patch, lr_patch, slices] if isinstance(lr_patch, int) else list(lr_patch)


def along_each_axis(**named: Sequence[int]) -> list[int]:
    """Return the three numbers of the scale of a method that can act along any axis.

    Args:
        named: as for :func:`in_plane`.

    Raises:
        ValueError: if these are not three whole numbers of at least 1; the message names the key.
    """
    ((name, numbers),) = named.items()
    if not _whole(numbers):
        raise ValueError(f'{name} is {numbers!r}, expected three whole numbers, for example --{name} "[2,2,2]".')
    return list(numbers)


def across_slices(whole: bool = True, **named: Sequence[float]) -> float:
    """Return n of ``[1, 1, n]``: the scale of a method that acts across slices only.

    Args:
        whole: whether n must be a whole number.
        named: as for :func:`in_plane`.

    Raises:
        ValueError: if the list is different; the message names the key.
    """
    ((name, numbers),) = named.items()
    if not (_whole(numbers) if whole else _numbers(numbers)) or numbers[0] != 1 or numbers[1] != 1:
        number = "a whole number" if whole else "a number"
        raise ValueError(
            f'{name} is {numbers!r}, expected [1, 1, n] across slices, n {number}, for example --{name} "[1,1,4]".'
        )
    return numbers[2]


def choose_slice_axis(scale: Sequence[float], slice_axis: str | None = None) -> str:
    """Return the anatomical axis across the slices: the given one, else "SI" if no axis differs, else "auto".

    Args:
        scale: along the three axes.
        slice_axis: as for :func:`common.io.affines.slice_permutation`; None if the scale decides.
    """
    return slice_axis or ("SI" if len(set(scale)) == 1 else "auto")


def zero_shot(**named: Sequence[int]) -> dict[str, list[int]]:
    """Choose the images from which a 2-D network learns to super-resolve the scan itself by a scale.

    Args:
        named: as for :func:`in_plane`.

    Returns:
        ``"planes"``: axes; the images to super-resolve lie across them. ``"taught_by"``: axes; the training images lie
        across them. ``"of_images"``: three factors by which a layer of a training image becomes coarser.

    Raises:
        ValueError: if the scale is not [n, n, n], [n, n, 1] or [1, 1, n]; the message names the key.
    """
    ((name, numbers),) = named.items()
    if (
        not _whole(numbers)
        or numbers[0] != numbers[1]
        or max(numbers) == 1
        or (1 not in numbers and len(set(numbers)) > 1)
    ):
        raise ValueError(f"{name} is {numbers!r}, expected [n, n, n], [n, n, 1] or [1, 1, n].")
    plane, across = numbers[1:]
    if across == 1:
        return {"planes": [2], "taught_by": [2], "of_images": [1, plane, plane]}
    if plane == 1:
        return {"planes": [0, 1], "taught_by": [2], "of_images": [1, 1, across]}
    return {"planes": [0, 1, 2], "taught_by": [0, 1, 2], "of_images": [1, plane, plane]}


def _whole(numbers: Sequence[float]) -> bool:
    """Whether these are three whole numbers of at least 1."""
    return _numbers(numbers) and all(type(n) is int for n in numbers)


def _numbers(numbers: Sequence[float]) -> bool:
    """Whether these are three numbers of at least 1."""
    return (
        isinstance(numbers, (list, tuple))
        and len(numbers) == 3
        and all(type(n) in (int, float) and n >= 1 for n in numbers)
    )
