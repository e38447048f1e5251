"""The scans that inference super-resolves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import Dataset
from monai.transforms import Compose

from ..degradations import Degradation
from ..physics.scale import across_slices as check_across_slices
from ..runtime.distributed import join
from ..transforms import (
    CheckLabelsd,
    CheckMemoryd,
    CheckThickSlicesd,
    CheckTrainingRanged,
    DenoiseSlicesd,
    EvenSlicesd,
    LoadScand,
    NormaliseVolumed,
    ResampleGuided,
    check_slice_factor,
    resized_planes,
)
from ..values import is_true
from .case import Case
from .lists.scans import find_scans
from .lists.sharding import select_cases
from .simulation.cohort import simulated_scan


class Scans(Dataset):
    """The scans of a folder, a single file, or a simulated scan; this process's share of them.

    Args:
        dataset_dir: file or folder; None for a scan that is simulated in ``output_dir/scan``.
        slice_axis: axis across the slices, as for :class:`common.transforms.LoadScand`; None for "SI" if the scale is
            the same along all axes, else "auto".
        training_range: range that scans are compared with; None for the range in the weights' overlay, if any.
        across_slices: the scale [1, 1, n] of a method that makes slices thinner and needs thick slices; None for other
            methods.
        contrast: of the simulated scan.
        lr: pattern of the scans' files, if there are guides.
        guide: pattern of the guides' files; None for scans without guides.
        subject: pattern of the part of a path that names the subject; see :func:`common.data.find_scans`.
        skip_existing: whether to skip scans with complete results.
        shard: this process's share of the scans, such as "3/16"; None for all.
        bids: whether results are named as BIDS derivatives.
        denoise: whether scans are denoised slice by slice.
        lr_spacing: pixel size in plane in mm to resize to, see :func:`common.transforms.resized_planes`; None for no
            resizing.
        check_mr: whether scans and guides are refused whose values look like those of CT.
        data: cases, or their entries; None to find them.

    Raises:
        ValueError: when ``across_slices`` is not such a scale.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        slice_axis: str | None = "auto",
        training_range: Mapping[str, Sequence[float]] | None = None,
        across_slices: Sequence[float] | None = None,
        contrast: str = "t1w",
        lr: str | None = None,
        guide: str | None = None,
        subject: str | None = None,
        skip_existing: bool | str = False,
        shard: str | None = None,
        bids: bool | str = False,
        denoise: bool | str = False,
        lr_spacing: Sequence[float] | None = None,
        check_mr: bool | str = True,
        data: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.bids, self.shard = is_true(bids, "bids"), shard
        self._dataset_dir, self._contrast, self._patterns = dataset_dir, contrast, (lr, guide, subject)
        self._skip = is_true(skip_existing, "skip_existing")
        self._slice_axis, self._training_range = slice_axis, training_range
        self._check_mr = is_true(check_mr, "check_mr")
        self._denoise, self._lr_spacing = is_true(denoise, "denoise"), lr_spacing
        self._factor = None if across_slices is None else check_across_slices(whole=False, scale=across_slices)
        super().__init__([] if data is None else data)
        self._found = data is not None

    def find(
        self,
        output_dir: str,
        degradation: Degradation | None,
        trained_on: Mapping[str, Sequence[float]] | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Find the cases, unless they were given, and set up how scans are read.

        Args:
            output_dir: folder of the results.
            degradation: from HR to a scan, for simulated scans.
            trained_on: training range of the weights; used if no ``training_range`` was given.
            device: where the network runs, for a check of the memory; None for no check.
        """
        compared = CheckTrainingRanged("image", training_range=self._training_range or trained_on)
        labels = CheckLabelsd("label_map", "image", output_dir, self.bids, allow_missing_keys=True)
        memory = [] if degradation is None or device is None else [CheckMemoryd("image", degradation, device)]
        self.transform = Compose([*self.steps(compared, output_dir, degradation), *memory, labels])
        if self._found:
            return
        found = self.find_cases(output_dir, degradation)
        self.data = select_cases(found, output_dir, self._skip, self.shard, self.bids)
        join()
        self._found = True

    def find_cases(self, output_dir: str, degradation: Degradation | Any) -> list[Case]:
        """The cases; the arguments are as for :meth:`find`."""
        lr, guide, subject = self._patterns
        path, guide_contrast = self._dataset_dir, None if guide is None else "t1w"
        if path is None:
            path = simulated_scan(f"{output_dir}/scan", degradation, self._contrast, guide_contrast)
        return find_scans(path, lr, guide, subject)

    def steps(self, compared: CheckTrainingRanged, output_dir: str, degradation: Degradation | Any) -> list[Callable]:
        """Transforms that read a scan, including ``compared``; the other arguments are as for :meth:`find`."""
        axis = self._slice_axis or ("SI" if len(set(degradation.factors)) == 1 else "auto")
        return [
            LoadScand("image", slice_axis=axis, check_mr=self._check_mr),
            compared,
            *([DenoiseSlicesd("image")] if self._denoise else []),
            *([] if self._lr_spacing is None else resized_planes("image", self._lr_spacing)),
            *([] if self._factor is None else [CheckThickSlicesd("image", self._factor)]),
        ]


class GuidedScans(Scans):
    """Scans, each with a guide of the same subject on the grid of the result.

    Args:
        dataset_dir, lr, contrast, options: as for :class:`Scans`.
        guide: pattern of the guides' files.
        guided: whether there are guides; if not, ``guide`` is ignored.
        register: whether guides are registered to their scans, see :class:`common.transforms.ResampleGuided`.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        lr: str,
        guide: str,
        guided: bool | str = True,
        register: bool | str = "auto",
        contrast: str = "t2w",
        **options: Any,
    ) -> None:
        self._guided, self._register = is_true(guided, "guided"), register
        super().__init__(dataset_dir, lr=lr, guide=guide if self._guided else None, contrast=contrast, **options)

    def steps(self, compared: CheckTrainingRanged, output_dir: str, degradation: Degradation) -> list[Callable]:
        """Transforms of :class:`Scans`, and those for the guide."""
        steps = super().steps(compared, output_dir, degradation)
        if not self._guided:
            return steps
        grid: dict[str, Any] = {"degradation": degradation, "register": self._register, "quality_dir": output_dir}
        load = LoadScand("guide", ordered=False, check_mr=self._check_mr, allow_missing_keys=True)
        return [steps[0], load, *steps[1:], ResampleGuided("guide", reference="image", **grid)]


class ThickScans(Scans):
    """:class:`Scans` of thick-slice MR, whose slices must fit the scale; those that alternate in brightness are evened.

    Args:
        dataset_dir: as for :class:`Scans`.
        scale: ``[1, 1, n]``, n thin slices for each thick one.
        slice_axis: as for :class:`Scans`.
        even_slices: whether slices that alternate in brightness are evened out.
        models: folder of weights with their overlays; messages name the overlay that fits a scan better.
        options: further arguments of :class:`Scans`.

    Raises:
        ValueError: for any other scale.
    """

    def __init__(
        self,
        dataset_dir: str | None,
        scale: Sequence[int],
        slice_axis: str | None = "auto",
        even_slices: bool | str = True,
        models: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        factor = check_across_slices(scale=scale)
        check_slice_factor(factor)
        self._even_slices = is_true(even_slices, "even_slices")
        self._fits = CheckThickSlicesd("image", scale=factor, models=models)
        super().__init__(dataset_dir, slice_axis, **options)

    def steps(self, compared: CheckTrainingRanged, output_dir: str, degradation: Degradation) -> list[Callable]:
        """Transforms that read a scan."""
        return [
            LoadScand("image", slice_axis=self._slice_axis, normalise=False, check_mr=self._check_mr),
            NormaliseVolumed("image"),
            *([EvenSlicesd("image")] if self._even_slices else []),
            self._fits,
            compared,
        ]
