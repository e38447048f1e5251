"""Writing results."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform

from ...degradations.base import Degradation
from ...io.images import open_image_or_none
from ...io.naming import get_output_folder, make_case_stem, make_result_path
from ...io.nifti_affines import make_image, write_image
from ...io.writing import check_writable
from .volume import ENCODING


class SaveVolumed(MapTransform):
    """Write a volume as NIfTI under a temporary name and rename it, so that there is never an incomplete file.

    The input file's sform and qform, their codes, and header fields that are still valid are carried to the volume's
    grid, see :func:`make_image`. ``data["saved_to"]`` holds the path as text.

    Args:
        keys: of channel-first volumes ``(1, X, Y, Z)`` with an affine and ``filename_or_obj``.
        output_dir: folder, created if it does not exist.
        postfix: kind of the result in the file's name.
        description: text for the header's ``descrip``, at most 80 bytes.
        window: whether to keep the grey window of the input's header.

    Attributes:
        make_path: the path of the entry's "name", or else of the input's name, in a folder.

    Raises:
        NotADirectoryError, PermissionError: when the folder cannot be written to.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike,
        postfix: str = "sr",
        description: str = "super-resolved, research only",
        window: bool = True,
    ) -> None:
        super().__init__(keys)
        check_writable(get_output_folder(output_dir))
        self.output_dir = output_dir
        self.postfix = postfix
        self.make_path = make_result_path
        self.description = description
        self.window = window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            source = Path(str(d[key].meta["filename_or_obj"]))
            name = d.get("name") or make_case_stem(source, d.get("subject"))
            path = self.make_path(self.output_dir, name, self.postfix)
            save_volume(d[key], path, self.description, self.window)
            d["saved_to"] = str(path)
        return d


def get_saver(postprocessing: Compose) -> SaveVolumed:
    """The transform by which a postprocessing writes results; ValueError unless it has one."""
    savers = [step for step in postprocessing.flatten().transforms if isinstance(step, SaveVolumed)]
    if len(savers) != 1:
        raise ValueError(
            f"postprocessing has {len(savers)} common.transforms.SaveVolumed, expected one. mri-sr runs no exported "
            "bundle; use python -m monai.bundle run."
        )
    return savers[0]


def get_degradation(postprocessing: Compose) -> Degradation | None:
    """The degradation from result to scan by which a postprocessing places results; None if it uses none."""
    known = (getattr(step, "degradation", None) for step in postprocessing.flatten().transforms)
    return next((each for each in known if each is not None), None)


def make_width_saver(postprocessing: Compose) -> SaveVolumed:
    """The transform that writes half widths, with the key "interval", next to the results of a postprocessing."""
    saver, text = get_saver(postprocessing), "super-resolved, half width"
    width = SaveVolumed("interval", saver.output_dir, "interval", text, window=False)
    width.make_path = saver.make_path
    return width


def save_volume(volume: MetaTensor, path: Path, description: str, window: bool) -> None:
    """Write a volume as NIfTI.

    Args:
        volume: ``(1, X, Y, Z)``, with an affine and ``filename_or_obj``.
        path, description, window: as for :class:`SaveVolumed`.
    """
    source = open_image_or_none(str(volume.meta["filename_or_obj"]))
    affine = np.asarray(volume.affine, dtype=np.float64)
    image = make_image(torch.as_tensor(volume)[0].numpy(), affine, source, volume.meta.get(ENCODING))
    write_image(image, path, description, window)
