"""What is left to do of a list of scans, and which part of it this process does."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...io.images import open_image
from ...io.naming import files_of, result_path
from ...runtime.distributed import rank
from ...values import is_true


def own_share(
    entries: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike,
    skip_existing: bool | str = False,
    shard: str | None = None,
    bids: bool | str = False,
) -> list[dict[str, Any]]:
    """The entries that this process is to do.

    Jobs of an array and processes under torchrun each take every n-th entry, both together where there are both, so
    that an entry is done once, whatever their numbers and whatever is done already.

    Args:
        entries: as :func:`common.data.find_images` finds them.
        output_dir: folder of the results.
        skip_existing: whether to leave out entries whose results stand there whole.
        shard: "3/16" for the third of 16 parts; default all.
        bids: whether results are named as BIDS derivatives.

    Returns:
        The entries; one whose result cannot be named, or would be written over a scan or a guide of the list, has a
        "problem".

    Raises:
        ValueError: when ``shard`` is not as described, or a switch is neither true nor false.
    """
    part, parts = _shard(shard)
    skip, bids = is_true(skip_existing, "skip_existing"), is_true(bids, "bids")
    inputs = {os.path.realpath(file) for entry in entries for file in files_of(entry)}
    checked, paths = [], {}
    for entry in entries:
        problem = ""
        try:
            path = paths[entry["name"]] = result_path(output_dir, entry["name"], bids=bids)
            if os.path.realpath(path) in inputs:
                problem = f"{entry['image']}: its result would be written over {path}; name another output folder."
        except ValueError as error:
            problem = str(error)
        checked.append({**({"problem": problem} if problem else {}), **entry})
    number, count = rank()
    own = checked[part - 1 :: parts][number::count]
    left = [entry for entry in own if "problem" in entry or not (skip and is_whole(paths[entry["name"]]))]
    if len(left) < len(own):
        whose = f"process {number + 1} of {count}: " if count > 1 else ""
        print(f"{whose}{len(own) - len(left)} of {len(own)} scans have their results in {output_dir}", flush=True)
    return left


def _shard(shard: str | None) -> tuple[int, int]:
    """The number of a part, from 1, and how many there are."""
    if shard is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", str(shard))
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"shard is {shard!r}, expected a part and how many there are, as --shard 3/16.")
    return part, parts


def is_whole(path: Path) -> bool:
    """Whether a result is there and was not cut off, as a copy may be: gzip ends with the size of what it holds."""
    try:
        image: Any = open_image(path)
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            stored = int.from_bytes(file.read(), "little")
    except Exception:
        return False
    size = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    return stored == size % 2**32
