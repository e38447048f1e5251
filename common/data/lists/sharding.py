"""Select the scans of a list that are left to do, and this process's share of them."""

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
    """The entries that this process has to do.

    Jobs of an array and processes under torchrun take every n-th entry; both can be combined. So each entry is done
    once, for any number of jobs and existing results.

    Args:
        entries: from :func:`common.data.find_images`.
        output_dir: folder of the results.
        skip_existing: whether to skip entries with complete results.
        shard: "3/16" for the third of 16 parts; default all.
        bids: whether results are named as BIDS derivatives.

    Returns:
        The entries. An entry has a "problem" if its result cannot be named, or would overwrite a scan or a guide of the
        list.

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
    """The number of a part, from 1, and the number of parts."""
    if shard is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", str(shard))
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"shard is {shard!r}, expected part/parts, such as --shard 3/16.")
    return part, parts


def is_whole(path: Path) -> bool:
    """Whether a result exists and is complete, by the size at the end of gzip files."""
    try:
        image: Any = open_image(path)
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            stored = int.from_bytes(file.read(), "little")
    except Exception:
        return False
    size = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    return stored == size % 2**32
