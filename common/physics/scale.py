"""Numbers of voxels along the three axes, the one across the slices last, of methods that act on some of them only."""

from __future__ import annotations

from collections.abc import Sequence


def in_plane(**named: Sequence[int]) -> int:
    """n of ``[n, n, 1]``: the scale of a method that leaves the slices as they are, or the size of its patch.

    Args:
        named: one list of three numbers by the name of its key, as ``in_plane(scale=[2, 2, 1])``.

    Raises:
        ValueError: for any other list; the message names the key.
    """
    ((name, numbers),) = named.items()
    if not _whole(numbers) or numbers[0] != numbers[1] or numbers[2] != 1:
        raise ValueError(f'{name} is {numbers!r}, expected [n, n, 1] for slices, for example --{name} "[2,2,1]".')
    return numbers[0]


def patch_of(lr_patch: int | Sequence[int], slices: int = 1) -> list[int]:
    """Voxels of an LR patch along each axis.

    Args:
        lr_patch: as many, or one number for both axes in plane.
        slices: across them, where it is one number.
    """
    return [lr_patch, lr_patch, slices] if isinstance(lr_patch, int) else list(lr_patch)


def along_each_axis(**named: Sequence[int]) -> list[int]:
    """The three numbers of the scale of a method that may act along any axis.

    Args:
        named: as for :func:`in_plane`.

    Raises:
        ValueError: for anything but three whole numbers of at least 1; the message names the key.
    """
    ((name, numbers),) = named.items()
    if not _whole(numbers):
        raise ValueError(f'{name} is {numbers!r}, expected three whole numbers, for example --{name} "[2,2,2]".')
    return list(numbers)


def across_slices(whole: bool = True, **named: Sequence[float]) -> float:
    """n of ``[1, 1, n]``: the scale of a method that leaves the pixels of a slice as they are.

    Args:
        whole: whether n must be a whole number.
        named: as for :func:`in_plane`.

    Raises:
        ValueError: for any other list; the message names the key.
    """
    ((name, numbers),) = named.items()
    if not (_whole(numbers) if whole else _numbers(numbers)) or numbers[0] != 1 or numbers[1] != 1:
        number = "a whole number" if whole else "a number"
        raise ValueError(
            f'{name} is {numbers!r}, expected [1, 1, n] across slices, n {number}, for example --{name} "[1,1,4]".'
        )
    return numbers[2]


def zero_shot(**named: Sequence[int]) -> dict[str, list[int]]:
    """What a network for images can learn from the scan itself, which is to become finer by a scale.

    Args:
        named: as for :func:`in_plane`.

    Returns:
        ``"planes"``, the axes across which lie the images that are to become finer; ``"taught_by"``, those across which
        lie images that teach it; ``"of_images"``, three numbers, by how much a layer of one of these becomes coarser.

    Raises:
        ValueError: for anything but [n, n, n], [n, n, 1] and [1, 1, n]; the message names the key.
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
