"""Read NRRD and MetaImage by SimpleITK as nibabel images."""

from __future__ import annotations

import re
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import SpatialImage

from .image_headers import UnfitError, choose_unit_factor, describe_assumed_orientation
from .lazy_voxels import LazyVoxels

_MM = dict.fromkeys(("um", "µm", "micron", "microns", "micrometer", "micrometre"), 0.001)
_MM |= {"cm": 10.0, **dict.fromkeys(("m", "meter", "metre"), 1000.0)}
_TYPES = {
    f"{bits}-bit {sign} integer": f"{'u' * (sign == 'unsigned')}int{bits}"
    for bits in (8, 16, 32, 64)
    for sign in ("signed", "unsigned")
} | {"32-bit float": "float32", "64-bit float": "float64"}
_SERIES = {"list", "vector"}  # kinds of an NRRD's axis along which its volumes lie


def open_itk(path: Path) -> SpatialImage:
    """Open an NRRD or a MetaImage without reading its voxels.

    Args:
        path: file with the header, which may hold the voxels too.

    Returns:
        The image; its affine is in mm (RAS), and the axis of an NRRD's volumes is the last. ``extra["segments"]`` is
        true for a segmentation of 3D Slicer, and ``extra["modalities"]`` lists at most one modality.

    Raises:
        UnfitError: when SimpleITK is not installed or cannot read the file, when it has no voxel sizes, or when a voxel
            is not one real number.
    """
    reader = _make_reader(path)
    fields, _, file = _read_header(path)
    if file is not None and not file.is_file():
        raise UnfitError(f"its voxels are in {file.name}, which is not there; put both files into one folder")
    if fields.get("encoding") in ("bzip2", "bz2"):
        raise UnfitError("its encoding is bzip2, which SimpleITK cannot read; save it with the encoding gzip or raw")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "domain axes" in str(error):
            raise UnfitError(
                f"its axes are of the kinds '{fields.get('kinds', 'unknown')}', of which more are places than its "
                "space has; write list, as in 'kinds: domain domain domain list', for the axis of the volumes"
            ) from None
        raise UnfitError(f"not a readable image ({_extract_reason(error)}); get a whole copy of it") from None
    from SimpleITK import GetPixelIDValueAsString

    kind, size = GetPixelIDValueAsString(reader.GetPixelID()), reader.GetSize()
    # ITK makes vectors of the volumes of an NRRD.
    is_series = reader.GetDimension() == 3 and bool(_SERIES & set(fields.get("kinds", "").lower().split()))
    if is_series or reader.GetNumberOfComponents() == 1:
        kind = kind.removeprefix("vector of ")
    if is_series and reader.GetNumberOfComponents() > 1:
        size = (*size, reader.GetNumberOfComponents())
    if kind not in _TYPES:
        raise UnfitError(f"voxels are {kind}, expected one real number each; save one component as a volume")
    if not fields.keys() & {"space directions", "spacings", "elementspacing", "elementsize"}:
        raise UnfitError("its header has no voxel sizes (NRRD: space directions, MetaImage: ElementSpacing); add them")
    number = reader.GetDimension()
    if fault := _find_missing_size(fields, number):
        raise UnfitError(f"its header has '{fault}', where a voxel size is unknown; write all sizes in mm there")
    spacing = np.array(reader.GetSpacing())[:3]
    if not (spacing > 0).all():
        raise UnfitError(f"its header has the voxel sizes {spacing.tolist()}, expected sizes above 0; correct them")
    affine = np.eye(4)
    space = min(number, 3)
    affine[:space, :space] = np.reshape(reader.GetDirection(), (number, number))[:space, :space] * spacing
    affine[:space, 3] = reader.GetOrigin()[:space]
    affine[:2] *= -1  # ITK's axes run to the left and to posterior
    notes = []
    unit = fields.get("space units", fields.get("units", fields.get("distanceunits", ""))).replace('"', " ").split()
    if unit and unit[0] in _MM:
        factor, note = choose_unit_factor(voxel_sizes(affine), _MM[unit[0]], unit[0])
        affine[:3] *= factor
        notes.append(note)
    oriented = {"space", "space dimension", "transformmatrix", "rotation", "orientation"}
    if np.linalg.det(affine) and not fields.keys() & oriented:
        notes.append(describe_assumed_orientation(affine, "it has no space directions or TransformMatrix"))
    slope, offset = (float(fields.get(f"elementtointensityfunction{name}") or 0) for name in ("slope", "offset"))
    scaling = slope or 1.0, offset  # a slope of 0 means 1, as in NIfTI
    dtype = _TYPES[kind] if scaling == (1, 0) else "float32"
    voxels: Any = LazyVoxels(partial(_read_voxels, path, scaling), size, np.dtype(dtype))
    modality = fields.get("modality", "").upper().removeprefix("MET_MOD_")
    extra = {"notes": notes, "segments": "segment0_id" in fields}
    extra["modalities"] = [] if modality in ("", "UNKNOWN", "OTHER") else [modality]
    return SpatialImage(voxels, affine, extra=extra)


def _read_voxels(path: Path, scaling: tuple[float, float]) -> np.ndarray:
    """Read the voxels; with a slope and an offset, which ITK does not apply, as floats."""
    from SimpleITK import GetArrayFromImage

    _check_compressed(path)
    try:
        image = _make_reader(path).Execute()
        voxels = GetArrayFromImage(image)
    except RuntimeError as error:
        raise UnfitError(f"its voxels cannot be read ({_extract_reason(error)})") from None
    voxels = np.moveaxis(voxels.T, 0, -1) if image.GetNumberOfComponentsPerPixel() > 1 else voxels.T
    return voxels if scaling == (1, 0) else voxels * scaling[0] + scaling[1]


def _make_reader(path: Path) -> Any:
    try:
        from SimpleITK import ImageFileReader
    except ImportError:
        raise UnfitError(
            "NRRD and MetaImage need SimpleITK, which is not installed: pip install SimpleITK, or convert it to NIfTI"
        ) from None
    if str(path).encode(errors="ignore").decode() != str(path):
        raise UnfitError("its path is not in UTF-8, which ends SimpleITK; rename it, or convert it to NIfTI")
    reader = ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _extract_reason(error: RuntimeError) -> str:
    """The last informative line of a message of SimpleITK."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Reason:")]
    return lines[-1].removeprefix("sitk::ERROR:").removeprefix("ITK ERROR:").strip().rstrip(".")


def _read_header(path: Path) -> tuple[dict[str, str], int, Path | None]:
    """Fields of a header with keys in lower case, its end in bytes, and the file of the voxels; None if several."""
    meta = path.name.lower().endswith((".mha", ".mhd"))
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(1000):
            line = file.readline(2**16).decode("latin-1").strip()
            if not line:
                break
            key, _, value = line.partition("=" if meta else ":")
            key, value = key.strip().lower(), value.lstrip("=").strip()
            fields[key] = value.lower() if key == "encoding" else value
            if key == "elementdatafile":
                break
        end = file.tell()
    name = fields.get("elementdatafile") if meta else fields.get("data file", fields.get("datafile", "LOCAL"))
    if name is None or name.upper().startswith("LIST") or "%" in name:
        return fields, end, None
    return fields, end, path if name.upper() == "LOCAL" else path.parent / name


def _find_missing_size(fields: dict[str, str], number: int) -> str:
    """The field of an NRRD that lacks a voxel size, for which ITK would take 1; empty if all are known.

    Args:
        fields: fields of the header.
        number: number of axes in ITK. An axis of another kind becomes components there, and needs no size.
    """
    name = "space directions" if "space directions" in fields else "spacings"
    words = re.findall(r"\([^)]*\)|\S+", fields.get(name, ""))
    if len(words) == number:
        words = words[:3]
    known = [word for word in words if "nan" not in word.lower() and word.lower() != "none"]
    return f"{name}: {fields[name]}" if words and len(known) < min(number, 3) else ""


def _check_compressed(path: Path) -> None:
    """Refuse compressed voxels that are damaged; SimpleITK does not report them."""
    fields, end, voxels = _read_header(path)
    packed = fields.get("compresseddata", "").lower() == "true" or fields.get("encoding") in ("gzip", "gz")
    if voxels is None or not packed or fields.keys() & {"byte skip", "byteskip", "line skip", "lineskip"}:
        return
    start = end if voxels == path else max(int(fields.get("headersize", 0)), 0)
    try:
        zlib.decompress(voxels.read_bytes()[start:], wbits=47)  # zlib's own format, or gzip's
    except zlib.error as error:
        raise UnfitError(f"its voxels cannot be read ({error})") from None
