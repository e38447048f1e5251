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
from ..geometry.resampling import SplineResampling
from ..io.images import open_image
from ..runtime.errors import get_first_line
from .guide import ResampleGuided
from .result_grid import check_axes
from .scan.volume import attach_meta


class LoadStacksd(Transform):
    """Read each file of an entry's "stacks" and "contrasts"; leave out those that cannot be read, with a warning.

    Args:
        reader: function that reads an entry with one scan, "image".
        fewest_stacks: scans that are needed, that one among them; a guide counts as a scan.
    """

    def __init__(self, reader: Callable, fewest_stacks: int = 2) -> None:
        self.reader, self.fewest_stacks = reader, fewest_stacks

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        d["stacks"], *contrasts = (self._read_stacks(files) for files in (d.get("stacks", ()), *d.get("contrasts", ())))
        d["contrasts"] = [stacks for stacks in contrasts if stacks]
        if self.fewest_stacks > 1 and not d["stacks"] and not d["contrasts"] and "guide" not in d:
            raise ValueError(f"{d['image'].meta['filename_or_obj']}: no other stack to combine it with can be read.")
        return d

    def _read_stacks(self, files: Sequence[str]) -> list[Any]:
        stacks = []
        for file in files:
            try:
                stacks.append(self.reader({"image": file})["image"])
            except Exception as error:
                reason = get_first_line(error).removeprefix(f"{file}: ")
                warnings.warn(f"{file}: left out; {reason}", stacklevel=3)
        return stacks


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
