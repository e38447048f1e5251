"""Cases one by one, so that a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import list_data_collate

from .volumes import case_name, root_cause


@dataclass
class CaseFailure:
    """A case that could not be processed, and why."""

    case: str
    reason: str


class CaseLoader:
    """Batches of one case in a dataset's order; where a case cannot be loaded, its :class:`CaseFailure` instead.

    Args:
        dataset: of dictionaries, with the entries in ``dataset.data``.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        for i, entry in enumerate(self.dataset.data):
            try:
                batch = list_data_collate([self.dataset[i]])
            except Exception as error:
                batch = CaseFailure(case_name(entry), root_cause(error))
            yield batch


def find_images(path: str, output_dir: str | None = None) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder, in the order of their names, or one file.

    Args:
        path: a folder, searched with its subfolders, or a file.
        output_dir: a folder whose files are passed over: results are no scans.

    Returns:
        ``[{"image": path}, ...]``.

    Raises:
        FileNotFoundError: when there is no such path, or no NIfTI in the folder.
    """
    root = Path(path)
    if root.is_file():
        return [{"image": str(root)}]
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir '{path}' is neither a folder nor a file; name scans to super-resolve.")
    files = sorted(p for p in root.rglob("*") if p.name.endswith((".nii", ".nii.gz")) and not p.name.startswith("."))
    if output_dir is not None:
        files = [p for p in files if Path(output_dir).resolve() not in p.resolve().parents]
    if not files:
        raise FileNotFoundError(f"dataset_dir '{path}' holds no .nii or .nii.gz file, in its subfolders neither.")
    names = [p.name.removesuffix(".gz").removesuffix(".nii") for p in files]
    twice = sorted({str(p) for p, name in zip(files, names, strict=True) if names.count(name) > 1})
    if twice:
        raise ValueError(f"results are named by their inputs, and these have the same name: {', '.join(twice)}")
    return [{"image": str(p)} for p in files]


def prepare_lr_hr(
    batchdata: Mapping[str, torch.Tensor], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``prepare_batch`` of validation: "lr" is the input and "hr" the truth, on the device."""
    return batchdata["lr"].to(device, non_blocking=non_blocking), batchdata["hr"].to(device, non_blocking=non_blocking)


def check_scale(source: Sequence[Mapping], target: Sequence[Mapping], factors: Sequence[int], slab_axis: str) -> None:
    """Refuse authentic LR scans whose voxels are not ``factors`` times as large as the HR scans'.

    Args:
        source: entries with "hr".
        target: entries, of which those with "lr" are checked against the median HR spacing, within 20 %.
        factors: of the super-resolution, in the order of the axes after :class:`common.transforms.SlabAxisd`.
        slab_axis: as for :class:`common.transforms.SlabAxisd`.

    Raises:
        ValueError: with every file that contradicts, its spacing and the expected one.
    """
    import nibabel as nib
    import numpy as np

    from ..transforms import slab_permutation

    def spacing(path: str) -> np.ndarray:
        image = nib.load(path)
        order = slab_permutation(image.affine, slab_axis)
        return np.linalg.norm(image.affine[:3, :3], axis=0)[list(order)]

    lr = {}
    hr = []
    for entry in [*source, *target]:
        for key, found in (("hr", hr), ("lr", lr)):
            if key not in entry:
                continue
            try:
                mm = spacing(entry[key])
            except Exception:
                continue  # an unreadable file is reported, with the others, when the volumes are loaded
            hr.append(mm) if found is hr else lr.update({entry[key]: mm})
    if not lr or not hr:
        return
    expected = np.median(hr, axis=0) * np.asarray(factors)
    wrong = [f"{p}: {np.round(mm, 3).tolist()} mm" for p, mm in lr.items() if (abs(mm / expected - 1) > 0.2).any()]
    if wrong:
        raise ValueError(
            f"the scale factor {list(factors)} and the median spacing of the HR scans ask for LR voxels of about "
            f"{np.round(expected, 3).tolist()} mm (axes ordered for slab_axis {slab_axis}), but found:\n  "
            + "\n  ".join(wrong)
            + "\nSet scale to the ratio that your scans have, or resample them."
        )
