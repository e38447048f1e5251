"""Check the position and voxel sizes in headers of volumes, and repair faults whose correction is certain."""

from __future__ import annotations

import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.analyze import AnalyzeHeader
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError

_FILTERS = Lock()  # of warnings: what one thread restores, another must not have changed
# Length in mm and name of NIfTI's units by code; code 0 is unknown.
_UNITS = {0: (1.0, "mm"), 1: (1000.0, "metres"), 2: (1.0, "mm"), 3: (0.001, "microns")}
_LIKELY = 0.01, 50.0  # voxel sizes of scans, in mm
_SCALED = 1.5  # factor by which a registration to a template may scale voxels
_PLACES = 1e-6, 1e6  # possible voxel sizes, in microns, mm or metres
_QUATERN = "quatern_b", "quatern_c", "quatern_d"
_OFFSET = "qoffset_x", "qoffset_y", "qoffset_z"
_ROWS = "srow_x", "srow_y", "srow_z"
_ENDS = {"R": "left to right", "L": "right to left", "A": "posterior to anterior", "P": "anterior to posterior"}
_ENDS |= {"S": "inferior to superior", "I": "superior to inferior"}
# After describe_assumed_orientation, where NIfTI can say the same.
KEPT = " The result has codes 0 and 0; viewers may show it up to half a voxel of the scan beside it."


class UnfitError(ValueError):
    """Why a file is refused, in sentences that do not name it."""


def read_repaired_header(kind: type[nib.AnalyzeImage], file: FileHolder) -> tuple[Any, list[str]]:
    """Read a header of NIfTI or Analyze unchanged; nibabel would set missing sizes to 1 mm.

    Args:
        kind: class of the image.
        file: the file with the header.

    Returns:
        The header, and notes on its extensions.
    """
    with file.get_prepare_fileobj(mode="rb") as opened:
        try:
            with _FILTERS, warnings.catch_warnings():
                # nibabel warns of an extension of impossible size. Another thread may warn of anything meanwhile.
                warnings.filterwarnings("error", module="nibabel|pydicom")
                return kind.header_class.from_fileobj(opened, check=False), []
        except Exception as error:
            opened.seek(0)
            header = kind.header_class(opened.read(kind.header_class.template_dtype.itemsize), check=False)
            return header, [f"its header's extensions cannot be read ({error}); the result has none."]


def remove_negative_signs(header: AnalyzeHeader) -> list[str]:
    """Make negative voxel sizes positive in place, as nibabel does; return notes on that."""
    negative = [i for i in (1, 2, 3) if header["pixdim"][i] < 0]
    sizes = ", ".join(f"pixdim[{i}] = {header['pixdim'][i]:g}" for i in negative)
    header["pixdim"][negative] *= -1
    return [f"it has {sizes}; taken without the sign."] if negative else []


def find_wrong_sizes(header: AnalyzeHeader) -> np.ndarray:
    """Which of pixdim[1] to pixdim[3] are not voxel sizes, ``(3,)``."""
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    return ~((sizes >= _PLACES[0]) & (sizes <= _PLACES[1]))


def explain_wrong_sizes(header: AnalyzeHeader) -> str:
    """A message about :func:`find_wrong_sizes`; empty if all are right."""
    wrong = ", ".join(
        f"pixdim[{i + 1}] = {header['pixdim'][i + 1]:g}" for i in np.flatnonzero(find_wrong_sizes(header))
    )
    return wrong and f"it has {wrong}, which is no voxel size"


def repair_nifti(header: nib.Nifti1Header) -> list[str]:
    """Repair the forms, sizes and units of a header in place.

    An invalid form is replaced by the other form. A quaternion that rounding has made longer than 1 gets length 1.
    Negative sizes lose their sign, and missing sizes are taken from the sform. Metres and microns become mm.
    Afterwards each form with a code is valid, a form without a code is valid or zero, and units are mm or unknown.

    Args:
        header: the header as read, unchecked.

    Returns:
        A sentence for each repair.
    """
    _check_rank(header)
    notes = [*_set_voxel_offset(header), *remove_negative_signs(header)]
    without_sizes = explain_wrong_sizes(header)
    if without_sizes:
        wrong = find_wrong_sizes(header)
        header["pixdim"][1:4][wrong] = 1
    header.check_fix()
    sform, sform_fault = header.get_sform(), _find_sform_fault(header)
    if without_sizes and not sform_fault and header["sform_code"]:
        header["pixdim"][1:4][wrong] = voxel_sizes(sform)[wrong]
        notes.append(f"{without_sizes}; the sizes of its sform are used.")
        without_sizes = ""
    notes += _normalise_quaternion(header)
    qform, qform_fault = read_qform(header), without_sizes or _find_qform_fault(header)
    faults = {"sform": sform_fault, "qform": qform_fault}
    coded = [form for form in faults if header[f"{form}_code"]]
    valid = [form for form in coded if not faults[form]]
    if coded and not valid:
        sizes = " and ".join(
            f"its {form} (code {header[f'{form}_code']}) is not valid: {faults[form]}" for form in coded
        )
        raise UnfitError(
            f"{sizes}; so voxels have no position. Convert the scan again, or write a valid sform or qform, "
            "for example with nifti_tool."
        )
    if not coded and without_sizes:
        raise UnfitError(f"{without_sizes}, and no form has them. Write the sizes in mm, for example with nifti_tool.")
    for form in (form for form in coded if faults[form]):
        notes.append(f"its {form} is not valid ({faults[form]}); its {valid[0]} is used, and the result has no {form}.")
    if sform_fault:
        for name in ("sform_code", *_ROWS):
            header[name] = 0
    if qform_fault:
        for name in ("qform_code", *_QUATERN, *_OFFSET):
            header[name] = 0
    notes += _take_sform_sizes(header)
    best = {"sform": sform, "qform": qform}[valid[0]] if valid else header.get_base_affine()
    return notes + _convert_to_mm(header, voxel_sizes(best))


def _check_rank(header: nib.Nifti1Header) -> None:
    """Refuse an impossible number of axes. nibabel also guesses the byte order from it."""
    rank = header["dim"][0]
    swapped = header["sizeof_hdr"].byteswap() == header.sizeof_hdr
    if not 1 <= rank <= 7:
        count = int(rank.byteswap() if swapped else rank)
        raise UnfitError(f"it has dim[0] = {count}, expected 3 for a volume; the header is damaged, get a whole copy")


def _set_voxel_offset(header: nib.Nifti1Header) -> list[str]:
    """If the header of a single file has no vox_offset, let voxels begin right after the header."""
    if not header.is_single or header["vox_offset"]:
        return []
    header["vox_offset"] = header.single_vox_offset
    return [f"it has vox_offset = 0; its voxels are taken to begin after the header, at {header.single_vox_offset}."]


def _take_sform_sizes(header: nib.Nifti1Header) -> list[str]:
    """Take the sizes from the sform if it is the only form, and the sizes differ by more than rounding.

    Refuse sizes that differ by more than a registration may scale. Sizes of 1 mm say nothing: programs write them where
    they know none.
    """
    if not header["sform_code"]:
        return []
    before, sizes = header["pixdim"][1:4].copy(), voxel_sizes(header.get_sform())
    old_sizes, used = (" x ".join(f"{size:.3g}" for size in each) for each in (before, sizes))
    ratios = before / sizes
    if (header["qform_code"] or (before != 1).any()) and not 1 / _SCALED <= ratios.min() <= ratios.max() <= _SCALED:
        keep = {"sform_code": 0, "qform_code": 1}, {"qform_code": 0, "pixdim": f"'1 {used.replace(' x', '')} 1 1 1 1'"}
        pixdim_fix, sform_fix = (" ".join(f"-mod_field {key} {value}" for key, value in each.items()) for each in keep)
        raise UnfitError(
            f"its pixdim has voxels of {old_sizes} mm, and its sform of {used} mm; only one can be right. If pixdim "
            f"is, say nifti_tool -mod_hdr {pixdim_fix} -infiles SCAN -prefix MENDED; if the sform is, {sform_fix} "
            "instead"
        )
    if header["qform_code"] or np.allclose(before, sizes, rtol=0.01, atol=0):
        return []
    header["pixdim"][1:4] = sizes
    return [
        f"its pixdim has voxels of {old_sizes}, and its sform of {used}; the sform is used, and it has no valid qform."
    ]


def read_qform(header: nib.Nifti1Header) -> np.ndarray | None:
    """The matrix of a header's qform, whatever its code; None if its numbers are invalid."""
    try:
        matrix = header.get_qform()
    except (ValueError, HeaderDataError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def choose_unit_factor(sizes: np.ndarray, mm: float, unit: str) -> tuple[float, str]:
    """Factor from a header's unit of length to mm; 1 if the header's unit is probably wrong.

    Args:
        sizes: voxel sizes in the header's unit.
        mm: length of the unit in mm.
        unit: name of the unit.

    Returns:
        The factor, and a note on it.
    """
    size = " x ".join(f"{mm * s:.3g}" for s in sizes)
    if _is_likely(sizes) and not _is_likely(mm * sizes):
        return 1.0, f"its header says {unit}, in which voxels would be {size} mm; its sizes are taken for mm."
    return mm, f"its header says {unit}; converted to mm, voxels are {size} mm."


def describe_assumed_orientation(affine: np.ndarray, why: str) -> str:
    """A note on a header with sizes only, for which this affine was assumed."""
    axes = [_ENDS[code] for code in nib.aff2axcodes(affine)]
    spacing = tuple(round(float(n), 4) for n in voxel_sizes(affine))
    return (
        f"the header gives no orientation ({why}); axes from {axes[0]}, {axes[1]} and {axes[2]} are assumed, with the "
        f"spacing {spacing} mm."
    )


def describe_analyze(image: nib.AnalyzeImage, header: AnalyzeHeader) -> list[str]:
    """Notes on an Analyze image, which has no orientation unless SPM wrote a .mat next to it."""
    mat: Any = image.file_map.get("mat")
    if mat is not None and Path(mat.filename).is_file():
        return []
    notes = remove_negative_signs(header)
    if fault := explain_wrong_sizes(header):
        raise UnfitError(f"{fault}. Write the sizes in mm into its header, or convert the scan again, to NIfTI.")
    return [*notes, describe_assumed_orientation(image.affine, "Analyze has none") + KEPT]


def _find_sform_fault(header: nib.Nifti1Header) -> str:
    matrix = header.get_sform()
    return "" if _is_valid_affine(matrix) else f"not invertible, found {np.round(matrix[:3], 4).tolist()}"


def _find_qform_fault(header: nib.Nifti1Header) -> str:
    matrix = read_qform(header)
    if matrix is not None and _is_valid_affine(matrix):
        return ""
    quaternion, offset = ([float(header[name]) for name in names] for names in (_QUATERN, _OFFSET))
    return (
        f"{', '.join(_QUATERN)} are {quaternion}, expected a length of 1 or less; its offset is {offset}, its voxels "
        f"{[float(size) for size in header['pixdim'][1:4]]}"
    )


def _is_valid_affine(matrix: np.ndarray) -> bool:
    """Whether an affine, in mm, microns or metres, gives each voxel its own position."""
    sizes = voxel_sizes(matrix)
    return bool(
        np.isfinite(matrix).all()
        and _PLACES[0] <= sizes.min()
        and sizes.max() <= _PLACES[1]
        and np.abs(matrix[:3, 3]).max() <= 1e9
        and abs(np.linalg.det(matrix[:3, :3] / sizes)) > 1e-6
    )


def _normalise_quaternion(header: nib.Nifti1Header) -> list[str]:
    """Shorten a quaternion that is slightly longer than 1 to length 1."""
    quaternion = np.array([float(header[name]) for name in _QUATERN])
    length = np.linalg.norm(quaternion)
    if not 1 < length < 1.001 or read_qform(header) is not None:
        return []
    for name, value in zip(_QUATERN, quaternion / length, strict=True):
        header[name] = value
    if not header["qform_code"]:
        return []
    return [f"its qform's quaternion has the length {length:.8g}, expected 1 or less; taken as rounded, and made 1."]


def _convert_to_mm(header: nib.Nifti1Header, sizes: np.ndarray) -> list[str]:
    """Convert the lengths in a header to mm, by its units code and the voxel sizes of its affine."""
    code = int(header["xyzt_units"])
    space, time = code & 7, code & 0x38
    header["xyzt_units"] = (2 if space not in (0, 2) else space) | (time if time <= 48 else 0)
    if space in (0, 2):
        return []
    if space not in _UNITS:
        return [f"its header's unit of length has the code {space}, expected 1, 2 or 3; its sizes are taken for mm."]
    factor, note = choose_unit_factor(sizes, *_UNITS[space])
    header["pixdim"][1:4] *= factor
    for name in (*_OFFSET, *_ROWS):
        header[name] = header[name] * factor
    return [note]


def _is_likely(sizes: np.ndarray) -> bool:
    return bool(_LIKELY[0] <= sizes.min() and sizes.max() <= _LIKELY[1])
