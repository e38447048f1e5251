"""Where a header says that voxels lie: its sform and its qform, whether they agree, and both on another grid."""

from __future__ import annotations

import itertools
import os
import warnings

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError, SpatialImage

# In voxels: forms further apart at a corner of the volume contradict each other. Rounding of headers stays below it.
_APART = 0.1


def warn_of_forms(path: str | os.PathLike, image: SpatialImage) -> None:
    """Warn of a NIfTI header that gives no orientation, or two that contradict each other, or a qform that is none."""
    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        return
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if not sform_code and not qform_code:
        spacing = tuple(round(float(n), 4) for n in header.get_zooms()[:3])
        warnings.warn(
            f"{path}: the header gives no orientation (sform and qform codes are 0); assumed are axes from right "
            f"to left, posterior to anterior and inferior to superior, with the spacing {spacing} mm.",
            stacklevel=2,
        )
    if not sform_code or not qform_code:
        return
    qform = _qform(header)
    if qform is None:
        warnings.warn(f"{path}: its qform is not valid; its sform is used, and the result has no qform.", stacklevel=2)
        return
    apart = _apart(header.get_sform(), qform, image.shape)
    if np.abs(np.linalg.solve(image.affine[:3, :3], apart)).max() > _APART:
        warnings.warn(
            f"{path}: its sform (code {sform_code}) and its qform (code {qform_code}) put voxels up to "
            f"{np.linalg.norm(apart, axis=0).max():.2f} mm apart; the sform is used, and the result has both. Viewers "
            "that use the qform show scan and result elsewhere, but on each other.",
            stacklevel=2,
        )


def placed_image(array: np.ndarray, affine: np.ndarray, source: SpatialImage | None) -> nib.Nifti1Image:
    """A NIfTI whose two forms are those of the image that it was made from, carried to its grid.

    Each form is carried by itself and keeps its code, and the header keeps its units. What gives no form (a header
    without any, or another format) is written as the affine in both, or in the sform alone where it has shear, which no
    qform holds.

    Args:
        array: voxels ``(X, Y, Z)``, their axes as in ``source``.
        affine: 4x4, their voxels to the world of ``source.affine``, in mm.
        source: the image that they were made from, which may have another grid; None where there is none.

    Returns:
        The image; NIfTI-2 where ``source`` is, since its forms are more precise.
    """
    told = source.header if source is not None and isinstance(source.header, nib.Nifti1Header) else None
    kind = nib.Nifti2Image if isinstance(told, nib.Nifti2Header) else nib.Nifti1Image
    # Without an affine of its own, or nibabel would write that over forms that differ from it. The type is named,
    # because nibabel refuses 64-bit integers that nobody asked for.
    image = kind(array, None, dtype=array.dtype)
    image.header.set_xyzt_units(*(told.get_xyzt_units() if told is not None else ("mm",)))
    has_form = told is not None and (told["sform_code"] or told["qform_code"])
    to_source = np.linalg.solve(source.affine, affine) if has_form else None
    if has_form and _only_scales(to_source):
        _carry_forms(told, to_source, image.header)
    else:
        _write_affine(affine, image)
    if not image.header["pixdim"][1:4].all() or not np.isfinite(image.header["pixdim"][1:4]).all():
        image.header["pixdim"][1:4] = nib.affines.voxel_sizes(affine)
    return image


def _qform(header: nib.Nifti1Header) -> np.ndarray | None:
    """The matrix of a header's qform, whatever its code; None where its numbers make none."""
    try:
        matrix = header.get_qform()
    except (ValueError, HeaderDataError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def _apart(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How far two affines put the corners of a volume apart, in mm along the axes of the world, ``(3, 8)``."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape[:3])))).T
    moved = first - second
    return moved[:3, :3] @ corners + moved[:3, 3:]


def _only_scales(to_source: np.ndarray) -> bool:
    """Whether voxels lie along the axes that they were made from, in the same directions."""
    steps = np.diag(to_source)[:3]
    return steps.min() > 0 and np.abs(to_source[:3, :3] - np.diag(steps)).max() < 1e-4 * steps.min()


def _carry_forms(told: nib.Nifti1Header, to_source: np.ndarray, header: nib.Nifti1Header) -> None:
    """Write the forms of ``told`` for a grid whose voxels lie at ``to_source`` in those of ``told``."""
    header["pixdim"][1:4] = told["pixdim"][1:4] * np.diag(to_source)[:3]
    sform, qform = told.get_sform(), _qform(told)
    if np.isfinite(sform).all():
        header.set_sform(sform @ to_source, int(told["sform_code"]))
    if qform is None:
        return
    # The quaternion as it is: near half a turn, where a = 0, one made from the matrix would be less precise.
    for name in ("qform_code", "quatern_b", "quatern_c", "quatern_d"):
        header[name] = told[name]
    header["pixdim"][0] = told["pixdim"][0]
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = (qform @ to_source)[:3, 3]


def _write_affine(affine: np.ndarray, image: nib.Nifti1Image) -> None:
    """Write an affine as sform, and as qform where one holds it."""
    header = image.header
    header.set_sform(affine, 1)
    header.set_qform(affine, 1, strip_shears=True)
    apart = _apart(affine, header.get_qform(), image.shape)
    if np.abs(np.linalg.solve(affine[:3, :3], apart)).max() > _APART:
        header["qform_code"] = 0
