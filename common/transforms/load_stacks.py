"""Load the further stacks of an exam, bring guides to them, and resample results to the grid of a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from nibabel.affines import voxel_sizes

from ..degradations.profiles import GaussianProfile
from ..geometry.registration.stacks import register_stacks
from ..geometry.resampling import SplineResampling
from ..geometry.stack import Stack
from ..io.images import open_image
from ..runtime.errors import Notice, get_first_line
from .guide import ResampleGuided
from .result_grid import check_axes
from .scan.volume import POSSIBLE_AXES, attach_meta


class LoadStacksd(Transform):
    """Read each file of an entry's "stacks" and "contrasts"; leave out those that cannot be read, with a warning.

    Where neither file nor spacing shows which axis of a stack runs across its slices, it is the one at which the stacks
    of the contrast fit each other best: each possible one is registered to another stack. A notice names it.

    Args:
        reader: function that reads an entry with one scan, "image".
        fewest_stacks: scans that are needed, that one among them; a guide counts as a scan. One that is left because
            no other can be read is enough.
    """

    def __init__(self, reader: Callable, fewest_stacks: int = 2) -> None:
        self.reader, self.fewest_stacks = reader, fewest_stacks

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        axes, files = d.get("slice_axes", {}), [d.get("stacks", ()), *d.get("contrasts", ())]
        (d["image"], *d["stacks"]), *contrasts = (
            self._choose_slice_axes([*first, *self._read_stacks(stacks, axes)])
            for first, stacks in zip([[d["image"]], *[[]] * len(files)], files, strict=False)
        )
        d["contrasts"] = [stacks for stacks in contrasts if stacks]
        if self.fewest_stacks > 1 and not d["stacks"] and not d["contrasts"] and "guide" not in d:
            file = d["image"].meta["filename_or_obj"]
            if not any(files):
                raise ValueError(f"{file}: no other stack to combine it with; name at least two.")
            warnings.warn(f"{file}: done alone, because no other stack of its exam can be read.", stacklevel=2)
        return d

    def _read_stacks(self, files: Sequence[str], axes: Mapping[str, str]) -> list[Any]:
        stacks = []
        for file in files:
            try:
                stacks.append(self.reader({"image": file, "slice_axes": axes})["image"])
            except Exception as error:
                reason = get_first_line(error).removeprefix(f"{file}: ")
                warnings.warn(f"{file}: left out; {reason}", stacklevel=3)
        return stacks

    def _choose_slice_axes(self, stacks: Sequence[Any]) -> list[Any]:
        """The stacks of a contrast, each along the slice axis at which it fits best."""
        versions = [self._read_versions(stack) for stack in stacks]
        if not any(len(each) > 1 for each in versions):
            return [*stacks]
        fixed = min(range(len(stacks)), key=lambda i: len(versions[i]))  # one whose axis is known, if there is any
        others = [i for i in range(len(stacks)) if i != fixed and (len(versions[i]) > 1 or len(versions[fixed]) > 1)]
        found = [
            {i: [measure_stack_fit(first, each) for each in versions[i].values()] for i in others}
            for first in versions[fixed].values()
        ]
        totals = [sum(max(fits) for fits in each.values()) for each in found]
        chosen = {fixed: int(np.argmax(totals))}
        chosen |= {i: int(np.argmax(fits)) for i, fits in found[chosen[fixed]].items()}
        for i, each in enumerate(versions):
            if len(each) > 1:
                fits = totals if i == fixed else found[chosen[fixed]][i]
                _report_slice_axis(stacks[i].meta["filename_or_obj"], [*each], chosen[i], fits if others else [])
        return [[*each.values()][chosen.get(i, 0)] for i, each in enumerate(versions)]

    def _read_versions(self, stack: Any) -> dict[str, Any]:
        """A stack along each axis that may run across its slices, by the name of the axis."""
        possible, file = stack.meta.get(POSSIBLE_AXES, [""]), stack.meta.get("filename_or_obj")
        again = {axis: self.reader({"image": file, "slice_axes": {file: axis}})["image"] for axis in possible[1:]}
        return {possible[0]: stack, **again}


def measure_stack_fit(fixed: Any, moving: Any) -> float:
    """How well a stack fits another after rigid registration: the local correlation, averaged as both slices are.

    Args:
        fixed, moving: volumes ``(1, X, Y, Z)`` with affines, slices along the last axis.
    """
    stacks = [
        Stack(v.as_tensor()[0].float(), np.asarray(v.affine, float), 1.0, "", torch.ones(v.shape[1:], dtype=torch.bool))
        for v in (fixed, moving)
    ]
    return register_stacks(stacks[0], stacks[1], is_rigid=True).correlation[1]


def _report_slice_axis(file: str, axes: Sequence[str], chosen: int, fits: Sequence[float]) -> None:
    """Give a notice of the slice axis of a stack, with its fit and those of the other axes; empty if unknown."""
    how = "the coarsest"
    if fits:
        others = ", ".join(f"{fit:.3f} along {axis}" for axis, fit in zip(axes, fits, strict=True))
        how = f"at which it fits the other stacks best (correlation {others})"
    warnings.warn(
        f"{file}: neither header nor voxel sizes show which axis runs across the slices; {axes[chosen]} is taken, "
        f"{how}. To name another, give mri-sr --slice_axis.",
        Notice,
        stacklevel=4,
    )


class GuideStacksd(Transform):
    """Resample an entry's "guide", if any, to cubic voxels over its first stack: see :class:`ResampleGuided`.

    If there are further stacks, a guide that does not fit is left out with a warning.

    Args:
        register, quality_dir: as for :class:`ResampleGuided`.
    """

    def __init__(self, register: bool | str = "auto", quality_dir: str | os.PathLike | None = None) -> None:
        self.options: dict[str, Any] = {"register": register, "quality_dir": quality_dir}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if "guide" not in data:
            return dict(data)
        spacing = voxel_sizes(np.asarray(data["image"].affine))
        cubes = GaussianProfile((1, 1, max(1.0, spacing[2] / spacing[:2].min())))
        try:
            return ResampleGuided("guide", "image", cubes, **self.options)(data)
        except ValueError as error:
            if not data["stacks"]:
                raise
            warnings.warn(f"guide left out; {error}", stacklevel=2)
            return {key: value for key, value in data.items() if key != "guide"}


class ResampleToFiled(MapTransform):
    """Resample volumes to the grid of a file, by cubic splines; 0 outside of their field of view.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine.
        grid_file: the file; None to leave volumes as they are.
    """

    def __init__(self, keys: KeysCollection, grid_file: str | os.PathLike | None) -> None:
        super().__init__(keys)
        self.grid_file = grid_file
        if grid_file is None:
            return
        grid = open_image(grid_file)
        self.shape, self.affine = grid.shape[:3], np.asarray(grid.affine, dtype=np.float64)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.grid_file is not None else ():
            check_axes(d[key].meta.get("filename_or_obj", key), self.grid_file)
            d[key] = resample_to_grid(d[key], self.shape, self.affine, f"--grid_file {self.grid_file}")
        return d


class ResampleToReferenced(MapTransform):
    """Resample volumes to the grid of another volume of the entry, by cubic splines, to compare the two.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine.
        reference: key of the other volume.
    """

    def __init__(self, keys: KeysCollection, reference: str) -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        reference = d[self.reference]
        affine = np.asarray(reference.affine, dtype=np.float64)
        for key in self.key_iterator(d):
            d[key] = resample_to_grid(d[key], reference.shape[1:], affine, str(self.reference))
        return d


def resample_to_grid(result: Any, shape: Sequence[int], affine: np.ndarray, name: str) -> Any:
    """A volume ``(1, X, Y, Z)`` on a grid that messages call ``name``; 0 outside of its field of view."""
    volume = result.as_tensor()
    places = np.linalg.inv(np.asarray(result.affine, dtype=np.float64)) @ affine
    resampling = SplineResampling(volume.shape[1:], shape, places)
    if not resampling.find_inside().any():
        raise ValueError(f"{name}: its grid lies outside of the result; name a file that overlaps.")
    resampled = resampling(volume[0].float())
    low, high = float(volume.min()), float(volume.max())
    resampled = resampled.clamp(min(low, 0.0), high)
    if not volume.is_floating_point():
        resampled = resampled.round()
    return attach_meta(resampled.to(volume.dtype)[None], torch.from_numpy(affine), result.meta)
