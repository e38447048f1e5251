"""Write a super-resolved volume as a derived DICOM MR series."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import SOPClass
from highdicom.sr import CodedConcept
from nibabel.affines import voxel_sizes
from pydicom import DataElement, Dataset, config
from pydicom.charset import python_encoding
from pydicom.multival import MultiValue
from pydicom.sr.codedict import Code, codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from .files import silence_pydicom
from .pixels import get_rescale
from .tags import get_number, get_numbers, get_values

# Tags that are copied from the source, if they are equal in all its slices. Not copied: tags of single slices, of the
# matrix, of the field of view and of other images, and private tags.
_KEPT = (
    "ProtocolName", "BodyPartExamined", "Laterality", "PatientPosition", "AnatomicalOrientationType",
    "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "BurnedInAnnotation",
    "RecognizableVisualFeatures", "AnatomicRegionSequence",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "AngioFlag",
    "RepetitionTime", "EchoTime", "InversionTime", "TriggerTime", "EchoNumbers", "EchoTrainLength", "FlipAngle",
    "NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "MagneticFieldStrength", "ReceiveCoilName",
    "TransmitCoilName", "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusRoute", "ContrastBolusVolume",
)  # fmt: skip
# Tags that the standard requires in every MR image, if the source lacks them: empty, or the code for "other".
_DEFAULTS = {
    "PositionReferenceIndicator": "", "PatientPosition": "", "ScanningSequence": "RM", "SequenceVariant": "NONE",
    "ScanOptions": "", "MRAcquisitionType": "", "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
}  # fmt: skip
# Body parts without left and right. The standard forbids Laterality for these and requires it for all others.
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
_MANUFACTURER = "MRI super-resolution bundles"  # the equipment of a derived image is the software
_RESEARCH = "[research only]"
_SERIES_NUMBER = 1000  # added to the source's, once more for each further part of it
_EXACT = 256  # window width below which the halves in the standard's default function for windows matter
_WIDTHS = 0.01, 10  # of the source's window, in ranges of the signal; others were made for fill values or tiny values
_LENGTH = 64  # of a SeriesDescription
# Beginning of the DerivationDescription in series that this module writes.
DERIVED = re.compile(r"Super-resolution (by [^ ]+|to [^ ]+ mm) \(columns x rows x slices\) of the series ")


@silence_pydicom()
def write_series(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    source_affine: np.ndarray,
    headers: Sequence[Dataset],
    bundle: Mapping[str, Any],
    part: str = "",
    number: int = 0,
    others: Sequence[Sequence[Dataset]] = (),
) -> str:
    """Write a volume as a series of MR images, one file a slice.

    Args:
        folder: an empty folder; files are named 0001.dcm, 0002.dcm, ...
        voxels: ``(slices, rows, columns)``, any real type, in the units of the source.
        affine: 4x4, index ``(column, row, slice)`` to world (RAS, mm).
        source_affine: 4x4, of the source series.
        headers: headers of the source series, in the order of its slices.
        bundle: "name" and "version" of the bundle that made it, the SHA-256 of its weights as "sha256", and perhaps its
            "intended_use".
        part: name of the source's part, such as "echo 2, TE 90 ms"; empty for a whole series.
        number: of the part, from 0, so that the parts of a series get different series numbers.
        others: headers of further series that the volume was made of; they are named as sources.

    Returns:
        The new SeriesInstanceUID.

    Raises:
        ValueError: when a voxel is not finite.
    """
    first, last = headers[0], headers[-1]
    dtype, slope, intercept = choose_pixel_encoding(voxels, *choose_rescale(headers))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = voxel_sizes(lps)
    factors = np.round(voxel_sizes(source_affine) / spacing, 6)
    template = _Template(headers, bundle, factors, spacing, part, number, others)
    template.PixelSpacing = _format_positions([spacing[1], spacing[0]])
    template.ImageOrientationPatient = _format_positions((lps[:3, :2] / spacing[:2]).T.ravel())
    template.SpacingBetweenSlices = _format_positions([spacing[2]])[0]
    # Slices that were made finer touch; others keep the thickness of their protocol.
    thickness = get_slice_thickness(headers) if factors[2] == 1 else spacing[2]
    template.SliceThickness = None if thickness is None else _format_positions([thickness])[0]
    template.Rows, template.Columns = voxels.shape[1:]
    template.BitsAllocated, template.BitsStored, template.HighBit = 16, 16, 15
    template.PixelRepresentation = int(dtype.kind == "i")
    if (slope, intercept) != (1, 0):
        template.RescaleSlope, template.RescaleIntercept = _format_decimals([slope, intercept])
        template.RescaleType = _get_common_value(headers, "RescaleType") or "US"
    center, width = _choose_window(headers, voxels)
    template.WindowCenter, template.WindowWidth = _format_decimals([center, width])
    if width < _EXACT:
        template.VOILUTFunction = "LINEAR_EXACT"

    count = len(voxels)
    direction, offset = _fit_locations(headers, np.cross(*(lps[:3, :2] / spacing[:2]).T))
    # Slices are numbered in the direction of the source's slices.
    backwards = _get_valid_number(first, "InstanceNumber") > _get_valid_number(last, "InstanceNumber")
    for k in range(count):
        number = count - k if backwards else k + 1
        template.InstanceNumber = number
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        position = lps[:3, 3] + k * lps[:3, 2]
        template.ImagePositionPatient = _format_positions(position)
        template.SliceLocation = _format_positions([position @ direction + offset])[0]
        stored = np.rint((voxels[k].astype(np.float64) - intercept) / slope)
        template.PixelData = stored.astype(dtype.newbyteorder("<")).tobytes()
        template["PixelData"].VR = "OW"
        template.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return template.SeriesInstanceUID


class _Template(SOPClass):
    """All attributes that the slices of the derived series share."""

    def __init__(
        self,
        headers: Sequence[Dataset],
        bundle: Mapping[str, Any],
        factors: Sequence[float],
        spacing: Sequence[float],
        part: str,
        number: int,
        others: Sequence[Sequence[Dataset]],
    ) -> None:
        first, now, change = headers[0], datetime.datetime.now(), _describe_change(factors, spacing)
        name, version = bundle["name"], bundle.get("version", "unknown")
        super().__init__(
            study_instance_uid=first.StudyInstanceUID,
            series_instance_uid=generate_uid(prefix=None),
            series_number=_get_valid_number(first, "SeriesNumber") + (1 + number) * _SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            sop_class_uid=MRImageStorage,
            instance_number=1,
            modality="MR",
            # The scanner is named as contributing equipment.
            manufacturer=_MANUFACTURER,
            manufacturer_model_name=_describe_kind(factors),
            software_versions=f"{name} {version}"[:64],
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_date=now.date(),
            series_time=now.time(),
            content_date=now.date(),
            content_time=now.time(),
        )
        named = first.get("SpecificCharacterSet")
        if named:
            # If the character set is unknown, pydicom decodes text as well as it can; write that as UTF-8.
            known = all(name in python_encoding for name in np.atleast_1d(named))
            self.SpecificCharacterSet = named if known else "ISO_IR 192"
        self.copy_patient_and_study_information(first)
        if self.PatientSex not in ("M", "F", "O"):
            self.PatientSex = ""  # unknown; other values are not valid
        self.FrameOfReferenceUID = first.get("FrameOfReferenceUID") or generate_uid(prefix=None)
        for keyword in ("PositionReferenceIndicator", *_KEPT):
            value = _get_common_value(headers, keyword)
            if value not in (None, ""):
                setattr(self, keyword, value)
        for keyword, default in _DEFAULTS.items():
            if keyword not in self:
                setattr(self, keyword, default)
        self._set_conditional("InversionTime", "IR" in np.atleast_1d(self.ScanningSequence))
        self._set_conditional("TriggerTime", bool({"CG", "PPG"} & set(np.atleast_1d(self.ScanOptions))))
        self._set_conditional("Laterality", self.get("BodyPartExamined") not in _UNPAIRED)
        if self.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in self:
            self.DeidentificationMethod = self.get("DeidentificationMethod") or "not stated in the source series"

        description = str(first.get("SeriesDescription", "")).strip()
        was = f"{first.get('SeriesNumber', '')} '{description}'{', ' if part else ''}{part}"
        self.SeriesDescription = _describe_result(f"SR {change.split(maxsplit=1)[1]}", description, part)
        self.ContentQualification = "RESEARCH"
        self.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        further = ", ".join(f"{each[0].get('SeriesNumber', '')} ({each[0].SeriesInstanceUID})" for each in others)
        self.DerivationDescription = (
            f"Super-resolution {change} (columns x rows x slices) of the series {was} ({first.SeriesInstanceUID}) "
            f"with the MONAI bundle {name}, version {version}, SHA-256 of its weights {bundle['sha256']}."
            f"{' Also made of the series ' * bool(others)}{further}"
        )[:1024]
        self.DerivationCodeSequence = [CodedConcept.from_code(codes.DCM.SpatialResampling)]
        self.ImageComments = str(bundle.get("intended_use", ""))[:1024]
        self.SamplesPerPixel, self.PhotometricInterpretation = 1, "MONOCHROME2"
        self._mark_lossy(headers)

        purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        every = [header for each in (headers, *others) for header in each]
        self.SourceImageSequence = _make_references(every)
        for item in self.SourceImageSequence:
            item.PurposeOfReferenceCodeSequence = [purpose]
        series: dict[str, Dataset] = {}
        for header in {header.SOPInstanceUID: header for header in every}.values():
            item = series.setdefault(header.SeriesInstanceUID, Dataset())
            item.SeriesInstanceUID = header.SeriesInstanceUID
            item.ReferencedInstanceSequence = [*item.get("ReferencedInstanceSequence", []), _make_reference(header)]
        self.ReferencedSeriesSequence = [*series.values()]
        self.ContributingEquipmentSequence = [
            *first.get("ContributingEquipmentSequence", []),
            *(
                [_make_equipment_item(headers, codes.DCM.AcquisitionEquipment)]
                if _get_common_value(headers, "Manufacturer")
                else []
            ),
            _make_equipment_item([self], codes.DCM.ProcessingEquipment),
        ]

    def _set_conditional(self, keyword: str, is_required: bool) -> None:
        """Keep an attribute, or add it empty, if the standard requires it; else remove it."""
        if not is_required:
            self.pop(keyword, None)
        elif keyword not in self:
            setattr(self, keyword, None)

    def _mark_lossy(self, headers: Sequence[Dataset]) -> None:
        """Mark the image as lossy if a source image was ever compressed with loss."""
        flags = {header.get("LossyImageCompression") for header in headers}
        # The file's own compression counts only if the flag is missing.
        methods: set[Any] = {
            _LOSSY.get(h.file_meta.TransferSyntaxUID) for h in headers if not h.get("LossyImageCompression")
        }
        methods.discard(None)
        if "01" in flags or methods:
            self.LossyImageCompression = "01"
            for keyword, value in (("Ratio", None), ("Method", sorted(methods))):
                value = _get_common_value(headers, f"LossyImageCompression{keyword}") or value
                if value:
                    setattr(self, f"LossyImageCompression{keyword}", value)
        elif flags == {"00"}:
            self.LossyImageCompression = "00"


def _describe_change(factors: Sequence[float], spacing: Sequence[float]) -> str:
    """The factors of a finer series; for one that is not finer (interpolated by the scanner), its voxel sizes in mm."""
    finer = min(factors) >= 1 < max(factors)
    numbers = "x".join(f"{number:.3g}" for number in (factors if finer else spacing))
    return f"by {numbers}" if finer else f"to {numbers} mm"


def _fit_locations(headers: Sequence[Dataset], normal: np.ndarray) -> tuple[np.ndarray, float]:
    """Direction and offset of slice locations: the source's where they are millimetres along its normal, else 0."""
    first, last = (np.array(get_numbers(header, "ImagePositionPatient", 3)) for header in (headers[0], headers[-1]))
    known: Any = [get_number(header, "SliceLocation") for header in (headers[0], headers[-1])]
    length = (last - first) @ normal
    if None in known or abs(abs(known[1] - known[0]) - abs(length)) > 0.01 * abs(length) or not length:
        return normal, 0.0
    direction = normal * np.sign((known[1] - known[0]) / length)
    return direction, known[0] - float(first @ direction)


def _describe_kind(factors: Sequence[float]) -> str:
    """What is finer than in the source, for the header that a viewer shows."""
    finer = [factor > 1 for factor in factors]
    where = {(False, True): "thin slices", (True, False): "in plane"}.get((any(finer[:2]), finer[2]))
    return "super-resolution" + (f", {where}" if where else "")


def _describe_result(change: str, source: str, part: str) -> str:
    """The change, the source's description and its part, cut to the longest valid length, and that it is research."""
    room = _LENGTH - len(change) - len(_RESEARCH) - 2
    part = f" {part}" if part and len(part) < room // 2 else ""
    named = f"{source[: room - len(part)].rstrip()}{part}".strip()
    return " ".join(text for text in (change, named, _RESEARCH) if text)


def get_slice_thickness(headers: Sequence[Dataset]) -> float | None:
    """Nominal slice thickness of a series in mm, if it is equal in all headers and possible; else None."""
    thickness = _get_common_value(headers, "SliceThickness")
    return float(thickness) if thickness is not None and 0 < float(thickness) < 1e3 else None


def _get_common_value(headers: Sequence[Dataset], keyword: str) -> Any:
    """An attribute's value if it is equal in all slices and valid in the standard; else None."""
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


def choose_rescale(headers: Sequence[Dataset]) -> tuple[float, float]:
    """The rescale of the slices; if they differ, the one with the finest steps."""
    return min((get_rescale(header) for header in headers), key=lambda pair: abs(pair[0]))


def choose_pixel_encoding(voxels: np.ndarray, slope: float, intercept: float) -> tuple[np.dtype, float, float]:
    """Type of 16-bit integers and their rescale: the source's if the range allows it, else from the volume's range."""
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("the result has voxels that are not finite, which DICOM cannot store; are the weights sound?")
    ends = np.rint((np.array([low, high]) - intercept) / slope)
    for dtype in (np.uint16, np.int16):
        info = np.iinfo(dtype)
        if ends.min() >= info.min and ends.max() <= info.max:
            return np.dtype(dtype), slope, intercept
    return np.dtype(np.uint16), (high - low) / np.iinfo(np.uint16).max or 1.0, low


def _choose_window(headers: Sequence[Dataset], voxels: np.ndarray) -> tuple[float, float]:
    """One window for all slices: the median of the source's if it fits the signal, else the signal's range."""
    # The least and the greatest value of a slice may be fill values. A rescale may make them differ between slices.
    low, high = (extreme(voxels, axis=(1, 2), keepdims=True) for extreme in (np.min, np.max))
    signal = voxels[(voxels > low) & (voxels < high)]
    signal = (signal if signal.size else voxels).astype(np.float64)
    span = float(np.ptp(signal))
    pairs = []
    for header in headers:
        try:
            center, width = (np.atleast_1d(header[k].value)[0] for k in ("WindowCenter", "WindowWidth"))
            pairs.append((float(center), float(width)))
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    if pairs and np.isfinite(pairs).all():
        center, width = np.median(pairs, axis=0)
        if signal.min() <= center <= signal.max() and _WIDTHS[0] * span <= width <= _WIDTHS[1] * span:
            return float(center), float(width)
    first, last = np.quantile(signal, [0.005, 0.995])
    return float(first + last) / 2, float(last - first) or span or 1.0


def _format_decimals(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Numbers as decimal strings of at most 16 characters, with as many digits as fit."""
    return [format_number_as_ds(float(number)) for number in numbers]


def _get_valid_number(header: Dataset, keyword: str) -> int:
    """A number of a series or image; 0 if it is not valid in the standard."""
    try:
        number = int(str(header.get(keyword)))
    except ValueError:
        return 0
    return number if 0 <= number <= 10**9 else 0


def _make_equipment_item(headers: Sequence[Dataset], purpose: Code) -> Any:
    """An item that describes the equipment of images and its purpose."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    for keyword in (
        "Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber",
        "SoftwareVersions",
    ):  # fmt: skip
        value = _get_common_value(headers, keyword)
        if value:
            setattr(item, keyword, value)
    return item


def _format_positions(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Lengths and directions as decimal strings, to a millionth of a micrometre, without the noise of arithmetic."""
    return _format_decimals(np.round(numbers, 9) + 0.0)


def _make_references(headers: Sequence[Dataset]) -> list[Dataset]:
    """An item for each instance, with the numbers of the frames that were used of an enhanced image."""
    items = {header.SOPInstanceUID: _make_reference(header) for header in headers}
    for header in headers:
        if hasattr(header, "frame"):
            item = items[header.SOPInstanceUID]
            item.ReferencedFrameNumber = [*get_values(item, "ReferencedFrameNumber"), header.frame + 1]
    return list(items.values())


def _make_reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item
