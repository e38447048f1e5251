"""The sform and qform of NIfTI headers: check that they agree, and carry both to another grid."""

from __future__ import annotations

import itertools
import os
import warnings
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import SpatialImage

from ..runtime.errors import Notice
from .writing import write_atomically

# In voxels. Forms that differ by more at a corner of the volume contradict each other. Rounding of headers is smaller.
_APART = 0.1
_FIELDS: tuple[str, ...] = "xyzt_units", "dim_info", "cal_min", "cal_max", "aux_file", "toffset"
_FIELDS += "intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3"
_GRIDS = 4, 10, 32  # codes of extensions that describe a grid: AFNI's, Jim's and CIFTI's


def warn_of_forms(path: str | os.PathLike, image: SpatialImage) -> None:
    """Warn of repairs and assumptions of :func:`~common.io.images.open_image`, and of NIfTI forms that differ."""
    for note in image.extra.get("notes", ()):
        warnings.warn(f"{path}: {note}", Notice, stacklevel=2)
    header = image.header
    if not isinstance(header, nib.Nifti1Header) or not header["sform_code"] or not header["qform_code"]:
        return
    forms = header.get_sform(), header.get_qform()
    apart = _measure_corner_distances(*forms, image.shape)
    if np.abs(np.linalg.solve(image.affine[:3, :3], apart)).max() > _APART:
        sform_sizes, qform_sizes = (" x ".join(f"{mm:.3g}" for mm in voxel_sizes(form)) for form in forms)
        sizes = "" if sform_sizes == qform_sizes else f" and have voxels of {sform_sizes} and {qform_sizes} mm"
        warnings.warn(
            f"{path}: its sform (code {header['sform_code']}) and its qform (code {header['qform_code']}) put voxels "
            f"up to {np.linalg.norm(apart, axis=0).max():.2f} mm apart{sizes}; the sform is used, and the result has "
            "both. Viewers that use the qform show scan and result at another place, but aligned with each other.",
            stacklevel=2,
        )


class Encoding(NamedTuple):
    """How a NIfTI file stores values: value = slope * integer + intercept."""

    dtype: str
    slope: float
    intercept: float


def read_encoding(image: Any) -> Encoding | None:
    """The encoding of a NIfTI or Analyze image of scaled integers of at most 16 bits; None for others."""
    dtype = image.get_data_dtype()
    if not isinstance(image, nib.AnalyzeImage) or dtype.kind not in "iu" or dtype.itemsize > 2:
        return None
    slope, intercept = getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0)
    return None if (slope, intercept) == (1, 0) else Encoding(dtype.newbyteorder("=").name, slope, intercept)


def choose_encoding(values: np.ndarray, encoding: Encoding | None) -> Encoding | None:
    """The encoding of a scan for its result: 16 bits over the result's range, if 8 bits or the scan's do not suffice.

    Args:
        values: of the result, finite.
        encoding: of the scan; None for none.
    """
    if encoding is None:
        return None
    ends, limits = np.array([values.min(), values.max()], dtype=np.float64), np.iinfo(encoding.dtype)
    stored = np.rint((ends - encoding.intercept) / encoding.slope)
    if limits.bits > 8 and limits.min <= stored.min() and stored.max() <= limits.max:
        return encoding
    slope = float(np.float32(np.ptp(ends) / 65000)) or 1.0
    return Encoding("int16", slope, float(np.float32(ends.mean())))


def make_image(
    array: np.ndarray, affine: np.ndarray, source: SpatialImage | None, encoding: Encoding | None = None
) -> nib.Nifti1Image:
    """Make a NIfTI image with the two forms of its source image, carried to the new grid.

    Each form is carried separately and keeps its code. The header keeps its units and the fields that are true on any
    grid: display window, intent, frequency and phase axes, repetition time, name of an auxiliary file, and extensions
    that do not describe a grid. The result of a scan without orientation has the codes 0 and 0, and the affine that was
    assumed as an sform that programs ignore. Otherwise the affine is written to both forms. If it has shear, which a
    qform cannot hold, it is written to the sform only.

    Args:
        array: voxels ``(X, Y, Z)``, their axes as in ``source``.
        affine: 4x4, their voxels to the world of ``source.affine``, in mm.
        source: the source image from :func:`~common.io.images.open_image`, maybe on another grid; None if there is
            none.
        encoding: how the file stores the voxels; None to store them as they are.

    Returns:
        The image; NIfTI-2 if ``source`` is, since its forms are more precise.
    """
    source_header: Any = source.header if source is not None and isinstance(source.header, nib.Nifti1Header) else None
    if encoding is not None:
        dtype, slope, intercept = encoding
        stored = np.rint((array.astype(np.float64) - intercept) / slope)
        array = stored.clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    kind = nib.Nifti2Image if isinstance(source_header, nib.Nifti2Header) else nib.Nifti1Image
    # Without an affine, because nibabel would write it over forms that differ from it. With the type, because nibabel
    # otherwise refuses 64-bit integers.
    image = kind(array, None, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    if encoding is not None:
        image.header.set_slope_inter(slope, intercept)
    if source_header is not None:
        _copy_fields(source_header, image.header)
    to_source: Any = None if source is None else np.linalg.solve(source.affine, affine)
    if to_source is None or not is_scaling(to_source):
        _write_affine(affine, image)
    elif not source.extra.get("has_orientation", True):  # type: ignore[union-attr]
        image.header["pixdim"][1:4] = voxel_sizes(affine)
        image.header.set_sform(affine, 0)
    elif source_header is not None:
        _copy_forms(source_header, to_source, image.header)
    else:
        _write_affine(affine, image)
    return image


def write_image(image: nib.Nifti1Image, path: str | os.PathLike, description: str, window: bool = False) -> None:
    """Write an image, whole or not at all.

    Args:
        image: its header changes.
        path: ends in .nii or .nii.gz.
        description: text for the header's ``descrip``, at most 80 bytes.
        window: whether to keep the grey window of the header.
    """
    if not window:
        image.header["cal_min"] = image.header["cal_max"] = 0
    image.header["descrip"] = description.encode("ascii", "replace")[:80]
    with write_atomically(path) as temporary:
        nib.save(image, temporary)


def _measure_corner_distances(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Distances between the corners of a volume under two affines, in mm along the world's axes, ``(3, 8)``."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape[:3])))).T
    shift = first - second
    return shift[:3, :3] @ corners + shift[:3, 3:]


def is_scaling(to_source: np.ndarray) -> bool:
    """Whether voxels lie along the source's axes, in the same directions."""
    steps = np.diag(to_source)[:3]
    return steps.min() > 0 and np.abs(to_source[:3, :3] - np.diag(steps)).max() < 1e-4 * steps.min()


def _copy_fields(source: nib.Nifti1Header, header: nib.Nifti1Header) -> None:
    """Copy the fields that are true on any grid, except NaN and infinity."""
    for name in _FIELDS:
        if source[name].dtype.kind != "f" or np.isfinite(source[name]):
            header[name] = source[name]
    times = np.asarray(source["pixdim"][4:])
    header["pixdim"][4:] = np.where(np.isfinite(times), times, 1)
    header.extensions.extend(extension for extension in source.extensions if extension.get_code() not in _GRIDS)


def _copy_forms(source: nib.Nifti1Header, to_source: np.ndarray, header: nib.Nifti1Header) -> None:
    """Write the forms of ``source`` for another grid; ``to_source`` maps its voxels to those of ``source``."""
    header["pixdim"][1:4] = source["pixdim"][1:4] * np.diag(to_source)[:3]
    header.set_sform(source.get_sform() @ to_source, int(source["sform_code"]))
    # Copy the quaternion: near half a turn (a = 0), a quaternion from the matrix would be less precise.
    for name in ("qform_code", "quatern_b", "quatern_c", "quatern_d"):
        header[name] = source[name]
    header["pixdim"][0] = source["pixdim"][0]
    offset = (source.get_qform() @ to_source)[:3, 3]
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = offset


def _write_affine(affine: np.ndarray, image: nib.Nifti1Image) -> None:
    """Write an affine as sform, and as qform if that can hold it."""
    header = image.header
    header.set_sform(affine, 1)
    header.set_qform(affine, 1, strip_shears=True)
    apart = _measure_corner_distances(affine, header.get_qform(), image.shape)
    if np.abs(np.linalg.solve(affine[:3, :3], apart)).max() > _APART:
        header["qform_code"] = 0
