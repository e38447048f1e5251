"""The scans that inference super-resolves."""

from __future__ import annotations

from typing import Any

from ..degradations import Degradation
from ..io.writing import check_writable
from ..runtime.distributed import connect_processes
from ..values import parse_bool
from .case import Case
from .lists.scans import find_scans
from .lists.sharding import select_cases
from .simulated import import_simulation


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
        simulation, folder = import_simulation(), f"{output_dir}/scan"
        dataset_dir = simulation.simulate_scan(folder, degradation, contrast, None if guide is None else "t1w")
    return select_left(find_scans(dataset_dir, lr, guide, subject), output_dir, skip_existing, shard, bids)


def select_left(cases: list[Case], *selection: Any) -> list[Case]:
    """Select the cases that are left for this process, and connect it to the others."""
    left = select_cases(cases, *selection)
    connect_processes()
    return left
