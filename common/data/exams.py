"""The exams whose stacks inference combines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.transforms import Compose, ThresholdIntensityd

from ..degradations import Degradation
from ..transforms import (
    CheckTrainingRanged,
    EvenSlicesd,
    GuideStacksd,
    LoadScand,
    LoadStacksd,
    NormaliseVolumed,
)
from ..values import is_true
from .case import Case
from .lists.exams import combine_stacks, group_by, identify_exam
from .lists.scan_kinds import say_passed_over
from .lists.scans import find_scans
from .scans import Scans
from .simulation.cohort import simulated_exam


class Exams(Scans):
    """Stacks of thick slices, grouped by exam: files in one folder whose names differ only in the plane.

    A stack that cannot be read is left out with a warning. A single scan is skipped with a printed line.

    Args:
        dataset_dir: folder; None for an exam that is simulated in ``output_dir/scan``.
        slice_axis: as for :class:`Scans`.
        even_slices: whether slices that alternate in brightness are evened out.
        register: whether to register guides, which given entries may have, see
            :class:`common.transforms.ResampleGuided`.
        options: further arguments of :class:`Scans`.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        slice_axis: str = "auto",
        even_slices: bool | str = True,
        register: bool | str = "auto",
        **options: Any,
    ) -> None:
        self._even_slices, self._register = is_true(even_slices, "even_slices"), register
        super().__init__(dataset_dir, slice_axis, **options)

    def find_cases(self, output_dir: str, degradation: Degradation | None) -> list[Case]:
        """One case for each exam."""
        path = self._dataset_dir
        found = find_scans(simulated_exam(f"{output_dir}/scan", self._contrast) if path is None else path)
        groups = group_by(found, lambda case: identify_exam(case["image"]))
        exams = [combine_stacks(group) for group in groups if len(group) > 1]
        alone = {group[0]["image"]: "the folder has no other stack of its exam" for group in groups if len(group) == 1}
        if not exams:
            raise ValueError(
                f"{path}: found {', '.join(alone)}, expected stacks of one exam in one folder, with names that "
                "differ only in the plane, such as brain_ax.nii.gz and brain_cor.nii.gz. Or name the stacks: "
                "mri-sr A B --together."
            )
        say_passed_over(alone)
        return exams

    def steps(self, compared: CheckTrainingRanged, output_dir: str, degradation: Degradation | None) -> list[Callable]:
        """Transforms that read an exam."""
        read = Compose(
            [
                LoadScand("image", slice_axis=self._slice_axis, normalise=False, check_mr=self._check_mr),
                # Interpolation leaves negative voxels; normalised with them, the stacks would differ in their zero.
                ThresholdIntensityd("image", threshold=0.0),
                NormaliseVolumed("image"),
                *([EvenSlicesd("image")] if self._even_slices else []),
            ]
        )
        guide = LoadScand("guide", ordered=False, check_mr=self._check_mr, allow_missing_keys=True)
        return [read, LoadStacksd(read), guide, GuideStacksd(self._register, output_dir)]
