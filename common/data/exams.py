"""The exams whose stacks inference combines."""

from __future__ import annotations

from ..io.writing import check_writable
from .case import Case
from .lists.exams import combine_exam, group_exams
from .lists.scan_kinds import print_skipped
from .lists.scans import find_scans
from .scans import select_left
from .simulated import import_simulation


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
    return select_left(exams, output_dir, skip_existing, shard, bids)
