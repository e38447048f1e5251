"""Decide by BIDS suffix, header and sidecar JSON whether a file is a scan, something else, or an unreadable scan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.nifti1 import intent_codes
from nibabel.spatialimages import SpatialImage

from ...io.files import read_sidecar
from ...io.formats import explain_missing_content, get_extension
from ...io.images import open_image_or_none
from ...runtime.distributed import print_once
from ..dicom.image_types import classify_type
from ..dicom.recognition import is_dicom, is_named_as_dicom, may_be_dicom

# Formats of scans that open_image does not read, and programs that convert them.
_CONVERTERS = {
    ".mnc": "nib-convert, which comes with nibabel and needs h5py",
    ".rec": "parrec2nii, which comes with nibabel and takes the .PAR file next to it",
    ".mif": "mrconvert of MRtrix3",
    ".mif.gz": "mrconvert of MRtrix3",
    ".mih": "mrconvert of MRtrix3",
    ".gipl": "c3d of ITK-SNAP",
    ".gipl.gz": "c3d of ITK-SNAP",
    ".vmr": "the Python package bvbabel",
    ".nii.bz2": "bunzip2",
    ".nii.xz": "unxz",
    ".nii.zst": "unzstd",
    ".nii.zip": "unzip",
    ".mnc.gz": "gunzip, then nib-convert",
    ".mgh.gz": "gunzip",
    ".nrrd.gz": "gunzip",
    ".mha.gz": "gunzip",
    ".hdr.gz": "gunzip, which both files of the pair need",
    ".img.gz": "gunzip, which both files of the pair need",
}
_UNREAD = sorted(_CONVERTERS, key=len, reverse=True)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_BRUKER = "2dseq"
_AFNI = (".brik", ".brik.gz")
# Endings of the file of voxels, by the ending of its header.
_VOXELS = {".hdr": (".img",), ".hdr.gz": (".img.gz",), ".head": _AFNI}

_LABELS = "a mask or label map"
_PHASE = "a phase image, or a map made of one"
_PART = "the real or imaginary part of an image"
_MAP = "a map of a physical quantity"
_CT = "a CT"
_PET = "a PET"
# By the suffix of a BIDS name, in lower case. Further maps end in "map".
_SUFFIXES = {
    **dict.fromkeys("mask dseg probseg defacemask".split(), _LABELS),
    **dict.fromkeys("phase phase1 phase2 phasediff fieldmap".split(), _PHASE),
    **dict.fromkeys("t1rho mtsat adc expadc fa colfa".split(), _MAP),
    "pet": _PET,
    "ct": _CT,
}
_PARTS = {"phase": _PHASE, "real": _PART, "imag": _PART}  # BIDS's part-<label>
_IMAGE_TYPES: dict[str | None, str] = {
    "phase image": _PHASE,
    "real part": _PART,
    "imaginary part": _PART,
    "map": _MAP,
    "mask": _LABELS,
    "localizer": "a localizer",
    "projection": "a projection",
}
_UNITS = {
    **dict.fromkeys("rad radian radians deg degree degrees hz rad/s".split(), _PHASE),
    **dict.fromkeys("bq/ml kbq/ml mbq/ml suv g/ml".split(), _PET),
    **dict.fromkeys("ppm ppb s sec ms msec 1/s s^-1 mm^2/s mm2/s um^2/ms ml/100g/min".split(), _MAP),
    "hu": _CT,
}
_TRACER = ("TracerName", "TracerRadionuclide")
_LABEL_INTENTS = {1002, 1003}
# Besides statistics: estimates, matrices, vectors, surfaces, displacements.
_INTENTS = {*range(2, 25), *range(1001, 1011), *range(2002, 2019)}


def explain_unsuitable_file(path: str | os.PathLike, ct: bool = False) -> str | None:
    """Why a file is not a magnitude MR image, by its BIDS name, header and sidecar JSON. No voxels are read.

    Args:
        path: an existing file.
        ct: whether a CT is wanted instead of MR.

    Returns:
        The reason, with its evidence and what to do if it is wrong; or None.
    """
    path = Path(path)
    image = open_image_or_none(path)  # faults of a file are reported when it is loaded
    for kind, where, mend in (
        (classify_by_name(path), "its name", "rename it"),
        (_classify_by_intent(image), "the intent code of its header", "set that to 0"),
        (_classify_by_shape(image), "its shape", "mend its header"),
        (_classify_by_itk(image, ct), "its header", "mend that"),
        (_classify_by_sidecar(path, ct), "its sidecar JSON", "mend that"),
    ):
        if kind is not None and not (ct and kind == _CT):
            return f"{kind}, by {where}; expected {'a CT' if ct else 'a magnitude MR image'}. If it is one, {mend}."
    return None


def classify_by_name(path: Path) -> str | None:
    """What a file is by the part and the suffix of its BIDS name, if it is no magnitude MR image; else None."""
    *entities, suffix = Path(_get_stem(path)).name.lower().split("_")
    labels = dict(entity.split("-", 1) for entity in entities if "-" in entity)
    if "sub" not in labels:
        return None
    return _PARTS.get(labels.get("part", "")) or _SUFFIXES.get(suffix) or (_MAP if suffix.endswith("map") else None)


def explain_unreadable(path: str | os.PathLike) -> str | None:
    """Why a file that looks like a scan cannot be read, and what to do; None if no reason is known.

    Args:
        path: a file, or a broken link.
    """
    path = Path(path)
    if (problem := explain_missing_content(path)) is not None:
        return problem if looks_like_scan(path) else None
    name = path.name.lower()
    if name == _BRUKER:
        return "a 2dseq of Bruker ParaVision is not read; convert it to NIfTI, e.g. with bruker2nifti."
    if (end := _explain_unread(name)) is not None:
        return f"{end} is not read; convert it, e.g. with {_CONVERTERS[end]}."
    if is_named_as_dicom(path) or (not looks_like_scan(path) and may_be_dicom(path)):
        try:
            is_dicom_file = is_dicom(path)
        except OSError as error:
            return f"it cannot be read ({error.strerror}); make it readable, or get a whole copy of it."
        if is_dicom_file:
            return "DICOM is read as a series by mri-sr, from its folder; name that folder, as a guide too."
        return "it is named like a DICOM file, but is none; get a whole copy of it, or remove it."
    if name.endswith(_AFNI):
        return "the .HEAD file that belongs to it is missing; put both into one folder."
    return None


def looks_like_scan(path: str | os.PathLike) -> bool:
    """Whether a file's name is that of a scan, in any format."""
    name = Path(path).name.lower()
    return (
        get_extension(name) is not None
        or _explain_unread(name) is not None
        or name == _BRUKER
        or name.endswith(_AFNI)
        or is_named_as_dicom(Path(name))
    )


def select_scan_files(paths: Iterable[Path]) -> list[Path]:
    """Select the files that look like scans, one for each scan.

    The file of voxels next to its header, such as .img next to .hdr, is left out. So is a scan in an unsupported format
    next to the same scan in a supported one.
    """
    paths = [path for path in paths if looks_like_scan(path)]
    read = {_get_stem(path) for path in paths if get_extension(path)}
    headers = {str(path) for path in remove_voxel_files(map(str, paths))}
    return [path for path in paths if str(path) in headers and (get_extension(path) or _get_stem(path) not in read)]


def remove_voxel_files(paths: Iterable[str]) -> list[str]:
    """Leave out files of voxels whose header is among the paths."""
    paths = list(paths)
    known = {path.lower() for path in paths}
    voxels = {
        header.removesuffix(end) + other
        for header in known
        for end, others in _VOXELS.items()
        if header.endswith(end)
        for other in others
    }
    return [path for path in paths if path.lower() not in voxels]


def find_archives(paths: Iterable[Path]) -> dict[Path, str]:
    """The files that are archives of others by their names, each with what to do."""
    files = [path for path in paths if path.name.lower().endswith(_ARCHIVES) and not looks_like_scan(path)]
    return dict.fromkeys(files, "an archive; unpack it if it holds scans.")


_skipped: ContextVar[dict[str, str] | None] = ContextVar("skipped", default=None)


@contextmanager
def collect_skipped() -> Iterator[dict[str, str]]:
    """Collect what the block says by :func:`print_skipped`: reasons by the name of the file or series.

    At its end a line is printed for each kind of files that BIDS names show, instead of one for each file.
    """
    found: dict[str, str] = {}
    token = _skipped.set(found)
    try:
        yield found
    finally:
        _skipped.reset(token)
        by_kind: dict[str | None, list[str]] = {}
        for name in found:
            by_kind.setdefault(classify_by_name(Path(name)), []).append(name)
        for kind, names in by_kind.items():
            if kind is not None:
                more = f"passed over, by their BIDS names: {len(names)} files, such as {names[0]}: {kind}"
                print_once(more if len(names) > 1 else f"passed over: {names[0]}: {found[names[0]]}")


def print_skipped(reasons: Mapping[Any, str], line: str | None = None) -> None:
    """Print a line for each file or series that is not a scan.

    Args:
        reasons: reasons by the name of the file or series.
        line: one for all, instead.
    """
    if (skipped := _skipped.get()) is not None:
        skipped |= {str(name): reason for name, reason in reasons.items()}
        reasons = {name: reason for name, reason in reasons.items() if line or not classify_by_name(Path(name))}
    lines = [f"passed over: {name}: {reason}" for name, reason in reasons.items()]
    for each in lines if line is None or not lines else [line]:
        print_once(each)


def _get_stem(path: Path) -> str:
    end = get_extension(path) or _explain_unread(path.name.lower()) or path.suffix
    return str(path)[: len(str(path)) - len(end)]


def _explain_unread(name: str) -> str | None:
    return next((end for end in _UNREAD if name.endswith(end)), None)


def _classify_by_intent(image: SpatialImage | None) -> str | None:
    header = None if image is None else image.header
    code = int(header["intent_code"]) if isinstance(header, nib.Nifti1Header) else 0
    if code in _LABEL_INTENTS:
        return _LABELS
    return f"an image of the kind '{intent_codes.label[code]}'" if code in _INTENTS and code in intent_codes else None


def _classify_by_shape(image: SpatialImage | None) -> str | None:
    shape = () if image is None else tuple(image.shape)
    if len(shape) > 2 and min(shape) > 0 and sum(n > 1 for n in shape[:3]) < 2:
        return "values along a line, as of a surface"
    return "vectors, as of a deformation field" if shape[3:4] == (1,) and set(shape[4:]) - {1} else None


def _classify_by_itk(image: SpatialImage | None, ct: bool) -> str | None:
    """By the fields of NRRD and MetaImage."""
    fields = {} if image is None else image.extra
    return _LABELS if fields.get("segments") else _classify_by_modality(fields.get("modalities", ()), ct)


def _classify_by_sidecar(path: str | os.PathLike, ct: bool) -> str | None:
    metadata, _ = read_sidecar(path)

    def get_words(key: str) -> list[str]:
        value = metadata.get(key)
        values = value if isinstance(value, list) else [value]
        return [word.strip().upper() for word in values if type(word) is str and word.strip()]

    keys = ("ComplexImageComponent", "ImageType", "ImageTypeText")
    kind = _IMAGE_TYPES.get(
        classify_type([word for key in keys for value in get_words(key) for word in value.split("\\")])
    )
    units = next((_UNITS.get(word.lower()) for word in get_words("Units")), None)
    modalities = get_words("Modality") or ["PT" for key in _TRACER if get_words(key)]
    return kind or units or _classify_by_modality(modalities, ct)


def _classify_by_modality(modalities: Sequence[str], ct: bool) -> str | None:
    """By DICOM's names of modalities, in capitals."""
    modality = next((word for word in modalities if word not in ("MR", "MRI", "CT" if ct else "MR")), None)
    return {None: None, "CT": _CT, "PT": _PET, "PET": _PET}.get(modality, f"an image of the modality {modality}")
