"""Decide by name, header and sidecar JSON whether a file is a scan, something else, or an unreadable scan."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.nifti1 import intent_codes
from nibabel.spatialimages import SpatialImage

from ...io.dicom_series.image_types import NO_PHASE, NUMBER, classify_name, classify_type, identify_part
from ...io.dicom_series.signature import is_dicom
from ...io.files import read_sidecar
from ...io.formats import explain_missing_content, get_extension, is_named_as_dicom, may_be_dicom
from ...io.images import open_image_or_none
from ...runtime.distributed import print_once

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
_VOXELS = {
    ".hdr": (".img",),
    ".hdr.gz": (".img.gz",),
    ".head": _AFNI,
}

_LABELS = "a mask or label map"
_PHASE = "a phase image, or a map made of one"
_PART = "the real or imaginary part of an image"
_MAP = "a map of a physical quantity"
_TEST = "a map of statistics"
_MADE = "a map that a program computed from images"
_CT = "a CT"
_PET = "a PET"
# By the last word of a BIDS name, in lower case; None for scans.
_SUFFIXES = {
    **dict.fromkeys("mask dseg dlabel probseg seg segmentation label labels defacemask".split(), _LABELS),
    **dict.fromkeys("phase phase1 phase2 phasediff fieldmap".split(), _PHASE),
    **dict.fromkeys("t1rho mtsat adc fa md ad rd alff reho".split(), _MAP),
    "xfm": _MADE,
    "statmap": _TEST,
    "pet": _PET,
    "ct": _CT,
    **dict.fromkeys(
        "t1w t2w pdw t2starw flair inplanet1 inplanet2 pdt2 angio unit1 bold sbref dwi epi magnitude".split()
    ),
}
_PARTS = {"phase": _PHASE, "real": _PART, "imag": _PART, "imaginary": _PART}  # BIDS's part-<label>
# Anywhere in another name, as a whole word.
_WORDS = {
    **dict.fromkeys("segmentation segmentations labelmap labelmaps parcellation".split(), _LABELS),
    **dict.fromkeys("phasediff fieldmap".split(), _PHASE),
}
# Only at the end of another name, where programs put them. Elsewhere they may be initials.
_LAST = {
    "ct": _CT,
    **dict.fromkeys("pet suv".split(), _PET),
    **dict.fromkeys("label labels ribbon parc wmh".split(), _LABELS),
}
_DTI = set("fa md mo ad rd l1 l2 l3 sse mode mk ak rk".split())  # in a name with dti or dmri
_MASKS = re.compile(r"(?!un|no)[a-z0-9]*(mask|seg)(s|inv|\d*)")
# These words may follow the name of a mask.
_STATES = set(
    "auto manual edited manedit final fs bet drawem rca labeled labelled healthy unhealthy left right lst".split()
)
_MAPS = re.compile("[a-z0-9]*maps?")
# What FreeSurfer, FSL, SPM, ANTs, the Spinal Cord Toolbox and the HCP's pipelines compute from scans. Words are
# separated by "_", and a number may follow the last.
_OUTPUTS = {
    re.compile(rf"(?:^|_)(?:{words})\d*(?=_|$)"): kind
    for words, kind in {
        r"aseg|asegedit|aparc|wmparc|entowm|ctrl_pts|surface_defects|thalamic_nuclei|cerebnet|hypvinn": _LABELS,
        r"sclimbic|callosum|vsinus|mca_dura|labels|label_?map_?volume|rois(_\d+)?$|classes$": _LABELS,
        r"labeled_discs|spinal_levels?|centerline|^pam50_(?!t[12]).*": _LABELS,
        r"pve|mixeltype|bet_skull|posteriors|probability|probs?$|dartelinput|^ples_.*|^tpm$|^template_[0-7]$": _LABELS,
        r"fod|wmfod|5tt|gmwmi|tdi|icvf|skeleton(i[sz]ed)?$": _MAP,
        r"(bias|log)_?field(?!_?(corr|rem))|totbias|bias(_init|_vol\d*)?$|(log_?)?jacobians?|jac$": _MADE,
        r"cort(ex|ical)_?thickness|(?<!slice_)thickness$|(t1w?_?)?divided_?by_?t2w?|t1w?_?t2w?_?ratio": _MADE,
        r"deformation(_?field)?|disp(lacement)?_?field|nonlin_field|(field_?|warp_?|nonlin_)coeff?": _MADE,
        r"warp$|inverse_?warp$|^warp_.*": _MADE,
        r"^(beta|con|ess|resi)_\d{4}$|^(resms|rpv|sigmasquareds|(var)?cope\d+|pe\d+)$|.*corrp.*": _TEST,
    }.items()
}
_AFNI_VIEW = r"(\..*)?\+(orig|acpc|tlrc)$"  # with the subject before it
_FLIP_ANGLE = r"(?<![a-z0-9])fa[^a-z0-9]+\d+"
_TESTS = re.compile(r"z?[ztf]stat\d*|spm[tf]|[ztp]map")
_DENIED = {"no", "without", "applied"}  # "t1_mask_applied" is a scan
_SPM = re.compile("([a-z]*[cp][0-6]|wj_)(?!$)")  # before the name of the scan
# Of SPM and CAT12, wherever the scan is.
_TISSUE = re.compile("s?(m0?w|mwmw)[cp][0-6](?!$)|s?w[cp][0-6](?=[a-z])|s?rc[1-3](?=[a-z])")
_FREESURFER = {"brainmask": None, "filled": _LABELS, "wm": _LABELS}  # its brainmask.mgz is the skull-stripped head
# nnU-Net and TotalSpineSeg name labels like their images.
_FOLDERS = {
    **dict.fromkeys("labels labelstr labelsts gt_segmentations masks segmentations mri_atlas".split(), _LABELS),
    **{f"step{step}_{what}": _LABELS for step in (1, 2) for what in "raw output cord canal levels".split()},
    "xfms": _MADE,
}
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


def explain_exclusion(path: str | os.PathLike, ct: bool = False) -> str | None:
    """Why a file is not a magnitude MR image, by its name, header and sidecar JSON. No voxels are read.

    Args:
        path: an existing file.
        ct: whether a CT is wanted instead of MR.

    Returns:
        The reason, with its evidence and what to do if it is wrong; or None.
    """
    path = Path(path)
    image = open_image_or_none(path)  # faults of a file are reported when it is loaded
    for kind, where, mend in (
        (_classify_by_name(path), "its name", "rename it"),
        (_FOLDERS.get(path.parent.name.lower()), "its folder's name", "move it"),
        (_classify_by_intent(image), "the intent code of its header", "set that to 0"),
        (_classify_by_shape(image), "its shape", "mend its header"),
        (_classify_by_itk(image, ct), "its header", "mend that"),
        (_classify_by_sidecar(path, ct), "its sidecar JSON", "mend that"),
    ):
        if kind is not None and not (ct and kind == _CT):
            return f"{kind}, by {where}; expected {'a CT' if ct else 'a magnitude MR image'}. If it is one, {mend}."
    return None


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
            return "DICOM is read as a series by mri-sr, from its folder; as a guide, convert it with dcm2niix."
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


def print_skipped(reasons: Mapping[Any, str]) -> None:
    """Print a line for each file or series that is not a scan.

    Args:
        reasons: reasons by the name of the file or series.
    """
    for name, reason in reasons.items():
        print_once(f"passed over: {name}: {reason}")


def _get_stem(path: Path) -> str:
    end = get_extension(path) or _explain_unread(path.name.lower()) or path.suffix
    return str(path)[: len(str(path)) - len(end)]


def _explain_unread(name: str) -> str | None:
    return next((end for end in _UNREAD if name.endswith(end)), None)


def _classify_by_name(path: Path) -> str | None:
    name = re.sub(_AFNI_VIEW, "", Path(_get_stem(path)).name)
    stem = name.lower()
    first = re.split("[.-]", stem)[0]
    if get_extension(path) in (".mgz", ".mgh") and first in _FREESURFER:
        return _FREESURFER[first]
    if _TISSUE.match(stem) or ((tissue := _SPM.match(stem)) and _belongs_to_scan(path, tissue.end())):
        return _LABELS
    labels = dict(part.split("-", 1) for part in stem.split("_") if re.fullmatch("[a-z]+-[a-z0-9+]+", part))
    if labels.get("part") in _PARTS:
        return _PARTS[labels["part"]]
    last = stem.rpartition("_")[2]
    if "sub" in labels and last in _SUFFIXES:
        return _SUFFIXES[last]
    if "sub" in labels and last.startswith(("lesion-", "seg-")):  # names of the Spinal Cord Toolbox
        return _LABELS
    # Also as words that begin with a capital, as ANTs writes them.
    for spelt in (name, re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name)):
        if (kind := _classify_by_words(re.sub(f"sub-[a-z0-9+]+|{_FLIP_ANGLE}", "", spelt.lower()))) is not None:
            return kind
    return None


def _belongs_to_scan(path: Path, start: int) -> bool:
    """Whether a name goes on from ``start`` with that of a scan: of BIDS, or next to it or in the folder above."""
    rest = re.sub(r"_(affine|rigid)(?=\.)", "", path.name[start:])
    return rest.startswith("sub-") or any((folder / rest).is_file() for folder in (path.parent, path.parent.parent))


def _classify_by_words(stem: str) -> str | None:
    """By a name that is not a BIDS name, in lower case."""
    parts = [word for word in re.split("[^a-z0-9]+", stem) if word]
    words = [word for word in parts if not re.fullmatch(NUMBER, word.upper())]
    if not words or _DENIED & set(words):
        return None
    capitals = [word.upper() for word in words]
    if words[-1] == "phase" and NO_PHASE & set(capitals[-2:-1]):
        return None
    if any(_TESTS.fullmatch(word) for word in words):
        return _TEST
    before = [*words]
    while len(before) > 1 and before[-1] in _STATES:
        before.pop()
    if _MASKS.fullmatch(before[-1]):
        return _LABELS
    if {"dti", "dmri"} & set(words) and words[-1] in _DTI:
        return _MAP
    part = identify_part(["_".join(capitals[i:]) for i in range(len(words))])
    joined = "_".join(parts)
    kinds = [_WORDS[word] for word in words if word in _WORDS]
    kinds += [kind for pattern, kind in _OUTPUTS.items() if pattern.search(joined)]
    kinds += [_IMAGE_TYPES[kind] for kind in (part, classify_name(joined.upper())) if kind is not None]
    kinds += [_LAST[words[-1]]] if words[-1] in _LAST else []
    return next(iter(kinds), _MAP if _MAPS.fullmatch(words[-1]) else None)


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
