"""Registration of HR to LR (supervised baseline on misaligned pairs), and of authentic LR scans to HR (evaluation)."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..degradations.base import Degradation
from ..geometry.registration.contrasts import resample_rigidly, warp_onto
from ..io.naming import get_output_folder, make_case_stem
from ..io.writing import write_atomically
from .scan.volume import attach_meta


class RegisterHRd(MapTransform):
    """Move a misaligned HR volume rigidly onto its LR volume by mutual information, and resample it on its own grid.

    This replaces the registration of Liu et al. 2023, table I, which used extended mutual information in Amira 3D.

    Args:
        keys, lr_key: of the HR volume and the LR volume, ``(1, X, Y, Z)``.
        degradation: from HR to LR; gives the position of LR voxels on the HR grid.
        enabled: whether to register.
    """

    def __init__(self, keys: KeysCollection, lr_key: str, degradation: Degradation, enabled: bool = True) -> None:
        super().__init__(keys)
        self.lr_key = lr_key
        self.degradation = degradation
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.enabled else ():
            hr = d[key]
            # A frame whose axes are HR's own, in mm, with HR voxel 0 at the origin.
            place = np.diag([*np.linalg.norm(np.asarray(hr.affine)[:3, :3], axis=0), 1.0])
            moved = resample_rigidly(d[self.lr_key], self.degradation.compute_lr_affine(place), hr, place)
            d[key] = MetaTensor(moved).copy_meta_from(hr)
        return d


class RegisterLRd(MapTransform):
    """Warp an entry's own LR scan onto its HR volume, because patients move in between.

    LR is resampled once (:func:`~common.geometry.registration.contrasts.warp_onto`), to the grid that the degradation
    gives for HR, and clipped to its own range. An entry without HR or without LR stays as it is.

    Args:
        keys, reference: of the LR scan and the HR volume, ``(1, X, Y, Z)`` with their affines.
        degradation: from HR to LR; gives the position of LR voxels on the HR grid.
        quality_dir: folder for the quality of the registration, ``<LR scan's name>_registration.json``.
        enabled: whether to register.

    References:
        Huang et al. 2021, section 2.C.1, which uses B-splines too.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        degradation: Degradation,
        quality_dir: str | os.PathLike | None = None,
        enabled: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.reference = reference
        self.degradation = degradation
        self.quality_dir = quality_dir
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.enabled and self.reference in d else ():
            lr = d[key]
            x, y, z = [n // f * f for n, f in zip(d[self.reference].shape[1:], self.degradation.factors, strict=True)]
            hr = d[self.reference][:, :x, :y, :z]
            affine = np.asarray(self.degradation.compute_lr_affine(hr.affine), dtype=np.float64)
            volume, quality = warp_onto(hr, lr, self.degradation.compute_lr_size((x, y, z)), affine)
            d[key] = attach_meta(volume.clamp(lr.min().item(), lr.max().item()), affine, lr.meta)
            write_quality(self.quality_dir, make_case_stem(lr.meta["filename_or_obj"], d.get("subject")), quality)
        return d


def write_quality(folder: str | os.PathLike | None, stem: str, quality: Mapping[str, Any]) -> None:
    """Write the quality of a registration as ``<stem>_registration.json``; without a folder nothing."""
    if folder is not None:
        with write_atomically(get_output_folder(folder) / f"{stem}_registration.json") as temporary:
            temporary.write_text(json.dumps(quality, indent=2) + "\n")
