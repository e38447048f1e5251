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

from ...degradations.base import Degradation
from ...degradations.profiles import GaussianProfile
from ...errors import format_call
from ...io.files import read_json_object
from ...io.naming import SIMULATED
from ...io.read import read_volume
from ...io.writing import write_atomically
from ..degraded import save_degraded

_SCAN_SEED = 1000  # of the head for inference, which is in no cohort
_printed: set[str] = set()


def simulate_cohort(folder: str, datalist: Mapping[str, Any], **settings: Any) -> str:
    """The folder of a simulated cohort with its ``dataset.json``, made if it does not exist.

    Configs use it as default for ``dataset_dir``. Of several processes one makes the cohort and the others wait. It is
    moved to its place when complete. The rest of a killed process is completed.

    Args:
        folder: of the cohort.
        datalist: arguments of :func:`~common.data.lists.assignment.write_datalist`.
        settings: arguments of :func:`~common.data.simulation.subjects.simulate_subjects`.
    """

    def write_cohort(place: Path) -> None:
        from ..lists.assignment import write_datalist
        from .subjects import simulate_subjects

        simulate_subjects(str(place), **settings, keep=True)
        write_datalist(str(place), **datalist)

    _make_once(Path(folder), {**settings, "datalist": dict(datalist)}, write_cohort)
    _print_once(
        folder,
        f"these are {settings['subjects']} simulated heads, in {folder}. Your own: "
        f"--dataset_dir DIR, with a DIR/dataset.json by {format_call('datalist')}.",
    )
    return str(folder)


def simulate_scan(
    folder: str, degradation: Degradation, contrast: str = "t1w", guide: str | None = None, spacing: float = 1.0
) -> str:
    """A simulated LR scan for inference, made if it does not exist, see :func:`simulate_cohort`.

    Args:
        folder: gets a subfolder named by the degradation's factors, with ``simulated_<contrast>.nii.gz`` and its HR
            volume ``..._hr.nii.gz``.
        degradation: from HR to LR; the slices are axial.
        contrast: of the scan, as for :func:`~common.data.simulation.subjects.simulate_subjects`.
        guide: another contrast of the head, which is also written, in HR.
        spacing: of HR in mm.

    Returns:
        The scan's path; with a guide the folder of both.
    """
    contrasts = [contrast] if guide is None else [contrast, guide]
    place = Path(folder, "x".join(str(factor) for factor in degradation.factors))

    def write_scan(new: Path) -> None:
        simulate_head(new, contrasts, spacing)
        scan = new / f"simulated_{contrast}.nii.gz"
        hr = scan.with_name(f"simulated_{contrast}_hr.nii.gz")
        shutil.copyfile(scan, hr)
        save_degraded(read_volume(hr), degradation, scan)

    _make_once(place, {"contrasts": contrasts, "spacing": spacing}, write_scan)
    _print_once(str(place), f"this is a simulated {contrast} scan, in {place}. Your own: --dataset_dir FOLDER_OR_FILE.")
    return str(place if guide else place / f"simulated_{contrast}.nii.gz")


def simulate_exam(folder: str, contrast: str = "t1w") -> str:
    """A simulated exam of three thick stacks, made if it does not exist, see :func:`simulate_cohort`.

    Args:
        folder: gets a subfolder with ``simulated_<contrast>_sag.nii.gz``, ``_cor``, ``_ax`` and their HR volume
            ``hr/simulated_...``, whose voxels are 1.4 mm wide. Slices are four voxels thick.
        contrast: as for :func:`~common.data.simulation.subjects.simulate_subjects`.

    Returns:
        The folder of the stacks.
    """
    place, thickness, spacing = Path(folder, "stacks_4"), 4, 1.4

    def write_exam(new: Path) -> None:
        simulate_head(new / "hr", [contrast], spacing)
        hr = read_volume(new / "hr" / f"simulated_{contrast}.nii.gz")
        for axis, plane in enumerate(("sag", "cor", "ax")):
            factors = [thickness if axis == other else 1 for other in range(3)]
            save_degraded(hr, GaussianProfile(factors), new / "stacks" / f"simulated_{contrast}_{plane}.nii.gz")

    _make_once(place, {"contrast": contrast, "spacing": spacing}, write_exam)
    stacks = str(place / "stacks")
    _print_once(stacks, f"these are three simulated {contrast} stacks, in {stacks}. Your own: --dataset_dir FOLDER.")
    return stacks


def simulate_head(folder: Path, contrasts: Sequence[str], spacing: float) -> None:
    """Write a head that is in no cohort, as ``simulated_<contrast>.nii.gz``.

    Args:
        folder: to write to.
        contrasts, spacing: as for :func:`~common.data.simulation.subjects.simulate_subjects`.
    """
    from .subjects import simulate_subjects

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
