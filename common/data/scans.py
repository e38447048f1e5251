"""The scans, or the exams, that inference super-resolves."""

from __future__ import annotations

from typing import Any

from ..degradations import Degradation
from ..io.files import check_writable
from ..runtime.distributed import connect_processes
from ..values import parse_bool
from .case import Case
from .lists.exams import combine_exam, group_exams
from .lists.scan_kinds import print_skipped
from .lists.scans import find_scans
from .lists.sharding import select_cases
from .simulation.cohort import simulate_exam, simulate_scan


def find_cases(
    dataset_dir: str | None,
    output_dir: str,
    degradation: Degradation,
    contrast: str = "t1w",
    lr: str | None = None,
    guide: str | None = None,
    guided: bool | str = True,
    subject: str | None = None,
    skip_existing: bool | str = False,
    shard: str | None = None,
    bids: bool | str = False,
) -> list[Case]:
    """Find the scans of a folder, a single file, or a simulated scan; this process's share of them.

    Args:
        dataset_dir: file or folder; None for a scan that is simulated in ``output_dir/scan``.
        output_dir: folder of the results.
        degradation: from HR to the simulated scan.
        contrast: of the simulated scan.
        lr: pattern of the scans' files, if there are guides.
        guide: pattern of the guides' files; None for scans without guides.
        guided: whether there are guides; if not, ``guide`` is ignored.
        subject: pattern of the part of a path that names the subject; see :func:`common.data.find_scans`.
        skip_existing, shard, bids: as for :func:`common.data.lists.sharding.select_cases`.
    """
    check_writable(output_dir)
    if not parse_bool(guided, "guided"):
        guide = None
    if dataset_dir is None:
        dataset_dir = simulate_scan(f"{output_dir}/scan", degradation, contrast, None if guide is None else "t1w")
    return _select(find_scans(dataset_dir, lr, guide, subject), output_dir, skip_existing, shard, bids)


def find_exams(
    dataset_dir: str | None,
    output_dir: str,
    skip_existing: bool | str = False,
    shard: str | None = None,
    bids: bool | str = False,
    fewest_stacks: int = 2,
) -> list[Case]:
    """Find scans with thick slices, grouped by exam and contrast: files in one folder, by their names.

    A single scan is skipped with a printed line, unless it is enough.

    Args:
        dataset_dir: folder; None for an exam that is simulated in ``output_dir/scan``.
        output_dir, skip_existing, shard, bids: as for :func:`find_cases`.
        fewest_stacks: of an exam.
    """
    check_writable(output_dir)
    path = simulate_exam(f"{output_dir}/scan") if dataset_dir is None else dataset_dir
    groups = group_exams(find_scans(path))
    exams = [case for group in groups if len(group) >= fewest_stacks for case in combine_exam(group, fewest_stacks)]
    alone = {
        group[0]["image"]: "the folder has no other scan of its exam" for group in groups if len(group) < fewest_stacks
    }
    if not exams:
        raise ValueError(
            f"{path}: found {', '.join(alone)}, expected scans of one exam in one folder, with names that "
            "differ in plane or contrast, such as brain_ax.nii.gz and brain_cor.nii.gz. Or name the scans: "
            "mri-sr A B --together, or --exam."
        )
    print_skipped(alone)
    return _select(exams, output_dir, skip_existing, shard, bids)


def _select(cases: list[Case], *selection: Any) -> list[Case]:
    """Select the cases that are left for this process, and connect it to the others."""
    left = select_cases(cases, *selection)
    connect_processes()
    return left
