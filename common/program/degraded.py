"""LR volumes of HR volumes, as files: what a scanner would have made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec, voxel_sizes

from ..degradations.acquisition import make_acquisition
from ..degradations.base import Degradation
from ..degradations.fitted_profile import BELIEVED_WIDTHS
from ..degradations.turned import TurnedDegradation
from ..geometry.affines import UnclearSliceAxisError, find_slice_orientation
from ..io.files import format_config, get_sidecar_path, read_sidecar
from ..io.images import open_image
from ..io.nifti_affines import choose_encoding, read_encoding
from ..io.slice_axis import SLICE_AXIS
from ..io.writing import write_atomically
from ..transforms.scan.extremes import convert_type
from ..transforms.scan.load import LoadScand
from ..transforms.scan.save import save_volume
from ..transforms.scan.volume import ENCODING, attach_meta, get_stored_dtype
from ..version import __version__
from .provenance import describe_settings, read_source_metadata

_OPERATOR = "Degradation"  # key of the JSON next to LR
_BRIGHT = 0.999  # quantile of HR that noise is a share of
_NEGATIVE = 0.1  # of the brightest, below 0, that resampling may leave
_FEWEST = 3  # voxels along an axis that a network needs


def degrade_scan(
    image: str,
    path: Path,
    factors: Sequence[int],
    thickness: float | None = None,
    partial_fourier: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    slice_axis: str = "auto",
    source: str | None = None,
) -> str:
    """Write LR of an HR scan as :func:`~common.degradations.make_acquisition` makes it, and the JSON next to it.

    Args:
        image: file of HR.
        path: NIfTI to write.
        factors: HR voxels per LR voxel, three positive integers, the last across the slices.
        thickness: of the slices in mm; None for slices that touch.
        partial_fourier, seed: as for ``make_acquisition``.
        noise: standard deviation of the noise, as a share of the 99.9th percentile of HR.
        slice_axis: "LR", "AP" or "SI"; "auto" for that of the voxel sizes, or SI if they do not show it.
        source: name of HR for the JSON; default that of the file.

    Returns:
        What was made, in words.

    Raises:
        FileNotFoundError, ValueError: when HR cannot be read or is no 3-D MR scan, LR would have fewer than 3 voxels
            along an axis, or the thickness is not 0.5 to 2 distances of the slices.
    """
    hr = LoadScand("image", ordered=False, normalise=False, check_mr=True)({"image": image})["image"]
    try:
        orientation = find_slice_orientation(hr.affine, slice_axis, hr.meta.get(SLICE_AXIS))
    except UnclearSliceAxisError:
        orientation = find_slice_orientation(hr.affine, "SI")
    order, mirrored = np.argsort(orientation[:, 0]).tolist(), (orientation[:, 1] < 0).tolist()
    across, before = order[2], voxel_sizes(hr.affine.numpy())
    distance = float(factors[2] * before[across])
    width = None if thickness is None else thickness / distance
    least, most = BELIEVED_WIDTHS
    if width is not None and not least <= width <= most:
        raise ValueError(
            f"{image}: slices would be {distance:.4g} mm apart and {thickness:g} mm thick, expected a slice thickness "
            f"of {least * distance:.4g} to {most * distance:.4g} mm."
        )
    low, high = np.quantile(hr.numpy(), [1 - _BRIGHT, _BRIGHT])
    if low < -_NEGATIVE * high:
        raise ValueError(
            f"{image}: its values begin at {low:.5g} and end at {high:.5g}, expected 0 or more, as LR is a magnitude; "
            "add a constant, so that air is 0."
        )
    sigma = noise * float(high)
    degradation: Degradation = make_acquisition(factors, width, partial_fourier, sigma, seed)
    if order != [0, 1, 2] or any(mirrored):
        degradation = TurnedDegradation(degradation, order, mirrored)
    voxels = find_whole_voxels(hr.shape[1:], degradation)
    size = [int((last - first) / f) for (first, last), f in zip(voxels, degradation.factors, strict=True)]
    if min(size) < _FEWEST:
        raise ValueError(
            f"{image}: LR of its {_format(hr.shape[1:])} voxels would have {_format(size)}, expected at least "
            f"{_FEWEST} along each axis; give a smaller scale."
        )
    lr = save_degraded(hr[0], degradation, path)
    acquired = after = voxel_sizes(lr.affine.numpy()).round(5).tolist()
    if thickness is not None:
        acquired = [float(thickness) if axis == across else size for axis, size in enumerate(after)]
    record: dict[str, Any] = {
        "Description": "LR of an HR scan, as a scanner would make it.",
        "Sources": [source or Path(image).name],
        **read_source_metadata(image),
        "SpacingBetweenSlices": after[across],
        "SliceEncodingDirection": "ijk"[across],
        "AcquisitionVoxelSize": acquired,
        "GeneratedBy": [{"Name": "mri-sr degrade", "Version": __version__}],
        "HRVoxels": voxels,
        _OPERATOR: describe_settings(degradation, Degradation.__module__.rpartition(".")[0]),
    }
    if factors[2] > 1:
        record["SliceThickness"] = acquired[across]
        record["MRAcquisitionType"] = "3D" if thickness is None and factors[0] > 1 else "2D"
    elif (known := read_sidecar(image)[0].get("SliceThickness")) is not None:
        record["SliceThickness"] = known
    if partial_fourier != 1:
        record |= {"PartialFourier": partial_fourier, "PhaseEncodingDirection": "ijk"[order[1]]}
    with write_atomically(get_sidecar_path(path)) as temporary:
        temporary.write_text(format_config(record) + "\n")
    text = f"{_format(hr.shape[1:])} voxels of {_format(before)} mm to {_format(size)} of {_format(after)} mm"
    if any(cropped := [n - (last - first) for n, (first, last) in zip(hr.shape[1:], voxels, strict=True)]):
        text += f"; HR was cropped by {_format(cropped)} voxels, to whole LR voxels"
    return text


def _format(numbers: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def is_degraded(path: str | os.PathLike) -> bool:
    """Whether a file is LR of :func:`degrade_scan`, by the JSON next to it."""
    return _OPERATOR in read_sidecar(path)[0]


def find_whole_voxels(size: Sequence[int], degradation: Degradation) -> list[tuple[int, int]]:
    """The HR voxels along each axis that make whole LR voxels: the first, and the last plus one.

    As in :class:`~common.transforms.MakeLRd`, the rest is cropped to the right, in front and above.

    Args:
        size: of the HR volume ``(X, Y, Z)``, as stored.
        degradation: of the stored volume.
    """
    whole = [n // factor * factor for n, factor in zip(size, degradation.factors, strict=True)]
    mirrored = getattr(degradation, "mirrored", (False,) * 3)
    return [(n - most, n) if far else (0, most) for n, most, far in zip(size, whole, mirrored, strict=True)]


def save_degraded(hr: MetaTensor, degradation: Degradation, path: Path) -> MetaTensor:
    """Degrade an HR volume, cropped to whole LR voxels, and write the magnitude as NIfTI in the type of HR's file.

    Args:
        hr: ``(X, Y, Z)``, with an affine and ``filename_or_obj``.
        degradation: from HR, as stored, to LR.
        path: NIfTI to write.

    Returns:
        LR, ``(1, X, Y, Z)``, as it is written.
    """
    file = str(hr.meta["filename_or_obj"])
    voxels = find_whole_voxels(hr.shape, degradation)
    whole = hr.as_tensor()[tuple(slice(*ends) for ends in voxels)].double()
    affine = np.asarray(hr.affine, np.float64) @ from_matvec(np.eye(3), [first for first, _ in voxels])
    dtype = get_stored_dtype(file)
    array = convert_type(degradation(whole).abs().contiguous().numpy(), dtype).astype(dtype)
    lr = attach_meta(torch.from_numpy(array)[None], degradation.compute_lr_affine(affine), hr.meta)
    if encoding := choose_encoding(array, read_encoding(open_image(file))):
        lr.meta[ENCODING] = encoding
    save_volume(lr, path, f"degraded {'x'.join(f'{factor:g}' for factor in degradation.factors)}", window=True)
    return lr
