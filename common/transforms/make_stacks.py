"""Simulate an exam of thick stacks from HR volumes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..degradations.profiles import GaussianProfile
from .scan.volume import SliceAxisd, attach_meta


class MakeStacksd(MapTransform):
    """Simulate thick stacks of HR volumes, as the further scans of an exam.

    The entry gets "stacks" and "contrasts", as :class:`LoadStacksd` gives them: the stacks of "hr" are "stacks", and
    those of every other key are one of the "contrasts". The scan itself, "lr", is made by :class:`MakeLRd`.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine; those that an entry lacks have no stacks.
        axes: for each key the anatomical axes across the slices of its stacks: "LR", "AP" or "SI"; none for no stack.
        factor: voxels of the volume in the thickness of a slice.
    """

    def __init__(self, keys: KeysCollection, axes: Sequence[Sequence[str]], factor: float) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.axes = dict(zip(self.keys, axes, strict=True))
        self.profile = GaussianProfile((1, 1, factor))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        stacks = {key: [self._make_stack(d[key], axis) for axis in self.axes[key]] for key in self.key_iterator(d)}
        d["stacks"] = stacks.pop("hr", [])
        d["contrasts"] = [each for each in stacks.values() if each]
        return d

    def _make_stack(self, volume: Any, axis: str) -> Any:
        """The stack of a volume with slices across an axis; its file is named with this axis."""
        ordered = SliceAxisd("volume", axis)({"volume": volume})["volume"]
        z = ordered.shape[-1]
        whole = ordered.as_tensor()[..., : int(z // self.profile.factors[2] * self.profile.factors[2])]
        affine = np.asarray(self.profile.compute_lr_affine(ordered.affine), dtype=np.float64)
        meta = {**ordered.meta, "filename_or_obj": f"{volume.meta.get('filename_or_obj', '')} {axis}"}
        return attach_meta(self.profile(whole), affine, meta)
