"""The cases of inference with a guide, and of exams whose stacks are combined."""

from __future__ import annotations

from typing import Any

from ..data.case import Case
from ..data.lists.scan_kinds import print_skipped
from ..data.lists.sharding import select_pending_cases
from ..data.scans import find_scans
from ..data.simulated import NoCases, import_simulation, lacks_simulation
from ..degradations.base import Degradation
from ..io.writing import check_writable
from ..runtime.distributed import connect_processes
from ..values import parse_bool
from .grouping import combine_exam, group_exams
from .partners import find_paired_scans


def find_guided_cases(
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
    """Find scans and their guides, as :func:`common.data.scans.find_cases`.

    Args:
        dataset_dir, output_dir, degradation, contrast: as there; a simulated scan has a T1w guide.
        lr: pattern of the scans' files.
        guide: pattern of the guides' files, or the path of one.
        guided: whether there are guides; if not, ``guide`` is ignored.
        subject: pattern of the part of a path that names the subject; see :func:`find_paired_scans`.
        skip_existing, shard, bids: as for :func:`common.data.lists.sharding.select_pending_cases`.
    """
    check_writable(output_dir)
    if dataset_dir is None and lacks_simulation():
        return NoCases()
    if not parse_bool(guided, "guided"):
        guide = None
    if dataset_dir is None:
        simulation, folder = import_simulation(), f"{output_dir}/scan"
        dataset_dir = simulation.simulate_scan(folder, degradation, contrast, None if guide is None else "t1w")
    return _select_share(find_paired_scans(dataset_dir, lr, guide, subject), output_dir, skip_existing, shard, bids)


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
        output_dir, skip_existing, shard, bids: as for :func:`find_guided_cases`.
        fewest_stacks: of an exam.
    """
    check_writable(output_dir)
    if dataset_dir is None and lacks_simulation():
        return NoCases()
    path = import_simulation().simulate_exam(f"{output_dir}/scan") if dataset_dir is None else dataset_dir
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
    return _select_share(exams, output_dir, skip_existing, shard, bids)


def _select_share(cases: list[Case], *selection: Any) -> list[Case]:
    """The cases that this process has to do, connected to the others."""
    left = select_pending_cases(cases, *selection)
    connect_processes()
    return left
