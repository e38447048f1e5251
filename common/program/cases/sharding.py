"""Select the cases that are left to do, and this process's share of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...io.images import open_image
from ...runtime.distributed import get_rank
from ..naming import make_label_path, make_result_path, make_series_path
from ..provenance import is_made_by
from .case import Case
from .inputs import compare_inputs, read_state


def select_pending_cases(
    cases: Sequence[Case],
    output_dir: str | os.PathLike,
    skip_existing: bool = False,
    shard: str | None = None,
    bids: bool = False,
    prepare: Callable[[Case], Any] = lambda case: None,
    divided: bool = False,
) -> list[Case]:
    """The cases that this process has to do.

    Jobs of an array and processes under torchrun take every n-th case; both can be combined. So each case is done
    once, for any number of jobs and existing results.

    A case gets a problem if its result cannot be named; would overwrite a scan or a guide of the list, another case's
    result, or a result of another scan; or if its inputs cannot be read again. A case that is skipped gets its result.

    Args:
        cases: from :func:`common.program.cases.scans.find_scans`.
        output_dir: folder of the results, or the file of the only one.
        skip_existing: whether to skip cases with complete results that were made of the same inputs by these weights.
        shard: as for :func:`parse_shard`.
        bids: whether results are named as BIDS derivatives.
        prepare: makes the files of a case readable; called only if something is where its result goes.
        divided: whether all cases are of this process's share.
    """
    part, parts = parse_shard(shard)
    paths = _check_result_paths(cases, output_dir, bids)
    number, count = get_rank()
    share = [*zip(cases, paths, strict=True)]
    if not divided:
        share = share[part - 1 :: parts][number::count]
    left, replaced = [], 0
    for case, path in share:
        if case.problem is None and path is not None:
            case.existing = path, read_state(path)
            owner = compare_inputs(path, partial(_describe_inputs, case, prepare))
            if owner == "same" and skip_existing and _is_done(case, path, Path(output_dir), bids):
                case.result = str(path)
                continue
            replaced += owner in ("same", "changed")
            if owner == "changed":
                print(f"{case.name}: its inputs have changed since {path} was made; it is made again", flush=True)
            elif owner not in ("nobody", "same"):
                case.problem = owner
        left.append(case)
    if len(left) < len(share):
        whose = f"process {number + 1} of {count}: " if count > 1 else ""
        print(f"{whose}{len(share) - len(left)} of {len(share)} scans have their results in {output_dir}", flush=True)
    if replaced:
        print(f"{replaced} earlier result{'s' * (replaced > 1)} in {output_dir} will be replaced", flush=True)
    return left


def parse_shard(shard: str | None) -> tuple[int, int]:
    """The number of a part, from 1, and the number of parts.

    Args:
        shard: "3/16" for the third of 16 parts; None for all.
    """
    if shard is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", str(shard))
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"shard is {shard!r}, expected part/parts, such as --shard 3/16.")
    return part, parts


def _check_result_paths(cases: Sequence[Case], output_dir: str | os.PathLike, bids: bool) -> list[Path | None]:
    """The path of each case's result. A case whose result cannot be written there gets a problem."""
    inputs = {os.path.realpath(file) for case in cases for file in case.images}
    paths: list[Path | None] = []
    for case in cases:
        path, problem = None, None
        try:
            path = make_result_path(output_dir, case.name, bids=bids)
            if os.path.realpath(path) in inputs:
                problem = f"{case['image']}: its result would be written over {path}; name another output."
        except ValueError as error:
            problem = str(error)
        case.problem = case.problem or problem
        paths.append(path)
    good = [(case, path) for case, path in zip(cases, paths, strict=True) if case.problem is None]
    count = Counter(path for _, path in good)
    for case, path in good:
        if count[path] > 1:
            names = [other.source for other, its in zip(cases, paths, strict=True) if its == path]
            case.problem = f"{path} would be the result of {' and of '.join(names)}; rename one of them."
    return paths


def _describe_inputs(case: Case, prepare: Callable[[Case], Any]) -> list[dict[str, Any]]:
    prepare(case)
    if case.problem is not None:
        raise ValueError(case.problem)
    return case.describe_inputs()


def _is_done(case: Case, path: Path, output: Path, bids: bool) -> bool:
    """Whether the results of a case are complete, and made by its weights."""
    derived = len([*make_series_path(output, case.name).glob("*/*.dcm")])
    has_series = case["image"] in case.series and case.volumes == 1
    return (
        _is_complete(path)
        and ("label_map" not in case or _is_complete(make_label_path(output, case.name, bids)))
        and (not has_series or derived == open_image(path).shape[2])
        and (case.choice is None or is_made_by(path, case.choice.candidate.bundle, case.choice.candidate.checkpoint))
    )


def _is_complete(path: Path) -> bool:
    """Whether a result exists and is complete, by the size of the file, or that at the end of a gzip file."""
    try:
        image: Any = open_image(path)
        stored = path.stat().st_size
        if path.suffix == ".gz":
            with path.open("rb") as file:
                file.seek(-4, os.SEEK_END)
                stored = int.from_bytes(file.read(), "little")
    except Exception:
        return False
    size = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    return stored in (size, size % 2**32)
