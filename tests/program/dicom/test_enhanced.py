"""Enhanced multi-frame MR images against the classic series of the same volumes."""

import copy

import nibabel as nib
import numpy as np
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom import Dataset
from pydicom.uid import EnhancedMRColorImageStorage, RawDataStorage, RLELossless, generate_uid

from common.program.dicom.derived import write_derived_series
from common.program.dicom.search import find_series
from common.program.dicom.series import get_contrast_properties, read_acquisition, write_nifti

from ...clients import dicom
from ...refused import has

BUNDLE = {"name": "a bundle", "version": "1", "authors": "someone", "sha256": "0" * 64}


def voxels(series, folder):
    assert series.problem is None, series.problem
    write_nifti(series, folder / "volume.nii")
    return nib.load(folder / "volume.nii").get_fdata()


def derived(series, folder):
    """Images of a derived series with twice as many slices, from left to right."""
    shape = (series.headers[0].Columns, series.headers[0].Rows, 2 * len(series.headers))
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), series.affine @ np.diag([1, 1, 0.5, 1])), folder / "sr.nii")
    made = dicom.read(write_derived_series(series, folder / "sr.nii", folder / "out", BUNDLE))
    return sorted(made, key=lambda image: image.ImagePositionPatient[0])


@pytest.mark.parametrize("slopes", [(), (0.25, 0.5)])
@pytest.mark.parametrize("form", ["by highdicom", "one file", "in any order", "three files", "compressed"])
def test_an_enhanced_series_is_the_volume_of_the_classic_one(form, slopes, tmp_path):
    """Its derived series is that of the classic one, and names the frames that it was made from."""
    knee = {"BodyPartExamined": "KNEE", "ScanningSequence": "GR"}
    phantom = dicom.Series("sagittal", (8, -5, 12), slopes=slopes, intercept=-20.0 if slopes else 0, attributes=knee)
    images = phantom.images()
    dicom.save(images, tmp_path / "classic")
    if form == "by highdicom":
        files = [LegacyConvertedEnhancedMRImage(images, generate_uid(), 3, generate_uid(), 1)]
    else:
        order = np.random.default_rng(0).permutation(10) if form == "in any order" else range(10)
        files = dicom.enhanced([images[i] for i in order], files=3 if form == "three files" else 1)
        if form == "compressed":
            files[0].compress(RLELossless)
    # Philips puts raw data into the same series.
    raw = copy.deepcopy(images[0])
    for keyword in ("Rows", "Columns", "PixelData", "ImagePositionPatient"):
        delattr(raw, keyword)
    raw.SeriesInstanceUID, raw.SOPInstanceUID = files[0].SeriesInstanceUID, generate_uid()
    raw.SOPClassUID = raw.file_meta.MediaStorageSOPClassUID = RawDataStorage
    dicom.save([*files, raw], tmp_path / "enhanced")
    (classic,), (series, other) = find_series(tmp_path / "classic"), find_series(tmp_path / "enhanced")
    assert len(series.files) == len(files) and series.part == "" and "Raw Data" in other.exclusion
    np.testing.assert_array_equal(voxels(series, tmp_path), phantom.values.astype(np.float32))
    np.testing.assert_array_equal(series.affine, classic.affine)
    np.testing.assert_array_equal(np.asanyarray(series.open().dataobj), phantom.values.astype(np.float32))
    found, expected = (get_contrast_properties(each.headers[0]) for each in (series, classic))
    assert found == expected and any(found)
    made, like = derived(series, tmp_path), derived(classic, tmp_path / "classic")
    for keyword in (
        "PatientName PatientID StudyInstanceUID FrameOfReferenceUID SeriesNumber ImagePositionPatient PixelSpacing "
        "ImageOrientationPatient SliceThickness EchoTime RepetitionTime ScanningSequence MagneticFieldStrength "
        "WindowCenter WindowWidth ImageType SOPClassUID"
    ).split():
        assert [image[keyword].value for image in made] == [image[keyword].value for image in like], keyword
    frames = {file.SOPInstanceUID: file.PerFrameFunctionalGroupsSequence for file in files}
    sources = [
        frames[item.ReferencedSOPInstanceUID][number - 1].PlanePositionSequence[0].ImagePositionPatient
        for item in made[0].SourceImageSequence
        for number in np.atleast_1d(item.ReferencedFrameNumber)
    ]
    assert sorted(map(list, sources)) == sorted(list(image.ImagePositionPatient) for image in images)
    referenced = made[0].ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert frames.keys() == {item.ReferencedSOPInstanceUID for item in referenced}


DIFFUSION = [{"DiffusionBValue": 0.0}] + [
    {"DiffusionBValue": 1000.0, "DiffusionGradientDirectionSequence": [item]}
    for item in ({"DiffusionGradientOrientation": [1.0, 0, 0]}, {"DiffusionGradientOrientation": [0, 1.0, 0]})
]
DIMENSIONS = [
    ([{"EchoTime": "20.5"}, {"EchoTime": "100"}], "echo 1, TE 20.5 ms;echo 2, TE 100 ms"),
    ([{}, {"ImageType": ["ORIGINAL", "PRIMARY", "T1", "P"]}], "magnitude;phase image"),
    ([{}, {"ComplexImageComponent": "PHASE"}], "magnitude;phase image"),
    ([{"TemporalPositionIndex": i} for i in (1, 2, 3)], ";;"),
    (DIFFUSION, "b 0, direction 1;b 1000, direction 2;b 1000, direction 3"),
    ([{"InversionTime": "90.5"}, {"InversionTime": "900"}], "TI 90.5 ms;TI 900 ms"),
    ([{"FlipAngle": "3"}, {"FlipAngle": "20"}], "flip angle 3;flip angle 20"),
    ([{"TriggerTime": "0"}, {"TriggerTime": "410.5"}], ";"),
    ([{"TemporalPositionIndex": i, "EchoTime": str(t)} for t in (9, 20) for i in (1, 2)],
     "echo 1, TE 9 ms;echo 1, TE 9 ms;echo 2, TE 20 ms;echo 2, TE 20 ms"),
    ([{"TemporalPositionIndex": i, "DiffusionBValue": b, "DimensionIndexValues": 2 * i + j}
      for i in (1, 2) for j, b in enumerate((0.0, 700.0))],
     "b 0;b 700;b 0;b 700"),
    ([{"StackID": "1"}, {"StackID": "7"}], "stack 1;stack 7"),
    ([{"DimensionIndexValues": i} for i in (1, 2)], "dimension 1;dimension 2"),
    ([{}, {}], ""),
]  # fmt: skip


@pytest.mark.parametrize(("values", "names"), DIMENSIONS, ids=[names for _, names in DIMENSIONS])
@pytest.mark.parametrize("files", [1, 2, 0])
def test_dimensions_that_are_no_slice_are_split_off(values, names, files, tmp_path):
    """Frames are in any order in one file or in a concatenation; or each volume has its own file (0).

    Time points, which have one name, are the volumes of one scan.
    """
    names, images, phantoms = names.split(";"), [], []
    for seed, each in enumerate(values):
        phantoms.append(dicom.Series(seed=seed, shape=(16, 14, 6)))
        for k, image in enumerate(phantoms[-1].images()):
            image.SeriesInstanceUID = image.StudyInstanceUID = image.FrameOfReferenceUID = "1.2.3"
            for keyword, value in each.items():
                items = isinstance(value, list) and isinstance(value[0], dict)
                setattr(image, keyword, [item(**entry) for entry in value] if items else value)
            image.DimensionIndexValues = [k + 1, each.get("DimensionIndexValues", 1)]
            images.append(image)
    order = np.random.default_rng(1).permutation(len(images))
    groups = [[images[i] for i in order]] if files else [images[i : i + 6] for i in range(0, len(images), 6)]
    made = [file for group in groups for file in dicom.enhanced(group, files or 1)]
    for file in made:
        file.DimensionIndexSequence = [item(DimensionIndexPointer=0x00200032), item(DimensionIndexPointer=0x00189999)]
    dicom.save(made, tmp_path / "in")
    found = find_series(tmp_path / "in")
    if names == [""] and files:
        has(found[0].problem, "0000.dcm, frame")
        return
    names = ["instance 1", "instance 2"] if names == [""] else names
    # Only what differs in echo times and kind of image has a sure order and name in each file.
    by_name = {name: [p.values for p, its in zip(phantoms, names, strict=True) if its == name] for name in names}
    assert len(found) == len(by_name) and len({tuple(h.ImagePositionPatient) for h in found[0].headers}) == 6
    for each in found:
        if each.part == "phase image":
            assert each.exclusion
        elif "direction" in each.part or "dimension" in each.part:  # numbered as they come
            assert any(np.array_equal(voxels(each, tmp_path), phantom.values) for phantom in phantoms)
        else:
            expected = by_name[each.part]
            expected = np.stack(expected, -1) if each.volumes > 1 else expected[0]
            np.testing.assert_array_equal(voxels(each, tmp_path), expected)
    # The result of one volume leaves that of another alone.
    volumes = [each for each in found if each.exclusion is None and each.volumes == 1]
    for count, each in enumerate([*volumes, *volumes] if files == 1 else []):
        derived(each, tmp_path)
        assert len([*(tmp_path / "out").iterdir()]) == min(count + 1, len(volumes))


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_enhanced_images_that_are_no_volume_say_why(tmp_path):
    images = dicom.Series().images()
    files = {name: dicom.enhanced(images)[0] for name in ("bare", "short", "colour", "place")}
    del files["bare"].PerFrameFunctionalGroupsSequence, files["bare"].SharedFunctionalGroupsSequence
    files["short"].PerFrameFunctionalGroupsSequence.pop()
    files["colour"].SOPClassUID = files["colour"].file_meta.MediaStorageSOPClassUID = EnhancedMRColorImageStorage
    files["colour"].SamplesPerPixel = 3
    for groups in files["place"].PerFrameFunctionalGroupsSequence:
        del groups.PlanePositionSequence
    for name, file in files.items():
        file.SeriesInstanceUID = generate_uid()
        dicom.save([file], tmp_path / name)
    dicom.save([files["bare"]], tmp_path / "bare" / "again")
    reasons = {name: find_series(tmp_path / name) for name in files}
    has(reasons["bare"][0].problem, "0000.dcm: 10 frames", "Per-Frame Functional Groups Sequence")
    has(reasons["short"][0].problem, "0000.dcm: 10 frames", "Per-Frame Functional Groups Sequence")
    has(reasons["colour"][0].exclusion, "colour")
    has(reasons["place"][0].problem, "ImagePositionPatient is missing")


def test_frames_say_how_they_were_acquired(tmp_path):
    """What the program takes from classic tags: the acquired matrix, and the side of the body."""
    (file,) = dicom.enhanced(dicom.Series(attributes={"BodyPartExamined": "KNEE"}).images())
    steps = {"MRAcquisitionFrequencyEncodingSteps": 26, "MRAcquisitionPhaseEncodingStepsInPlane": 20}
    (shared,) = file.SharedFunctionalGroupsSequence
    shared.MRFOVGeometrySequence = [item(**steps, InPlanePhaseEncodingDirection="COLUMN")]
    shared.FrameAnatomySequence = [item(FrameLaterality="R")]
    dicom.save([file], tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    said = read_acquisition(series.headers)
    assert (said["FrequencyEncodingSteps"], said["AcquisitionMatrixPE"]) == (26, 20)
    assert derived(series, tmp_path)[0].Laterality == "R"
