import copy
import dataclasses
import gzip
import importlib
import json
import os
import shutil
import sys
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    EnhancedMRImageStorage,
    HTJ2KLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    generate_uid,
)
from scipy.ndimage import zoom

from common.io.formats import EXTENSIONS
from common.program.dicom.derived import write_derived_series
from common.program.dicom.recognition import is_dicom
from common.program.dicom.search import find_series
from common.program.dicom.series import is_derived, write_nifti
from common.program.dicom.volume_or_series import open_volume
from common.runtime.errors import Notice

from ... import malformed
from ...clients import dicom
from ...refused import has, refused

BUNDLE = {"name": "ct_guided", "version": "1.2.3", "sha256": "0" * 64, "intended_use": "Research only."}
KNEE, HAND = {"BodyPartExamined": "KNEE", "Laterality": "R"}, {"BodyPartExamined": "HAND"}
SERIES = {
    "integers, oblique": dicom.Series(angles=(8, -5, 12), spacing=(0.9, 1.1, 4.0), attributes={"Laterality": "L"}),
    "signed, backwards": dicom.Series("sagittal", (3, 4, -6), minimum=-300, backwards=True, attributes=KNEE),
    "slices rescaled": dicom.Series("coronal", slopes=(0.25, 0.5), intercept=-20.0, attributes=HAND),
}
# The standard forbids it for the brain, and requires it, perhaps empty, for parts of the body that exist twice.
LATERALITIES = {"BRAIN": "absent", "KNEE": "R", "HAND": ""}


@pytest.mark.parametrize("phantom", SERIES.values(), ids=SERIES)
def test_a_scan_becomes_nifti_and_its_result_a_derived_series(phantom, tmp_path):
    """Values and places of the scan go to the reader of NIfTI, and those of the result to every reader of DICOM."""
    inputs = phantom.save(tmp_path / "in" / "deep")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (series,) = find_series(tmp_path / "in")
    assert series.problem is None and len(series.files) == 10
    assert inputs[0].SeriesInstanceUID in series.description and "'t2 tse'" in series.description
    write_nifti(series, tmp_path / "scan.nii.gz")
    scan = nib.load(tmp_path / "scan.nii.gz")
    assert scan.get_data_dtype().itemsize == 2 and scan.get_sform(coded=True)[1] == 1
    known = {"SliceEncodingDirection": "k", "SliceThickness": float(inputs[0].SliceThickness)}
    assert json.loads((tmp_path / "scan.json").read_text()) == known
    np.testing.assert_array_equal(scan.get_fdata(), phantom.values.astype(np.float32))
    affine = dicom.LPS_TO_RAS @ phantom.lps
    np.testing.assert_allclose(scan.affine, affine, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(scan.get_qform(), affine, rtol=1e-6, atol=1e-4)
    # As k-space truncation puts the finer grid, and as block averages do.
    kept = ()
    for factors, offset in (((2, 2, 2), 0.0), ((1, 1, 3), -1 / 3), ((1, 1, 1), 0.0)):
        finer = np.diag([*(1 / np.array(factors)), 1.0])
        finer[2, 3] = offset
        values = zoom(scan.get_fdata(dtype=np.float32), factors, order=1)
        nib.save(nib.Nifti1Image(values, scan.affine @ finer), tmp_path / "scan_sr.nii.gz")
        folder = write_derived_series(series, tmp_path / "scan_sr.nii.gz", tmp_path / "out", BUNDLE)
        (found, place), images = dicom.read_by_itk(folder), dicom.read(folder)
        step = float(images[0].get("RescaleSlope", 1))
        np.testing.assert_allclose(found, values, atol=0.501 * step)
        # NIfTI keeps 24 bits of an affine, and the result lies where the series says nonetheless.
        np.testing.assert_allclose(place, affine @ finer, atol=1e-8)
        assert step == (0.25 if phantom.slopes else 1)
        # No reader takes it for the scan itself.
        assert images[0].ImageType == ["DERIVED", "SECONDARY", "OTHER"]
        assert images[0].SeriesNumber == inputs[0].SeriesNumber + 1000
        assert images[0].get("Laterality", "absent") == LATERALITIES[images[0].BodyPartExamined]
        assert folder == tmp_path / "out" / images[0].SeriesInstanceUID and len(images) == values.shape[2]
        assert images[0].ReferencedSeriesSequence[0].SeriesInstanceUID == inputs[0].SeriesInstanceUID
        assert images[0].StudyInstanceUID == inputs[0].StudyInstanceUID
        assert "bundle ct_guided, version 1.2.3, SHA-256" in images[0].DerivationDescription and is_derived(images[0])
        # People read what it is, what it is of, and what it is for, never the name of a method.
        change, unit = (factors, "") if max(factors) > 1 else (phantom.spacing, " mm")
        change = "x".join(f"{number:.3g}" for number in change)
        assert images[0].SeriesDescription == f"SR {change}{unit} t2 tse [research only]"
        kind = {(1, 1, 3): "super-resolution, thin slices"}.get(factors, "super-resolution")
        assert images[0].ManufacturerModelName == kind and images[0].SoftwareVersions == "ct_guided 1.2.3"
        assert images[0].ContentQualification == "RESEARCH" and images[0].ImageComments == "Research only."
        step_between = np.linalg.norm((affine @ finer)[:3, 2])
        locations = sorted(float(image.SliceLocation) for image in images)
        np.testing.assert_allclose(np.diff(locations), step_between, atol=1e-6)
        # It replaces what was made of the same series before, and nothing else.
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([folder.name, *kept])
        kept = "copies", "notes", inputs[0].SeriesInstanceUID
        if factors[0] == 2:
            shutil.copytree(folder, tmp_path / "out" / "copies")
            shutil.copytree(tmp_path / "in" / "deep", tmp_path / "out" / kept[2])
            (tmp_path / "out" / "notes").mkdir()


@pytest.mark.parametrize("sign", [1, -1])
def test_slices_are_located_as_in_the_source(sign, tmp_path):
    """Whichever way its vendor counts, a reader finds a lesion at the same location in both."""
    phantom = dicom.Series("sagittal", angles=(3, 4, -6))
    normal = phantom.lps[:3, 2] / 4

    def locate(image):
        return sign * np.dot(image.ImagePositionPatient, normal) + 7

    for image in (images := phantom.images()):
        image.SliceLocation = f"{locate(image):.6f}"
    dicom.save(images, tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    finer = np.diag([1, 1, 0.5, 1])
    nib.save(nib.Nifti1Image(np.ones((32, 28, 20), np.int16), series.affine @ finer), tmp_path / "sr.nii")
    for image in dicom.read(write_derived_series(series, tmp_path / "sr.nii", tmp_path / "out", BUNDLE)):
        assert float(image.SliceLocation) == pytest.approx(locate(image), abs=1e-4)


def test_several_series(tmp_path):
    """Each is found, in its folder or beside others; what is no volume of MR slices comes with the reason."""
    dicom.Series().save(tmp_path / "a")
    dicom.Series(seed=1, shape=(20, 24, 6)).save(tmp_path / "b" / "first")
    mixed = [
        *dicom.Series(shape=(16, 16, 5)).images(),
        *dicom.Series(attributes={"SOPClassUID": CTImageStorage, "Modality": "CT"}).images(),
        *dicom.Series(shape=(16, 16, 9)).images()[::4],
        *[image for k, image in enumerate(dicom.Series().images()) if k != 4],
    ]
    dicom.save(mixed, tmp_path / "c")
    found = find_series(tmp_path)
    assert [len(series.files) for series in found] == [10, 6, 5, 10, 3, 9]
    reasons = ("None", "None", "None", "CT Image", "None", "lacks 1 slices")
    for series, reason in zip(found, reasons, strict=True):
        assert reason in str(series.problem or series.exclusion)


def test_the_only_scan_of_a_folder_or_of_one_of_its_files_is_read_as_any_volume(tmp_path):
    phantom = dicom.Series(angles=(8, -5, 12), slopes=(0.25, 0.5), intercept=-20.0)
    phantom.save(tmp_path / "alone")
    phantom.save(tmp_path / "a")
    phase = dicom.Series(attributes={"ImageType": ["ORIGINAL", "PRIMARY", "P"]})
    phase.save(tmp_path / "a" / "b")
    for path in (tmp_path / "alone", tmp_path / "a" / "0003.dcm"):
        volume = open_volume(path, "it")
        np.testing.assert_allclose(np.asarray(volume.dataobj), phantom.values, atol=1e-3)
        np.testing.assert_allclose(volume.affine, dicom.LPS_TO_RAS @ phantom.lps, rtol=1e-6, atol=1e-5)
    refused(lambda: open_volume(tmp_path / "a" / "b", "it"), ValueError, "it: ")
    dicom.Series(attributes={"SeriesDescription": "other"}).save(tmp_path / "c")
    refused(lambda: open_volume(tmp_path, "it"), ValueError, "DICOM series", "'t2 tse'", "'other'")
    (tmp_path / "c" / "0004.dcm").unlink()
    refused(lambda: open_volume(tmp_path / "c", "it"), ValueError, "it: ", "lacks 1 slices")


def again(images, **values):
    """More images at the same places."""
    others = copy.deepcopy(images)
    for image in others:
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        for keyword, value in values.items():
            setattr(image, keyword, value)
    return [*images, *others]


@pytest.mark.parametrize("form", "explicit;implicit;with group 2;a copy;resent;rounded;rounded, oblique".split(";"))
def test_other_forms_of_a_series_are_the_same_volume(form, tmp_path, capsys):
    phantom = dicom.Series(spacing=(1.0, 1.0, 3.03), angles=(8, -25, 12) if "oblique" in form else (0, 0, 0))
    dicom.save(images := phantom.images(), tmp_path)
    raw = {"implicit_vr": form == "implicit", "little_endian": True} if "plicit" in form else {}
    for image, path in zip(images, sorted(tmp_path.iterdir()), strict=True):
        if "rounded" in form:
            image.ImagePositionPatient = [round(float(x), 1) for x in image.ImagePositionPatient]
        if raw:
            image.file_meta.clear()
        # Without enforcing it, neither preamble nor 'DICM' are written.
        image.save_as(path, enforce_file_format=form[0] in "ar", **raw)
    if form == "a copy":
        shutil.copy(tmp_path / "0003.dcm", tmp_path / "0003 (1).dcm")
    elif form == "resent":
        again(images, InstanceNumber=99, ContentTime="120000")[13].save_as(tmp_path / "0003 (1).dcm")
    (series,) = find_series(tmp_path)
    assert series.problem is None and ("0003 (1).dcm" in capsys.readouterr().out) == (form in ("a copy", "resent"))
    write_nifti(series, tmp_path / "scan.nii")
    np.testing.assert_array_equal((scan := nib.load(tmp_path / "scan.nii")).get_fdata(), phantom.values)
    np.testing.assert_allclose(scan.affine, dicom.LPS_TO_RAS @ phantom.lps, atol=0.1 if "rounded" in form else 1e-4)
    series.files[4].unlink()
    has(find_series(tmp_path)[0].problem, "lacks 1 slices")
    images[5].SOPInstanceUID = images[6].SOPInstanceUID
    images[5].save_as(series.files[5], **raw)
    has(find_series(tmp_path)[0].problem, series.files[5], series.files[6])


def test_what_is_no_dicom(tmp_path):
    nifti = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    numbers, random = np.arange(8, 2000, dtype=np.uint16).tobytes(), np.random.default_rng(0).bytes(4000)
    noise, begun = (np.int16([*v, *range(99)]).tobytes() for v in ((2, 0, 10, 0), (8, 0, 0, 0, 8, 1, 0, 0, 8, 2, 0, 0)))
    for data in (b"", b"text\n" * 99, nifti, gzip.compress(nifti), b"PK\3\4" * 99, bytes(2000), numbers, random, noise):
        (tmp_path / "x").write_bytes(data)
        assert not is_dicom(tmp_path / "x") and find_series(tmp_path) == []
    # Voxels can be what a data set may begin with.
    for end in ("", *EXTENSIONS, ".BRIK", ".raw"):
        (tmp_path / f"x{end}").write_bytes(begun)
        assert is_dicom(tmp_path / f"x{end}") == (end == "")
    (tmp_path / "x.img").write_bytes(bytes(128) + b"DICM")
    assert is_dicom(tmp_path / "x.img")


PARTS = [
    ({"EchoTime": "20"}, ["echo 1, TE 20 ms", "echo 2, TE 100 ms"], True),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, ["magnitude", "phase image"], True),
    ({"FlipAngle": "20", "AcquisitionNumber": 2}, ["flip angle unknown", "flip angle 20"], False),
    ({}, [""], False),
]


@pytest.mark.parametrize(("values", "names", "always"), PARTS)
def test_the_stacks_of_one_series_are_told_apart_by_their_tags(values, names, always, tmp_path):
    """At the same places, and kinds and echoes also where one stack lies between the slices of the other."""
    images = again(dicom.Series().images(), **values)
    for image in images[10:]:
        image.PixelData = image.PixelData[::-1]
    dicom.save(images, tmp_path)
    found = find_series(tmp_path)
    assert [each.part for each in found] == names
    assert [each.affine is None for each in found] == [name in ("phase image", "") for name in names]
    if not values:
        has(found[0].problem, "several images at one place")
        (tmp_path / "own").mkdir()
        for path in found[0].files[10:]:
            path.rename(tmp_path / "own" / path.name)
        assert [each.part for each in find_series(tmp_path)] == [f"folder {tmp_path.name}", "folder own"]
        assert find_series(tmp_path / "own")[0].problem is None
    # The result of one stack replaces older ones of that stack alone.
    volumes = [each for each in found if each.affine is not None]
    for later, each in enumerate([*volumes, *volumes]):
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), each.affine), tmp_path / "sr.nii")
        made = write_derived_series(each, tmp_path / "sr.nii", tmp_path / "sr", BUNDLE)
        assert len([*(tmp_path / "sr").iterdir()]) == min(later + 1, len(volumes))
    if volumes:
        made_of = dicom.read(tmp_path / "sr")
        assert len({each.SeriesNumber for each in made_of}) == len({each.SeriesInstanceUID for each in made_of})
        os.utime(made, (2e9, 2e9))  # as of a run that ends later
        write_derived_series(each, tmp_path / "sr.nii", tmp_path / "sr", BUNDLE)
        assert made.is_dir()
    for image in images[10:]:
        image.ImagePositionPatient[2] += 2
    dicom.save(images, tmp_path / "between")
    assert [each.part for each in find_series(tmp_path / "between")] == (names if always else [""])


PRIVATE = {"Philips": (0x2001, "Philips Imaging DD 001", 0x18, "SL"), "GE": (0x21, "GEMS_RELA_01", 0x4F, "SS")}
VOLUMES = ("EchoTime", "DiffusionBValue", "FlipAngle", "TemporalPositionIdentifier", "TemporalPositionIndex")
CLASSIC = (*PRIVATE, *VOLUMES[:4], "ImagesInAcquisition", "NumberOfSeriesRelatedInstances", "InstanceNumber")
ENHANCED = (*PRIVATE, *VOLUMES[:3], VOLUMES[4], "ImagesInAcquisition", "InStackPositionNumber", "files", "frames")


@pytest.mark.parametrize(("form", "way"), [*(("classic", w) for w in CLASSIC), *(("enhanced", w) for w in ENHANCED)])
def test_missing_slices_are_said_however_headers_count_them(form, way, tmp_path):
    """A complete volume is read without a word, also next to an incomplete one."""
    rng, is_number = np.random.default_rng(len(form + way)), way in ("InstanceNumber", "InStackPositionNumber")
    for gap in ["none", "first", "middle", "last"][: 2 if is_number else 3 if way == "frames" else 4]:
        count, lost = rng.integers((8, 1), (15, 4)).tolist()
        own = {} if way in (*PRIVATE, "files", "frames") else {way: 1 if way in VOLUMES else count}
        phantom = dicom.Series(shape=(16, 14, count), attributes={"InstanceNumber": 1} | own)
        images = again(phantom.images(), **{way: 20}) if way in VOLUMES else phantom.images()
        for k, image in enumerate(images):
            if is_number:
                setattr(image, way, k + 1)
            if way in PRIVATE:
                image.private_block(*PRIVATE[way][:2], create=True).add_new(*PRIVATE[way][2:], count)
        if way in ("files", "frames"):
            absent = {"first": 0, "middle": 2, "last": 4}.get(gap)
            files = [file for i, file in enumerate(dicom.enhanced(images, 5)) if i != absent]
            for file in files if way == "frames" else ():
                del file.InConcatenationNumber, file.InConcatenationTotalNumber
        else:
            start = len(images) - count + {"none": count, "first": 0, "middle": 3, "last": count - lost}[gap]
            images[start : start + lost] = []
            files = dicom.enhanced(images) if form == "enhanced" else images
        dicom.save(files, tmp_path / gap)
        for each in find_series(tmp_path / gap):
            said = [each.problem] if each.problem else [w for w in each.warnings if not isinstance(w, Notice)]
            assert bool(said) == (len(each.headers) < count * each.volumes), gap
            expected = np.stack([phantom.values] * each.volumes, -1) if each.volumes > 1 else phantom.values
            assert said or np.array_equal(np.asanyarray(each.open().dataobj), expected), gap
            if each.volumes > 1 and not each.problem:
                place = f"--hr {tmp_path / gap}"
                refused(lambda: open_volume(tmp_path / gap, place), ValueError, place, "4", "dcm2niix", "nib-roi")  # noqa: B023


def typed(*words):
    return {"ImageType": ["ORIGINAL", "PRIMARY", *words]}


def described(text, protocol="", **values):
    return {"SeriesDescription": text, "ProtocolName": protocol, **values}


DERIVED = {"ImageType": ["DERIVED", "SECONDARY"]}
GE, XA = (0x43, "GEMS_PARM_01", 0x2F, "SS"), (0x21, "SIEMENS MR SDI 02", 0x75, "CS")
PHILIPS = (0x2005, "Philips MR Imaging DD 001", 0x11, "CS")
UIH, PLANE = (0x65, "Image Private Header", 0x50, "DS"), (0x19, "GEMS_ACQU_01", 0x17, "SS")
KINDS = {
    "a phase image": [
        *map(typed, ("P", "PHASE MAP", "VELOCITY MAP", "SW_P_FFE", "SW_P", "P_TFE", "PHASE_IMAGE", "RAW PHASE", "PHA")),
        *({"ComplexImageComponent": "PHASE"}, {GE: 1}, {XA: ["ORIGINAL", "PRIMARY", "P", "ND"]}, {PHILIPS: "P"}),
        *(typed("OTHER") | described(name) for name in ("FILT_PHA: Ax SWAN", "SWI_Phase", "gre_field_mapping phase 2")),
    ],
    "a real part": [typed("R_FFE", "R", "FFE"), typed("SW_R_FFE"), typed("REAL_IMAGE"), typed("CR_IR"), {GE: 2}],
    "an imaginary part": [typed("I_FFE", "I", "FFE"), typed("T1", "NONE", "IMAGINARY"), {GE: 3}, {PHILIPS: "I"}],
    "a map": [
        *({"ImageType": ["DERIVED", "PRIMARY", word]} for word in ("ADC", "FA", "T2_STAR MAP", "RELCBF")),
        *(
            DERIVED | described(name)
            for name in ("ep2d_ADC", "ADC: Ax", "FatFrac: Ax IDEAL", "R2*: Ax", "dyn SUB", "T1 Map")
        ),
    ],
    "a localizer": [
        *(typed("LOCALIZER"), {PLANE: 256}, described("t2 tse", "localizer"), described("", "3-plane loc")),
        *map(described, "topogram;Localiser;Repérage;AAHead_Scout;AAHScout_32ch;Survey;SAG LOC;plan scan".split(";")),
        described("3Plane_Loc_SSFSE"),
    ],
    "a colour image": [{"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}],
    "a projection": [
        {"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]},
        DERIVED | described("MIP tra 3D"),
    ],
    "Modality is PT": [{"Modality": "PT"}],
    "a mosaic": [typed("M", "MOSAIC"), typed("M", "VFRAME"), {UIH: 27}],
    "None": [
        *map(typed, ("OUT_PHASE", "IN PHASE", "SW_M_FFE", "M_TFE", "MAGNITUDE", "PSIR")),
        *(
            {"ImageType": None, "Modality": None},
            {GE: 0},
            {PHILIPS: "M"},
            {XA: ["ORIGINAL", "PRIMARY", "M"]},
            {PLANE: 2},
        ),
        *(typed("OTHER") | described(name) for name in ("portal phase", "GRE in phase", "GRE T1 opp phase")),
        *({"ComplexImageComponent": "MIXED"}, described("t2 Pha_Images"), described("allocated local")),
        *(described("T1", "brain survey"), described("task-localizer", ScanningSequence="EP")),
        *(DERIVED | described(name) for name in ("sub 1 t1 FA 15", "t1 water", "t1 mpr")),
    ],
}


@pytest.mark.parametrize(("kind", "values"), [(kind, values) for kind, many in KINDS.items() for values in many])
def test_what_an_image_is_its_tags_say(kind, values, tmp_path):
    images = dicom.Series(attributes={k: value for k, value in values.items() if isinstance(k, str)}).images()
    for image in images:
        for (group, creator, element, vr), value in ((k, value) for k, value in values.items() if isinstance(k, tuple)):
            image.private_block(group, "OTHER", create=True)
            image.private_block(group, creator, create=True).add_new(element, vr, value)
    dicom.save(images, tmp_path)
    (series,) = find_series(tmp_path)
    # A mosaic is a scan, which somebody must convert.
    assert kind in str(series.problem if kind == "a mosaic" else series.exclusion)
    assert (series.affine is None) == (kind != "None")


def under_one_uid(*series):
    uids = dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"), "1.2.3")
    return [image for each in series for image in dataclasses.replace(each, attributes=each.attributes | uids).images()]


@pytest.mark.parametrize(
    ("planes", "angles", "slices", "kind"),
    [
        (("axial", "sagittal", "coronal"), (0,), 3, "exclusion"),
        (("axial", "sagittal", "coronal"), (0,), 25, "problem"),  # stacks of scans
        (("axial",), (0, 15, -15), 4, "problem"),  # along the discs of a spine
        (("axial",), tuple(range(0, 180, 20)), 2, "problem"),  # radial
        (("axial", "sagittal"), (0,), (9, 1), "problem"),  # a stray slice
        (("axial",), (0,), 25, "affine"),
    ],
)
def test_few_slices_across_each_other_are_a_localizer(planes, angles, slices, kind, tmp_path):
    """A stack of many slices is a scan, though its name is that of a localizer's."""
    name = described("Survey", "Survey")
    dicom.save(
        under_one_uid(
            *(
                dicom.Series(plane, (angle, 0, 0), shape=(16, 16, number), attributes=name if kind == "affine" else {})
                for plane, number in zip(planes, np.broadcast_to(slices, len(planes)).tolist(), strict=True)
                for angle in angles
            )
        ),
        tmp_path,
    )
    (series,) = find_series(tmp_path)
    assert [name for name in ("affine", "exclusion", "problem") if getattr(series, name) is not None] == [kind]
    assert kind != "exclusion" or "a localizer (3 planes of at most 3 slices)" in series.exclusion
    assert kind != "problem" or "ImageOrientationPatient" in series.problem


@pytest.mark.parametrize("shift", [0, 2, 1.3])
def test_two_series_with_one_uid_are_told_apart_by_number_and_description(shift, tmp_path):
    """Also if the slices of one lie between those of the other."""
    first, second = dicom.Series(), dicom.Series(seed=1, attributes={"SeriesNumber": 4, "SeriesDescription": "post"})
    images = under_one_uid(first, second)
    for image in images[10:]:
        image.ImagePositionPatient[2] += shift
    dicom.save(images[::2] + images[1::2], tmp_path)
    found = find_series(tmp_path)
    assert [(each.headers[0].SeriesDescription, each.problem) for each in found] == [("t2 tse", None), ("post", None)]
    for each, phantom, up in zip(found, (first, second), (0, shift), strict=True):
        write_nifti(each, tmp_path / "scan.nii")
        scan = nib.load(tmp_path / "scan.nii")
        np.testing.assert_array_equal(scan.get_fdata(), phantom.values)
        np.testing.assert_allclose(scan.affine[:3, 3], [20.25, -11.5, 37.125 + up], atol=1e-5)
    refused(lambda: open_volume(tmp_path, "it"), ValueError, "it holds 2 DICOM series", "number 4, 'post'")
    for image in images:
        image.SeriesNumber, image.SeriesDescription = 3, "t2 tse"
    dicom.save(images, tmp_path / "alike")
    (mixed,) = find_series(tmp_path / "alike")
    has(mixed.problem, {0: "several images at one place", 2: "InstanceNumber"}.get(shift, "stack"))


TIMED = {
    "halves": [{}],
    "echoes": [{"EchoTime": "20"}, {"EchoTime": "100"}],
    "magnitude and phase": [{}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}],
    "flip angles": [{"FlipAngle": angle} for angle in (5, 10, 20)],
}


@pytest.mark.parametrize("values", TIMED.values(), ids=TIMED)
@pytest.mark.parametrize("step", [2, 3, 7, 20])  # images until the next description
def test_a_description_splits_no_stack_that_is_whole(values, step, tmp_path):
    phantoms = [dicom.Series(seed=seed, attributes=each) for seed, each in enumerate(values)]
    images = under_one_uid(*phantoms)
    for number, image in enumerate(images):
        image.SeriesDescription = "T1:Jan GMT" + f" 10 2020 09-05-{number // step}" * (number >= step)
    dicom.save(images, tmp_path)
    found = find_series(tmp_path)
    for each, phantom in zip(found, phantoms, strict=True):
        if each.exclusion:
            continue
        write_nifti(each, tmp_path / "scan.nii")
        np.testing.assert_array_equal(nib.load(tmp_path / "scan.nii").get_fdata(), phantom.values)
        assert each.stem.startswith("3_T1_Jan") and each.headers[0].SeriesDescription in each.description
        assert not each.warnings
    each.files[4].unlink()
    assert len(find_series(tmp_path)) == len(phantoms)


def test_one_volume_of_two_contrasts_has_a_notice(tmp_path):
    for image in (images := dicom.Series().images())[5:]:
        image.SeriesDescription, image.ContrastBolusAgent = "T1 GD", "Gadovist"
    dicom.save(images, tmp_path)
    (series,) = find_series(tmp_path)
    (notice,) = series.warnings
    assert isinstance(notice, Notice)
    has(str(notice), "t2 tse and T1 GD", "ContrastBolusAgent is none and Gadovist")


@pytest.mark.parametrize(
    "way", ["TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "AcquisitionTime", "InstanceNumber"]
)
def test_time_points_are_one_4d_scan(way, tmp_path):
    """In the order of time, whatever the files' names; a tag that says another contrast keeps them apart."""
    phantoms = [dicom.Series(seed=k, minimum=k, attributes={"RepetitionTime": "2500"}) for k in range(4)]
    images = under_one_uid(*phantoms)
    for i, image in enumerate(images):
        times = {"AcquisitionTime": f"1000{i // 10 * 3:02d}.5", "InstanceNumber": i + 1, "TriggerTime": i // 10 * 500}
        setattr(image, way, times.get(way, i // 10 + 9))
    rng = np.random.default_rng(0)
    dicom.save([images[i] for i in rng.permutation(40)], tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    assert (series.problem, series.part, series.shape) == (None, "", (*phantoms[0].values.shape, 4))
    write_nifti(series, tmp_path / "scan.nii")
    scan = nib.load(tmp_path / "scan.nii")
    np.testing.assert_array_equal(scan.get_fdata(), np.stack([phantom.values for phantom in phantoms], -1))
    assert scan.header["pixdim"][4] == {"AcquisitionTime": 3, "TriggerTime": 0.5}.get(way, 2.5)
    assert scan.header.get_xyzt_units() == ("mm", "sec")
    # What a scan that was stopped lacks at its end, and slices that are lost before.
    dicom.save(images[:37], tmp_path / "stopped")
    assert way == "InstanceNumber" or [each.volumes for each in find_series(tmp_path / "stopped")] == [1, 3]
    dicom.save(images[:12] + images[13:], tmp_path / "lost")
    (lost,) = find_series(tmp_path / "lost")
    has(lost.problem, "several images" if way == "InstanceNumber" else "lacks 1 slices")
    for names, volumes in ((("dyn 0", "dyn 1", "dyn 2", "dyn 3"), [4]), (("T1", "T2", "T1 +C", "T2 +C"), [1] * 4)):
        for i, image in enumerate(images):
            image.SeriesDescription = names[i // 10]
        dicom.save(images, tmp_path / names[0])
        assert [each.volumes for each in find_series(tmp_path / names[0])] == volumes
    for i, image in enumerate(images):
        image.ImageType = ["DERIVED", "PRIMARY", "M", f"MEAN{i // 10}"]
    dicom.save(images, tmp_path / "types")
    assert [each.volumes for each in find_series(tmp_path / "types")] == [1] * 4


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_uids_that_an_anonymiser_spoilt_are_said_once(keyword, tmp_path):
    dicom.Series(seed=1).save(tmp_path / "other")
    for name in "12":  # one file is the whole series
        attributes = {"SOPClassUID": EnhancedMRImageStorage}
        dicom.save(dicom.Series(attributes=attributes).images()[:1], tmp_path / "frames" / name)
    for k, image in enumerate(images := dicom.Series().images()):
        setattr(image, keyword, "1.2.3" if keyword[1] == "O" else f"1.2.{k + 3}")
    dicom.save(images, tmp_path / "spoilt")
    *frames, other, spoilt = find_series(tmp_path)
    assert [len(each.files) for each in frames] == [1, 1] and other.problem is None and len(spoilt.files) == 10
    wrong = "10 files have it" if keyword[1] == "O" else f"each of 10 images has a {keyword} of its own"
    has(spoilt.problem, wrong, "anonymise")


@pytest.mark.parametrize(
    ("syntax", "advice"),
    [
        (HTJ2KLossless, "pylibjpeg-openjpeg"),
        (JPEGLosslessSV1, "pylibjpeg-libjpeg"),
        (JPEGLSLossless, "whole copy"),
        (MPEG2MPML, "no decoder"),
    ],
)
def test_pixels_that_cannot_be_decoded_say_which_decoder_to_install(syntax, advice, tmp_path):
    for image in (images := dicom.Series().images()):
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelData = encapsulate([b"no image"])
        image["PixelData"].is_undefined_length = True
    dicom.save(images, tmp_path)
    (series,) = find_series(tmp_path)
    refused(lambda: write_nifti(series, tmp_path / "scan.nii"), ValueError, "0000.dcm", advice, "uncompressed")


@pytest.mark.parametrize("source", [None, (-15456, 34624), (-15456, 900), (0.5, 1), "its own"])
@pytest.mark.parametrize("slopes", [(1.0,), (0.25, 0.3), (1e-8, 3e-8)])
def test_windows_show_the_signal(slopes, source, tmp_path):
    """And values are the result's to the last bit, also if they are tiny or beside fill values."""
    phantom = dicom.Series(slopes=slopes, minimum=-1)
    signal = np.ptp(phantom.values)
    own = (float(signal) / 3, float(signal) / 2)
    center, width = (None, None) if source is None else own if source == "its own" else source
    for k, image in enumerate(images := phantom.images()):
        pixels = phantom.stored[:, :, k].T.copy()
        pixels[:4] = -32768
        image.PixelData, image.WindowCenter, image.WindowWidth = pixels.tobytes(), center, width
    dicom.save(images, tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    write_nifti(series, tmp_path / "sr.nii")
    folder = write_derived_series(series, tmp_path / "sr.nii", tmp_path / "out", BUNDLE)
    derived, result = dicom.read(folder)[0], nib.load(tmp_path / "sr.nii").get_fdata()
    step = float(derived.get("RescaleSlope", 1))
    assert step < signal / 400
    np.testing.assert_allclose(dicom.read_by_itk(folder)[0], result, atol=0.501 * step)
    center, width = float(derived.WindowCenter), float(derived.WindowWidth)
    assert 0.3 * signal < width < 1.1 * signal and 0 < center < 0.7 * signal
    shown = apply_windowing(result, derived)
    assert np.mean((shown > shown.min()) & (shown < shown.max()), where=result > 0) > 0.6
    if source == "its own":
        np.testing.assert_allclose((center, width), own, rtol=1e-6)


TISSUE = int(dicom.Series().stored[16, 14, 4])


@pytest.mark.parametrize(
    ("minimum", "bits", "stored", "tags", "expected"),
    [
        (0, 12, 63536, {0x120: ("US", 63536)}, 0),  # in bits that pixels do not use
        (-300, 16, -2000, {0x120: ("US", 63536)}, 0),  # with the other sign than its pixels
        (-300, 16, -1990, {0x120: ("SS", -2000), 0x121: ("SS", -1980)}, 0),
        (300, 16, 5, {0x120: ("US", 5)}, 300),  # 0 is no value of this scan
        (0, 16, 5, {0x121: ("US", 5)}, 5),
        (0, 16, TISSUE, {0x120: ("US", TISSUE)}, 0),  # in an area, and scattered
        (0, 16, 5, {0x120: ("US", 0), 0x121: ("US", 65535)}, None),
    ],
)
def test_declared_padding_is_no_signal(minimum, bits, stored, tags, expected, tmp_path, recwarn):
    phantom = dicom.Series(minimum=minimum)
    for k, image in enumerate(images := phantom.images()):
        (pixels := phantom.stored[:, :, k].T.copy())[:3] = stored
        image.PixelData, image.BitsStored, image.HighBit = pixels.tobytes(), bits, bits - 1
        for element, value in tags.items():
            image.add_new(0x280000 + element, *value)
    dicom.save(images, tmp_path)
    (series,) = find_series(tmp_path)
    if expected is None:
        refused(lambda: write_nifti(series, tmp_path / "scan.nii"), ValueError, "series")
        return
    write_nifti(series, tmp_path / "scan.nii")
    found, said = nib.load(tmp_path / "scan.nii").get_fdata(), "".join(str(each.message) for each in recwarn)
    assert (found[:, :3] == expected).all()
    np.testing.assert_array_equal(found[:, 3:], phantom.values[:, 3:])
    assert (f"series {series.headers[0].SeriesInstanceUID}: 960 of 8960 voxels are padding" in said) == (0x120 in tags)
    assert ("lie scattered" in said) == (stored == TISSUE)


def damaged_frames(folder):
    dicom.save(dicom.enhanced(dicom.Series(shape=(16, 14, 6)).images()), folder)
    rng, whole = np.random.default_rng(0), (folder / "0000.dcm").read_bytes()
    for how in range(40):
        data = bytearray(whole)
        for offset in rng.integers(132, len(data) - 2 * 16 * 14 * 6, size=rng.integers(1, 30)):
            data[offset] = rng.integers(256)
        (folder / "0000.dcm").write_bytes(data[: None if rng.integers(3) else rng.integers(len(data))])
        yield how, folder


@pytest.mark.filterwarnings("error", "ignore:series ")
@pytest.mark.parametrize("spoil", [partial(malformed.dicom_series, dicom.Series().images), damaged_frames])
def test_malformed(spoil, tmp_path):
    """Damaged series have a reason in words, or are volumes of numbers; pydicom's warnings do not reach the user."""
    for how, folder in spoil(tmp_path / "in"):
        for series in find_series(folder):
            reason = series.problem or series.exclusion
            try:
                if reason is None:
                    write_nifti(series, tmp_path / "scan.nii")
                    assert np.isfinite(nib.load(tmp_path / "scan.nii").get_fdata()).all(), how
            except ValueError as error:
                reason = str(error)
            assert reason is None or malformed.unclear(f"series {reason}", "series") is None, how


def test_a_damaged_file_spoils_the_series_beside_it_and_no_other(tmp_path):
    """Its slice would be missing at the end without a word."""
    dicom.Series().save(tmp_path / "sound")
    dicom.save(dicom.Series().images(), tmp_path / "spoilt", lambda data: data[:700])
    dicom.save(dicom.Series().images()[:1], tmp_path / "z", lambda data: b"nothing")
    (tmp_path / "zz").mkdir()
    (tmp_path / "zz" / "1.dcm").symlink_to("/proc/self/mem")  # a file that cannot be read
    dicom.Series().save(tmp_path / "absent")
    (tmp_path / "links").mkdir()
    for name in ("absent/IM9", "absent/IM8", "links/IM1", "links/IM2", "README"):
        (tmp_path / name).symlink_to("../annex/objects/IM9")
    absent, sound, spoilt, links, alone, closed = find_series(tmp_path)
    assert sound.problem is None and len(spoilt.files) == 9 and "0009.dcm" in spoilt.problem
    has(absent.problem, "IM8: ", "datalad get", "IM9")
    assert links.files == [] and "datalad get" in links.problem
    assert alone.files == [] and "0000.dcm: " in alone.problem
    assert closed.files == [] and "zz/1.dcm: " in closed.problem


def test_a_result_with_a_voxel_that_is_no_number_leaves_nothing(tmp_path):
    dicom.Series().save(tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    values, result = np.ones((64, 56, 10), np.float32), tmp_path / "sr.nii.gz"
    values[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(values, series.affine @ np.diag([0.5, 0.5, 1, 1])), result)
    write = partial(write_derived_series, series, result, tmp_path / "out", BUNDLE)
    refused(write, ValueError, "sr.nii.gz: ")
    assert not list(tmp_path.glob("out/*"))


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name in ("series", "search"):
        monkeypatch.delitem(sys.modules, f"common.program.dicom.{name}", raising=False)
    refused(lambda: importlib.import_module("common.program.dicom.search"), ImportError, "mri-sr-bundles[dicom]")
