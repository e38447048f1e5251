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

from ...io.files import replacing
from ...io.images import image_or_none
from ...io.naming import case_stem, result_path
from ...io.nifti_affines import placed_image


class SaveVolumed(MapTransform):
    """Write a volume as NIfTI under a temporary name and move it, so that no half-written file is ever there.

    Both forms of the file that the volume was made from are kept, each carried to the volume's grid, with their codes
    and what else of the header stays true, see :func:`placed_image`. The path is left in ``data["saved_to"]``, as text.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` with an affine and ``filename_or_obj``.
        output_dir: folder, made when it is not there.
        postfix: what the result is; the file is :func:`~common.io.naming.result_path` of the entry's "name", or
            without one of the input's name.
        bids: whether the file is named as a BIDS derivative.
        description: what the file says of itself, in the header's ``descrip``, which holds 80 bytes.
        window: whether the grey window that the input's header names, if any, suits the volume too.

    Raises:
        ValueError: with ``bids``, when the scan is not named as BIDS has it.
        PermissionError, OSError: when the folder cannot be written to.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike,
        postfix: str = "sr",
        bids: bool | str = False,
        description: str = "super-resolved",
        window: bool = True,
    ) -> None:
        super().__init__(keys)
        self.output_dir = output_dir
        self.postfix = postfix
        self.bids = bids
        self.description = description
        self.window = window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key]
            source = Path(str(volume.meta["filename_or_obj"]))
            array = torch.as_tensor(volume)[0].numpy()
            image = placed_image(array, np.asarray(volume.affine, dtype=np.float64), image_or_none(source))
            if not self.window:
                image.header["cal_min"] = image.header["cal_max"] = 0
            image.header["descrip"] = self.description.encode("ascii", "replace")[:80]
            name = d.get("name") or case_stem(source, d.get("subject"))
            path = result_path(self.output_dir, name, self.postfix, self.bids)
            with replacing(path) as temporary:
                nib.save(image, temporary)
            d["saved_to"] = str(path)
        return d
