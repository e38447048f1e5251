"""Which axis of a file runs across its slices."""

from __future__ import annotations

import os
from typing import Any

from ..geometry.affines import UnclearSliceAxisError, find_slice_permutation
from .files import read_sidecar
from .images import open_image

#: Key of a volume's meta data: the stored axis across the slices, 0 to 2, where the file names it.
SLICE_AXIS = "slice_axis"


def read_slice_axis(path: str | os.PathLike) -> int | None:
    """Read which stored axis of a file runs across the slices.

    ``SliceEncodingDirection`` of the sidecar JSON decides. The NIfTI header counts only where the spacing does not show
    the axis, because programs that turn a volume may leave its header as it was.

    Args:
        path: a file that :func:`~common.io.images.open_image` reads.

    Returns:
        0 to 2; None if the file does not name the axis.
    """
    if (direction := read_sidecar(path)[0].get("SliceEncodingDirection")) is not None:
        return "ijk".index(direction[0])
    image: Any = open_image(path)
    named = image.header.get_dim_info()[2] if hasattr(image.header, "get_dim_info") else None
    try:
        find_slice_permutation(image.affine, "auto")
    except UnclearSliceAxisError:
        return named
    return None
