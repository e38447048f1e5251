"""Read a volume of any format, and refuse files whose header or size cannot be right."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.brikhead import AFNIImage
from nibabel.openers import ImageOpener

from ..runtime.errors import Notice
from .files import read_sidecar
from .formats import advise_volume
from .images import open_image
from .nifti_affines import warn_of_forms
from .slice_axis import SLICE_AXIS, read_slice_axis

_DIGEST = "digest"  # of an image's voxels, in its extra
_APPENDED = 4096  # bytes that some programs append to NIfTI and Analyze


def read_volume(path: str | os.PathLike) -> MetaTensor:
    """Read a volume of any format that :func:`~common.io.images.open_image` reads, without further axes of length 1.

    MONAI's reader is not used, because it can move voxels: if voxel sizes in a header differ a little, it overwrites
    one form by the other. A file is read to its end once, because gzip's checksum is there.

    Args:
        path: of a file, or of the folder of a DICOM series. See :func:`check_header`.

    Returns:
        Volume ``(X, Y, Z)``, float32, in the file's units. Its meta data have the axis across the slices where the file
        names it, see :func:`~common.io.slice_axis.read_slice_axis`.

    Raises:
        FileNotFoundError, ValueError: as :func:`check_header`.
    """
    image = open_image(path)
    voxels = _convert_to_float32(_read_voxels(path, image).reshape(image.shape[:3]), path)
    across = read_slice_axis(path)
    meta = {"filename_or_obj": str(path), **({} if across is None else {SLICE_AXIS: across})}
    return MetaTensor(torch.from_numpy(voxels), affine=image.affine, meta=meta)


def digest_voxels(path: str | os.PathLike) -> str:
    """SHA-256 of a file's voxels, shape and affine. Compression does not change it.

    Raises:
        FileNotFoundError, ValueError: when the file cannot be read.
    """
    image = open_image(path)
    if _DIGEST not in image.extra:
        _read_voxels(path, image)
    return image.extra[_DIGEST]


def check_header(path: Path, volumes: bool = False, complete: bool = True) -> None:
    """Refuse a file that is not a single 3-D volume or is incomplete, before its voxels are used.

    Accepted with a warning: further axes of length 1; no orientation (both NIfTI form codes 0), for which the warning
    says what is assumed; forms that contradict each other; and each repair of :func:`~common.io.images.open_image`.

    Args:
        path: of a file, or of the folder of a DICOM series.
        volumes: whether the fourth axis may be longer, because its volumes will be read one by one.
        complete: whether to read the file to its end; false if :func:`read_volume` follows, which does that.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when the file cannot be read by :func:`~common.io.images.open_image`, is not 3-D, has RGB or complex
            voxels, has an affine that is not finite or not invertible, is damaged, or does not have the size that its
            header says.
    """
    image = open_image(path)
    if image.get_data_dtype().names is not None or image.get_data_dtype().kind not in "iuf":
        raise ValueError(f"{path}: voxels are {image.get_data_dtype()}, expected one real number each, not colour.")
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or min(shape) < 1 or min(shape[:3]) < 2 or set(shape[3 + volumes :]) - {1}:
        if not shape or min(shape) < 1:
            advice = "the header is damaged, get a whole copy of the file"
        elif set(shape[4:]) - {1}:
            advice = "it has several values per voxel, such as a deformation field, and is no scan; leave it out"
        elif set(shape[3:]) - {1}:
            advice = f"{advise_volume(path)}. Only a scan of mri-sr may have more, and is done volume by volume"
        else:
            advice = "a single slice is no volume, give the whole stack in one file"
        raise ValueError(f"{path}: the image has shape {shape}, expected a 3-D volume; {advice}.")
    check_affine(path, image.affine)
    if complete and not _read_file(path, image):
        _read_voxels(path, image)
    if len(shape) > 3 and not volumes and not isinstance(image, AFNIImage):  # whose files all have more axes
        warnings.warn(f"{path}: the image has shape {shape}, one volume; taken as 3-D.", Notice, stacklevel=2)
    if (problem := read_sidecar(path)[1]) is not None:
        warnings.warn(problem, stacklevel=2)
    warn_of_forms(path, image)


def check_length(path: str | os.PathLike, whole: bool = False) -> None:
    """Refuse a file that is cut off, without reading it: by its length, or that which gzip keeps at the end.

    Args:
        path: of the file.
        whole: whether to read it to its end, which finds all damage.

    Raises:
        FileNotFoundError, ValueError: when the file cannot be read.
    """
    image: Any = open_image(path)
    file, header = getattr(image.dataobj, "file_like", None), image.dataobj
    if not isinstance(file, (str, os.PathLike)) or not isinstance(header, ArrayProxy):
        return
    expected = int(header.offset) + math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
    size = os.path.getsize(file)
    if str(file).lower().endswith((".gz", ".mgz")):
        with open(file, "rb") as opened:
            opened.seek(-4, os.SEEK_END)
            size = int.from_bytes(opened.read(4), "little")
        expected %= 2**32
    # Some programs append a few bytes. Of a file of several parts, gzip keeps the length of the last.
    if whole or not expected <= size <= expected + _APPENDED:
        _read_file(path, image)


def check_affine(path: str | os.PathLike, affine: np.ndarray) -> None:
    """Refuse an affine that gives voxels no place in space.

    Args:
        path: of the file, for the message.
        affine: 4x4, voxel to world in mm.
    """
    spacing = voxel_sizes(affine)
    singular = abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * np.prod(spacing)
    if not np.isfinite(affine).all() or abs(affine).max() > 1e6 or singular:
        raise ValueError(
            f"{path}: its affine is not invertible or beyond 1e6 mm, so the voxels have no place in space; "
            f"found {np.round(affine[:3], 4).tolist()}. Convert the scan again, or correct its header."
        )
    if spacing.min() < 1e-3 or spacing.max() > 1e3:
        raise ValueError(
            f"{path}: its voxels are {spacing[0]:.3g} x {spacing[1]:.3g} x {spacing[2]:.3g} mm, "
            "expected 0.001 to 1000 mm; the header is damaged or in other units, write its affine in mm."
        )


def _read_voxels(path: str | os.PathLike, image: nib.spatialimages.SpatialImage) -> np.ndarray:
    """All voxels. Their digest stays with the header, because a result names it."""
    stored: Any = image.dataobj
    content = io.BytesIO()
    if _read_file(path, image, content):
        stored = copy.copy(stored)
        stored.file_like = content
    with _explain_damage(path):
        voxels = np.asanyarray(stored)
    # Affines of one file differ by rounding between formats and libraries.
    digest = hashlib.sha256(repr((image.shape, image.affine.astype(np.float32).tolist())).encode())
    digest.update(np.ascontiguousarray(voxels.T).data)
    image.extra[_DIGEST] = digest.hexdigest()
    return voxels


def _read_file(
    path: str | os.PathLike, image: nib.spatialimages.SpatialImage, content: io.BytesIO | None = None
) -> bool:
    """Refuse a file that cannot be read to its end, or whose size does not fit its header.

    Args:
        path: of the file.
        image: the opened file.
        content: gets what the file holds, decompressed.

    Returns:
        Whether the voxels are in a file that nibabel reads.
    """
    stored = image.dataobj
    file = getattr(stored, "file_like", None)
    if not isinstance(file, (str, os.PathLike)):
        return False
    size = 0
    with _explain_damage(path), ImageOpener(file) as opened:  # type: ignore[arg-type]
        while block := opened.read(2**22):
            size += len(block)
            if content is not None:
                content.write(block)
    if not isinstance(stored, ArrayProxy):
        return True
    shape = tuple(int(n) for n in image.shape)
    expected = int(stored.offset) + math.prod(shape) * image.get_data_dtype().itemsize
    # Other formats may append more.
    most = expected + _APPENDED if isinstance(image, nib.analyze.AnalyzeImage) else math.inf
    if not expected <= size <= most:
        raise ValueError(
            f"{path}: holds {size} bytes, expected {expected} for {shape} voxels; the file is cut off or its header "
            "is damaged, get a whole copy of it."
        )
    return True


@contextmanager
def _explain_damage(path: str | os.PathLike) -> Iterator[None]:
    """Name the file and say what to do if it cannot be read to its end."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        advice = "the file is damaged, get a whole copy of it"
        if str(error).startswith("Not a gzipped file"):  # it began as one
            advice = "other bytes follow what is compressed; gunzip leaves them out, or get a whole copy of the file"
        raise ValueError(f"{path}: {str(error).rstrip('.')}; {advice}.") from None


def _convert_to_float32(voxels: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Convert voxels to float32; clip those beyond its range, with a warning."""
    with np.errstate(over="ignore"):
        single = voxels.astype(np.float32)
    if voxels.dtype.kind != "f" or voxels.dtype.itemsize <= 4:
        return single
    beyond = np.isinf(single) & np.isfinite(voxels)
    if beyond.any():
        largest = np.finfo(np.float32).max
        finding = f"{path}: {beyond.sum()} of {beyond.size} voxels are beyond the range of float32"
        warnings.warn(f"{finding}; set to its largest number, {largest:.4g}.", stacklevel=3)
        single[beyond] = np.copysign(largest, single[beyond])
    return single
