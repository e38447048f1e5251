"""Simulated scans for runs without data."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..io.files import read_json_object
from ..io.naming import SIMULATED
from ..io.writing import write_atomically
from ..runtime.errors import format_call

_SCAN_SEED = 1000  # of the head for inference, which is in no cohort
_printed: set[str] = set()


def simulate_cohort(folder: str, datalist: Mapping[str, Any], **settings: Any) -> str:
    """The folder of a simulated cohort with its ``dataset.json``, made if it does not exist.

    Configs use it as default for ``dataset_dir``. Of several processes one makes the cohort and the others wait. It is
    moved to its place when complete. The rest of a killed process is completed.

    Args:
        folder: of the cohort.
        datalist: arguments of :func:`~common.program.datalist.assignment.write_datalist`.
        settings: arguments of :func:`~common.data.simulation.subjects.simulate_subjects`.
    """

    def write_cohort(place: Path) -> None:
        from ..data.simulation.subjects import simulate_subjects
        from .datalist.assignment import write_datalist

        simulate_subjects(str(place), **settings, keep=True)
        write_datalist(str(place), **datalist)

    _make_once(Path(folder), {**settings, "datalist": dict(datalist)}, write_cohort)
    _print_once(
        folder,
        f"these are {settings['subjects']} simulated heads, in {folder}. Your own: "
        f"--dataset_dir DIR, with a DIR/dataset.json by {format_call('datalist')}.",
    )
    return str(folder)


def simulate_head(folder: Path, contrasts: Sequence[str], spacing: float) -> None:
    """Write a head that is in no cohort, as ``simulated_<contrast>.nii.gz``.

    Args:
        folder: to write to.
        contrasts, spacing: as for :func:`~common.data.simulation.subjects.simulate_subjects`.
    """
    from ..data.simulation.subjects import simulate_subjects

    simulate_subjects(str(folder), 1, _SCAN_SEED, ",".join(contrasts), spacing)
    for name in contrasts:
        (folder / "sub-001" / f"sub-001_{name}.nii.gz").rename(folder / f"simulated_{name}.nii.gz")
    (folder / "sub-001").rmdir()


def _make_once(folder: Path, settings: Mapping[str, Any], make) -> None:
    """Call ``make`` with a temporary folder, then rename it to ``folder``; do nothing if that exists already."""
    settings = json.loads(json.dumps(settings))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".lock-{folder.name}")):
        if folder.exists():
            known = folder / SIMULATED
            stored = read_json_object(known)[0] if known.is_file() else None
            if stored != settings:
                raise FileExistsError(
                    f"{folder} is in the way of simulated scans: it holds "
                    + (f"others, made with {stored} instead of {settings}" if stored else "something else")
                    + f". Use these with --dataset_dir {folder}, or set another --output_dir."
                )
            return
        temporary = folder.with_name(f".part-{folder.name}")
        description = json.dumps(settings, indent=2) + "\n"
        begun = temporary / SIMULATED
        if not begun.is_file() or begun.read_text(encoding="utf-8") != description:
            shutil.rmtree(temporary, ignore_errors=True)
            with write_atomically(begun) as new:
                new.write_text(description, encoding="utf-8")
        try:
            # Its output names the temporary folder.
            with contextlib.redirect_stdout(io.StringIO()):
                make(temporary)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"no --dataset_dir is given, and simulated scans cannot be made: {error} Or give --dataset_dir DIR."
            ) from None
        temporary.replace(folder)


def _print_once(folder: str, line: str) -> None:
    """Print a line once, in one process of a run."""
    if str(folder) not in _printed and os.environ.get("RANK", "0") == "0":
        print(f"no --dataset_dir is given: {line}", flush=True)
    _printed.add(str(folder))
