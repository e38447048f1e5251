"""Writing results."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ...data.naming import case_stem
from ...files import replacing


class SaveVolumed(MapTransform):
    """Write a volume as NIfTI under a temporary name and move it, so that no half-written file is ever there.

    The form codes and units of the file that the volume was made from are kept.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` with an affine and ``filename_or_obj``.
        output_dir: folder, made when it is not there.
        postfix: the file is ``<input's name>_<postfix>.nii.gz``.

    Raises:
        PermissionError, OSError: when the folder cannot be written to.
    """

    def __init__(self, keys: KeysCollection, output_dir: str | os.PathLike, postfix: str = "sr") -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.postfix = postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            volume = data[key]
            source = Path(str(volume.meta["filename_or_obj"]))
            array = torch.as_tensor(volume)[0].numpy()
            # Named, because nibabel refuses 64-bit integers that nobody asked for.
            affine = np.asarray(volume.affine, dtype=np.float64)
            image = nib.Nifti1Image(array, affine, dtype=array.dtype)
            sform, qform = 1, 1
            try:
                header = nib.load(source).header
                image.header.set_xyzt_units(*header.get_xyzt_units())
                codes = int(header["sform_code"]), int(header["qform_code"])
                sform, qform = codes if any(codes) else (1, 1)
            except Exception:
                image.header.set_xyzt_units("mm")  # the source is no NIfTI
            image.set_sform(affine, sform)
            image.set_qform(affine, qform)
            name = data.get("name") or case_stem(source, data.get("subject"))
            with replacing(self.output_dir / f"{name}_{self.postfix}.nii.gz") as temporary:
                nib.save(image, temporary)
        return dict(data)
