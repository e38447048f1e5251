"""Writing a derived MR series: a super-resolved volume as DICOM files beside the series that it was made from."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import SOPClass
from pydicom import DataElement, Dataset, config
from pydicom.charset import python_encoding
from pydicom.multival import MultiValue
from pydicom.sr.codedict import Code, codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from .read import quiet, rescale

# True of the derived series as it was of its source. Only what is the same in all source slices is carried over:
# nothing of a single slice, of the matrix or the field of view, of other images, and no private tag.
_KEPT = (
    "ProtocolName", "BodyPartExamined", "Laterality", "PatientPosition", "AnatomicalOrientationType",
    "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "BurnedInAnnotation",
    "RecognizableVisualFeatures", "ContentQualification", "AnatomicRegionSequence",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "AngioFlag",
    "RepetitionTime", "EchoTime", "InversionTime", "TriggerTime", "EchoNumbers", "EchoTrainLength", "FlipAngle",
    "NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "MagneticFieldStrength", "ReceiveCoilName",
    "TransmitCoilName", "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusRoute", "ContrastBolusVolume",
)  # fmt: skip
# What the standard wants in every MR image, where the source lacks it: empty, or the word for "something else".
_DEFAULTS = {
    "PositionReferenceIndicator": "", "PatientPosition": "", "ScanningSequence": "RM", "SequenceVariant": "NONE",
    "ScanOptions": "", "MRAcquisitionType": "", "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
}  # fmt: skip
# Body parts that have no left and right, for which the standard forbids Laterality and else demands it.
_UNPAIRED = {
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CEREBELLUM", "CERVIX", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "CIRCLEOFWILLIS", "COCCYX", "COLON", "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM",
    "ESOPHAGUS", "FACE", "GALLBLADDER", "HEAD", "HEADNECK", "HEART", "ILEUM", "ILIUM", "JAW", "JEJUNUM", "LARYNX",
    "LIVER", "LSPINE", "LSSPINE", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST", "NOSE", "PANCREAS", "PELVIS",
    "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "SCALP", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH",
    "THYMUS", "THYROID", "TLSPINE", "TONGUE", "TRACHEA", "TSPINE", "URETER", "URETHRA", "UTERUS", "VAGINA", "VULVA",
    "WHOLEBODY",
}  # fmt: skip
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1", "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1", "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}  # fmt: skip
_SERIES_NUMBER = 1000  # added to the source's
_LENGTH = 64  # of a SeriesDescription
# How the DerivationDescription of a series begins that is written here.
DERIVED = re.compile(r"Super-resolution (by [^ ]+|to [^ ]+ mm) \(columns x rows x slices\) of the series ")


@quiet()
def write_series(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    headers: Sequence[Dataset],
    bundle: Mapping[str, Any],
    part: str = "",
) -> str:
    """Write a volume as a series of MR images, one file a slice.

    Args:
        folder: an empty one; files are named 0001.dcm, 0002.dcm, ...
        voxels: ``(slices, rows, columns)``, any real type, in the units of the source.
        affine: 4x4, index ``(column, row, slice)`` to world (RAS, mm).
        headers: of the series that the volume was made from, in the order of its slices.
        bundle: the ``metadata.json`` of the bundle that made it, with the SHA-256 of its weights as "sha256".
        part: which images of their series the headers are of, such as "echo 2, TE 90 ms", where it holds others too.

    Returns:
        The new SeriesInstanceUID.

    Raises:
        ValueError: when a voxel is not finite.
    """
    first, last = headers[0], headers[-1]
    dtype, slope, intercept = _encoding(voxels, *_common_rescale(headers))
    scanned = first.Columns, first.Rows, len(headers)
    factors = [out / n for out, n in zip(voxels.shape[::-1], scanned, strict=True)]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    template = _Template(headers, bundle, _change(factors, spacing), part)
    template.PixelSpacing = _placed([spacing[1], spacing[0]])
    template.ImageOrientationPatient = _placed((lps[:3, :2] / spacing[:2]).T.ravel())
    template.SpacingBetweenSlices = _placed([spacing[2]])[0]
    thickness = slice_thickness(headers)
    template.SliceThickness = None if thickness is None else _placed([thickness / factors[2]])[0]
    template.Rows, template.Columns = voxels.shape[1:]
    template.BitsAllocated, template.BitsStored, template.HighBit = 16, 16, 15
    template.PixelRepresentation = int(dtype.kind == "i")
    if (slope, intercept) != (1, 0):
        template.RescaleSlope, template.RescaleIntercept = _decimal([slope, intercept])
        template.RescaleType = _common(headers, "RescaleType") or "US"
    template.WindowCenter, template.WindowWidth = _decimal(_window(headers, voxels))

    count = len(voxels)
    # Slices are numbered in the direction in which those of the source are.
    backwards = _whole(first, "InstanceNumber") > _whole(last, "InstanceNumber")
    for k in range(count):
        number = count - k if backwards else k + 1
        template.InstanceNumber = number
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        template.ImagePositionPatient = _placed(lps[:3, 3] + k * lps[:3, 2])
        stored = np.rint((voxels[k].astype(np.float64) - intercept) / slope)
        template.PixelData = stored.astype(dtype.newbyteorder("<")).tobytes()
        template["PixelData"].VR = "OW"
        template.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return template.SeriesInstanceUID


class _Template(SOPClass):
    """All attributes that the slices of the derived series share."""

    def __init__(self, headers: Sequence[Dataset], bundle: Mapping[str, Any], change: str, part: str) -> None:
        first, now = headers[0], datetime.datetime.now()
        name, version = bundle["name"], bundle["version"]
        super().__init__(
            study_instance_uid=first.StudyInstanceUID,
            series_instance_uid=generate_uid(prefix=None),
            series_number=_whole(first, "SeriesNumber") + _SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            sop_class_uid=MRImageStorage,
            instance_number=1,
            modality="MR",
            # The equipment of a derived image is what derived it; the scanner is named as contributing equipment.
            manufacturer=bundle["authors"][:64],
            manufacturer_model_name=name[:64],
            software_versions=version[:64],
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_date=now.date(),
            series_time=now.time(),
            content_date=now.date(),
            content_time=now.time(),
        )
        named = first.get("SpecificCharacterSet")
        if named:
            # pydicom has read texts of an unknown one as well as it could, and writes them in this one.
            known = all(name in python_encoding for name in np.atleast_1d(named))
            self.SpecificCharacterSet = named if known else "ISO_IR 192"
        self.copy_patient_and_study_information(first)
        if self.PatientSex not in ("M", "F", "O"):
            self.PatientSex = ""  # unknown; anything else is no valid value
        self.FrameOfReferenceUID = first.get("FrameOfReferenceUID") or generate_uid(prefix=None)
        for keyword in ("PositionReferenceIndicator", *_KEPT):
            value = _common(headers, keyword)
            if value not in (None, ""):
                setattr(self, keyword, value)
        for keyword, default in _DEFAULTS.items():
            if keyword not in self:
                setattr(self, keyword, default)
        self._conditional("InversionTime", "IR" in np.atleast_1d(self.ScanningSequence))
        self._conditional("TriggerTime", bool({"CG", "PPG"} & set(np.atleast_1d(self.ScanOptions))))
        self._conditional("Laterality", self.get("BodyPartExamined") not in _UNPAIRED)
        if self.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in self:
            self.DeidentificationMethod = self.get("DeidentificationMethod") or "not stated in the source series"

        description = str(first.get("SeriesDescription", "")).strip()
        was = f"{first.get('SeriesNumber', '')} '{description}'{', ' if part else ''}{part}"
        self.SeriesDescription = _described(description, part, f"SR {change.split(maxsplit=1)[1]}")
        self.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        self.DerivationDescription = (
            f"Super-resolution {change} (columns x rows x slices) of the series {was} ({first.SeriesInstanceUID}) "
            f"with the MONAI bundle '{name}', version {version}, SHA-256 of its weights {bundle['sha256']}."
        )[:1024]
        self.DerivationCodeSequence = [_code(codes.DCM.SpatialResampling)]
        self.ImageComments = str(bundle.get("intended_use", ""))[:1024]
        self.SamplesPerPixel, self.PhotometricInterpretation = 1, "MONOCHROME2"
        self._lossy(headers)

        purpose = _code(codes.DCM.SourceImageForImageProcessingOperation)
        self.SourceImageSequence = [_reference(header) for header in headers]
        for item in self.SourceImageSequence:
            item.PurposeOfReferenceCodeSequence = [purpose]
        series = Dataset()
        series.SeriesInstanceUID = first.SeriesInstanceUID
        series.ReferencedInstanceSequence = [_reference(header) for header in headers]
        self.ReferencedSeriesSequence = [series]
        self.ContributingEquipmentSequence = [
            *first.get("ContributingEquipmentSequence", []),
            *([_equipment(headers, codes.DCM.AcquisitionEquipment)] if _common(headers, "Manufacturer") else []),
            _equipment([self], codes.DCM.ProcessingEquipment),
        ]

    def _conditional(self, keyword: str, wanted: bool) -> None:
        """Have an attribute, empty where it is not known, if the standard demands it, and not have it if not."""
        if not wanted:
            self.pop(keyword, None)
        elif keyword not in self:
            setattr(self, keyword, None)

    def _lossy(self, headers: Sequence[Dataset]) -> None:
        """An image made from one that has lost something to compression says so, for good."""
        flags = {header.get("LossyImageCompression") for header in headers}
        # Only where the flag is missing does the file's own compression tell.
        methods: set[Any] = {
            _LOSSY.get(h.file_meta.TransferSyntaxUID) for h in headers if not h.get("LossyImageCompression")
        }
        methods.discard(None)
        if "01" in flags or methods:
            self.LossyImageCompression = "01"
            for keyword, value in (("Ratio", None), ("Method", sorted(methods))):
                value = _common(headers, f"LossyImageCompression{keyword}") or value
                if value:
                    setattr(self, f"LossyImageCompression{keyword}", value)
        elif flags == {"00"}:
            self.LossyImageCompression = "00"


def _change(factors: Sequence[float], spacing: Sequence[float]) -> str:
    """By what a series is made finer; where it is not, as one that the scanner interpolated, to which voxels in mm."""
    finer = min(factors) >= 1 < max(factors)
    numbers = "x".join(f"{number:.3g}" for number in (factors if finer else spacing))
    return f"by {numbers}" if finer else f"to {numbers} mm"


def _described(source: str, part: str, tail: str) -> str:
    """The source's name, its part and a tail, as long as may be: the name and the part are cut at their ends."""
    tail = f" {part} {tail}" if part and len(part) + len(tail) + 2 < _LENGTH // 2 else f" {tail}"
    return f"{source[: _LENGTH - len(tail)].rstrip()}{tail}".strip()


def slice_thickness(headers: Sequence[Dataset]) -> float | None:
    """Nominal thickness of a series' slices in mm, where all say the same and it can be one."""
    thickness = _common(headers, "SliceThickness")
    return float(thickness) if thickness is not None and 0 < float(thickness) < 1e3 else None


def _common(headers: Sequence[Dataset], keyword: str) -> Any:
    """An attribute's value where all slices have the same, and the standard allows it."""
    value = headers[0].get(keyword)
    if keyword not in headers[0] or any(header.get(keyword) != value for header in headers):
        return None
    try:
        element = DataElement(keyword, headers[0][keyword].VR, value, validation_mode=config.RAISE)
    except Exception:  # of several kinds, whatever the value is
        return None
    # Control characters pass pydicom's check.
    texts = value if isinstance(value, MultiValue) else [value]
    return value if element.VR == "SQ" or all(str(text).isprintable() for text in texts) else None


def _common_rescale(headers: Sequence[Dataset]) -> tuple[float, float]:
    """The rescale that all slices share, else that with the finest steps."""
    return min((rescale(header) for header in headers), key=lambda pair: abs(pair[0]))


def _encoding(voxels: np.ndarray, slope: float, intercept: float) -> tuple[np.dtype, float, float]:
    """16-bit integers and their rescale: the source's steps where the range allows them, else its own range."""
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("the result has voxels that are not finite, which DICOM cannot store; are the weights sound?")
    ends = np.rint((np.array([low, high]) - intercept) / slope)
    for dtype in (np.uint16, np.int16):
        info = np.iinfo(dtype)
        if ends.min() >= info.min and ends.max() <= info.max:
            return np.dtype(dtype), slope, intercept
    return np.dtype(np.uint16), (high - low) / np.iinfo(np.uint16).max or 1.0, low


def _window(headers: Sequence[Dataset], voxels: np.ndarray) -> tuple[float, float]:
    """One window for all slices: the median of the source's, else the range of the volume without its extremes."""
    pairs = []
    for header in headers:
        try:
            center, width = (np.atleast_1d(header[k].value)[0] for k in ("WindowCenter", "WindowWidth"))
            pairs.append((float(center), float(width)))
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    if pairs and np.isfinite(pairs).all():
        center, width = np.median(pairs, axis=0)
    else:
        low, high = np.quantile(voxels, [0.005, 0.995])
        center, width = (low + high) / 2, high - low
    return float(center), max(float(width), 1.0)


def _decimal(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Numbers as decimal strings of at most 16 characters, with as many digits as fit."""
    return [format_number_as_ds(float(number)) for number in numbers]


def _whole(header: Dataset, keyword: str) -> int:
    """A number of a series or image, or 0 where it is none that the standard allows."""
    try:
        number = int(str(header.get(keyword)))
    except ValueError:
        return 0
    return number if 0 <= number <= 10**9 else 0


def _equipment(headers: Sequence[Dataset], purpose: Code) -> Any:
    """What made images, as an item that says for what it was used."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code(purpose)]
    for keyword in (
        "Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber",
        "SoftwareVersions",
    ):  # fmt: skip
        value = _common(headers, keyword)
        if value:
            setattr(item, keyword, value)
    return item


def _placed(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Lengths and directions as decimal strings, to a millionth of a micrometre, without the noise of arithmetic."""
    return _decimal(np.round(numbers, 9) + 0.0)


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
