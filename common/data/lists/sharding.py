"""Select the scans of a list that are left to do, and this process's share of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...io.images import open_image
from ...io.inputs import describe_inputs, find_owner
from ...io.naming import files_of, result_path
from ...runtime.distributed import rank
from ...values import is_true


def own_share(
    entries: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike,
    skip_existing: bool | str = False,
    shard: str | None = None,
    bids: bool | str = False,
    describe: Callable[[Mapping[str, Any]], list[dict[str, Any]]] = describe_inputs,
    is_done: Callable[[Mapping[str, Any], Path], bool] = lambda entry, path: is_whole(path),
) -> list[dict[str, Any]]:
    """The entries that this process has to do.

    Jobs of an array and processes under torchrun take every n-th entry; both can be combined. So each entry is done
    once, for any number of jobs and existing results.

    Args:
        entries: from :func:`common.data.find_images`.
        output_dir: folder of the results.
        skip_existing: whether to skip entries with complete results that were made of the same inputs.
        shard: "3/16" for the third of 16 parts; default all.
        bids: whether results are named as BIDS derivatives.
        describe: the inputs of an entry, called only if something is where its result goes.
        is_done: whether the result of an entry at a path is complete.

    Returns:
        The entries. An entry has a "problem" if its result cannot be named; would overwrite a scan or a guide of the
        list, another entry's result, or a result of another scan; or if its inputs cannot be read again.

    Raises:
        ValueError: when ``shard`` is not as described, or a switch is neither true nor false.
    """
    part, parts = _shard(shard)
    skip, bids = is_true(skip_existing, "skip_existing"), is_true(bids, "bids")
    checked, paths = _with_paths(entries, output_dir, bids)
    number, count = rank()
    own = [*zip(checked, paths, strict=True)][part - 1 :: parts][number::count]
    left = []
    for entry, path in own:
        if "problem" not in entry and path is not None:
            owner = find_owner(path, partial(describe, entry))
            if owner == "same" and skip and is_done(entry, path):
                continue
            if owner == "changed":
                print(f"{entry['name']}: its inputs have changed since {path} was made; it is made again", flush=True)
            elif owner not in ("nobody", "same"):
                entry["problem"] = owner
        left.append(entry)
    if len(left) < len(own):
        whose = f"process {number + 1} of {count}: " if count > 1 else ""
        print(f"{whose}{len(own) - len(left)} of {len(own)} scans have their results in {output_dir}", flush=True)
    return left


def _with_paths(
    entries: Sequence[Mapping[str, Any]], output_dir: str | os.PathLike, bids: bool
) -> tuple[list[dict[str, Any]], list[Path | None]]:
    """Entries with the "problem" of their result's path, if any; and the paths."""
    inputs = {os.path.realpath(file) for entry in entries for file in files_of(entry)}
    checked, paths = [], []
    for entry in entries:
        path, problem = None, None
        try:
            path = result_path(output_dir, entry["name"], bids=bids)
            if os.path.realpath(path) in inputs:
                problem = f"{entry['image']}: its result would be written over {path}; name another output folder."
        except ValueError as error:
            problem = str(error)
        checked.append({**({"problem": problem} if problem else {}), **entry})
        paths.append(path)
    count = Counter(path for path, entry in zip(paths, checked, strict=True) if "problem" not in entry)
    for path, entry in zip(paths, checked, strict=True):
        if count[path] > 1 and "problem" not in entry:
            names = [other["name"] for other, its in zip(checked, paths, strict=True) if its == path]
            entry["problem"] = f"{path} would be the result of {' and of '.join(names)}; rename one of them."
    return checked, paths


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
