"""Frames of enhanced multi-frame MR images as headers of single slices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from .kinds import ENHANCED
from .tags import get_values, get_words

_SHARED, _EACH = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Attributes of frames, and those of classic images with the same meaning.
_CLASSIC = {
    "FrameType": "ImageType", "EffectiveEchoTime": "EchoTime", "InversionTimes": "InversionTime",
    "TemporalPositionIndex": "TemporalPositionIdentifier", "NominalCardiacTriggerDelayTime": "TriggerTime",
    "FrameAcquisitionNumber": "AcquisitionNumber", "PulseSequenceName": "SequenceName",
    "ResonantNucleus": "ImagedNucleus", "TransmitterFrequency": "ImagingFrequency",
    "InStackPositionNumber": "InstanceNumber",
}  # fmt: skip
# Attributes of sequences, their values, and the word for ScanningSequence.
_SEQUENCES = (
    ("EchoPulseSequence", "SPIN", "SE"), ("EchoPulseSequence", "BOTH", "SE"), ("EchoPulseSequence", "GRADIENT", "GR"),
    ("EchoPulseSequence", "BOTH", "GR"), ("InversionRecovery", "YES", "IR"), ("EchoPlanarPulseSequence", "YES", "EP"),
)  # fmt: skip
_SLICE = {tag_for_keyword(keyword) for keyword in ("InStackPositionNumber", "ImagePositionPatient")}


def split_frames(header: Dataset) -> list[Dataset]:
    """Split the header of an enhanced MR image into headers of its frames, with the attributes of classic MR images.

    Private groups of frames are left out. Of DimensionIndexValues only the dimensions across volumes are kept.

    Args:
        header: header of any DICOM image without its pixels, with its file as ``filename``.

    Returns:
        The header of each frame, with its index from 0 as ``frame``. Only ``header`` for other images, and for
        enhanced ones that do not describe each frame.
    """
    each = get_values(header, _EACH)
    if header.get("SOPClassUID") not in ENHANCED or len(each) != header.get("NumberOfFrames"):
        return [header]
    across = [item.get("DimensionIndexPointer") not in _SLICE for item in header.get("DimensionIndexSequence", [])]
    common = Dataset({e.tag: e for e in header if e.keyword not in (_SHARED, _EACH, "NumberOfFrames")})
    # Frames of one concatenation belong together, and so do those of one file that is no part of any.
    common.SOPInstanceUIDOfConcatenationSource = header.get("ConcatenationUID") or header.SOPInstanceUID
    for item in get_values(header, _SHARED):
        _add_groups(common, item)
    frames = []
    for index, item in enumerate(each):
        frame = Dataset(dict(common.items()))
        _add_groups(frame, item)
        _add_classic_attributes(frame)
        indices = zip(get_values(frame, "DimensionIndexValues"), across, strict=False)
        frame.add_new("DimensionIndexValues", "UL", [index for index, is_kept in indices if is_kept])
        frame.filename, frame.file_meta, frame.frame = header.filename, header.file_meta, index
        frames.append(frame)
    return frames


def _add_groups(frame: Dataset, groups: Dataset) -> None:
    """Add the attributes of functional groups to a frame. Those of several items, and private ones, are left out."""
    for group in _list_readable(groups):
        if group.VR == "SQ" and not group.tag.is_private and len(group.value) == 1:
            frame.update({element.tag: element for element in _list_readable(group.value[0])})


def _list_readable(item: Dataset) -> Iterator:
    """The elements of an item whose values fit their type."""
    for tag in list(item.keys()):
        with contextlib.suppress(Exception):  # of several kinds, whatever the value is
            yield item[tag]


def _add_classic_attributes(frame: Dataset) -> None:
    """Add the attributes by which classic MR images say the same."""
    classic_values = {classic: get_values(frame, keyword) for keyword, classic in _CLASSIC.items()}
    for item in get_values(frame, "DiffusionGradientDirectionSequence"):
        classic_values["DiffusionGradientOrientation"] = get_values(item, "DiffusionGradientOrientation")
    if frame.get("FrameLaterality") in ("R", "L"):
        classic_values["Laterality"] = [frame.FrameLaterality]
    if not get_values(frame, "ScanningSequence"):
        known = ((word, get_words(frame, keyword) == [value]) for keyword, value, word in _SEQUENCES)
        classic_values["ScanningSequence"] = [word for word, is_so in known if is_so]
    for item in get_values(frame, "ContrastBolusAgentSequence"):
        classic_values["ContrastBolusAgent"] = get_values(item, "CodeMeaning")
    counts = [frame.get(f"MRAcquisition{name}") for name in ("FrequencyEncodingSteps", "PhaseEncodingStepsInPlane")]
    if None not in counts:
        classic_values["AcquisitionMatrix"] = [counts[0], 0, 0, counts[1]]
    for keyword, value in classic_values.items():
        if value:
            vr = dictionary_VR(keyword)
            # Times in ms are floats here, with more digits than decimal strings have.
            value = [f"{value:.8g}" if vr == "DS" else value for value in value]
            # An attribute of all frames is replaced and not changed, because the frames share it.
            frame.add_new(keyword, vr, value if len(value) > 1 else value[0])
