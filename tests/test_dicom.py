import importlib
import json
import sys

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage
from scipy.ndimage import zoom

from common.dicom import find_series, to_nifti, write_derived

from .clients import dicom
from .refused import refused

BUNDLE = {"name": "UDEAN: super-resolution", "version": "1.2.3", "authors": "someone", "sha256": "0" * 64}
SERIES = {
    "integers, oblique": dicom.Series(angles=(8, -5, 12), spacing=(0.9, 1.1, 4.0)),
    "signed, backwards": dicom.Series("sagittal", angles=(3, 4, -6), minimum=-300, backwards=True),
    "slices rescaled": dicom.Series("coronal", slopes=(0.25, 0.5), intercept=-20.0),
}


@pytest.mark.parametrize("phantom", SERIES.values(), ids=SERIES)
def test_a_scan_becomes_nifti_and_its_result_a_derived_series(phantom, tmp_path):
    """Values and places of the scan go to the reader of NIfTI, and those of the result to every reader of DICOM."""
    inputs = phantom.save(tmp_path / "in" / "deep")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (series,) = find_series(tmp_path / "in")
    assert series.problem is None and len(series.files) == 10
    assert inputs[0].SeriesInstanceUID in series.description and "'t2 tse'" in series.description
    to_nifti(series, tmp_path / "scan.nii.gz")
    scan = nib.load(tmp_path / "scan.nii.gz")
    assert scan.get_data_dtype() == np.float32 and scan.get_sform(coded=True)[1] == 1
    assert json.loads((tmp_path / "scan.json").read_text()) == {"SliceThickness": float(inputs[0].SliceThickness)}
    np.testing.assert_array_equal(scan.get_fdata(), phantom.values.astype(np.float32))
    affine = dicom.LPS_TO_RAS @ phantom.lps
    np.testing.assert_allclose(scan.affine, affine, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(scan.get_qform(), affine, rtol=1e-6, atol=1e-4)
    # As k-space truncation puts the finer grid, and as block averages do.
    for factors, offset in (((2, 2, 2), 0.0), ((1, 1, 3), -1 / 3)):
        finer = np.diag([*(1 / np.array(factors)), 1.0])
        finer[2, 3] = offset
        values = zoom(scan.get_fdata(dtype=np.float32), factors, order=1)
        nib.save(nib.Nifti1Image(values, scan.affine @ finer), tmp_path / "scan_sr.nii.gz")
        folder = write_derived(series, tmp_path / "scan_sr.nii.gz", tmp_path / "out", BUNDLE)
        (found, place), images = dicom.read_by_itk(folder), dicom.read(folder)
        step = float(images[0].get("RescaleSlope", 1))
        np.testing.assert_allclose(found, values, atol=0.501 * step)
        # NIfTI keeps 24 bits of an affine, and the result lies where the series says nonetheless.
        np.testing.assert_allclose(place, affine @ finer, atol=1e-8)
        assert step == (0.25 if phantom.slopes else 1)
        assert folder == tmp_path / "out" / images[0].SeriesInstanceUID and len(images) == values.shape[2]
        assert images[0].ReferencedSeriesSequence[0].SeriesInstanceUID == inputs[0].SeriesInstanceUID
        assert images[0].StudyInstanceUID == inputs[0].StudyInstanceUID
        assert "UDEAN: super-resolution', version 1.2.3, SHA-256" in images[0].DerivationDescription
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_several_series(tmp_path):
    """Each is found, in its folder or beside others; what is no volume of MR slices comes with the reason."""
    dicom.Series().save(tmp_path / "a")
    dicom.Series(seed=1, shape=(20, 24, 6)).save(tmp_path / "b" / "first")
    mixed = [
        *dicom.Series(shape=(16, 16, 5)).images(),
        *dicom.Series(attributes={"SOPClassUID": EnhancedMRImageStorage}).images()[:1],
        *dicom.Series(attributes={"SOPClassUID": CTImageStorage, "Modality": "CT"}).images(),
        *dicom.Series(shape=(16, 16, 9)).images()[::4],
        *[image for k, image in enumerate(dicom.Series().images()) if k != 4],
    ]
    dicom.save(mixed, tmp_path / "c")
    found = find_series(tmp_path)
    assert [len(series.files) for series in found] == [10, 6, 5, 1, 10, 3, 9]
    reasons = (None, None, None, "Enhanced MR", "CT Image", None, "lacks 1 slices")
    for series, reason in zip(found, reasons, strict=True):
        assert series.problem is None if reason is None else reason in series.problem
    assert find_series(tmp_path / "none") == []


def test_a_damaged_file_spoils_the_series_beside_it_and_no_other(tmp_path):
    """Its slice would be missing at the end without a word."""
    dicom.Series().save(tmp_path / "sound")
    dicom.save(dicom.Series().images(), tmp_path / "spoilt", lambda data: data[:700])
    dicom.save(dicom.Series().images()[:1], tmp_path / "z", lambda data: b"nothing")
    sound, spoilt, alone = find_series(tmp_path)
    assert sound.problem is None and len(spoilt.files) == 9 and "0009.dcm" in spoilt.problem
    assert alone.files == [] and "0000.dcm: not a DICOM file" in alone.problem


@pytest.mark.parametrize(("first", "step", "message"), [(1, -0.5, "axes are not those"), (np.nan, 0.5, "not finite")])
def test_a_mirrored_result_or_one_with_a_voxel_that_is_no_number_leaves_nothing(tmp_path, first, step, message):
    dicom.Series().save(tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    values, result = np.ones((64, 56, 10), np.float32), tmp_path / "sr.nii.gz"
    values[0, 0, 0] = first
    nib.save(nib.Nifti1Image(values, series.affine @ np.diag([step, 0.5, 1, 1])), result)
    refused(lambda: write_derived(series, result, tmp_path / "out", BUNDLE), ValueError, "sr.nii.gz: ", message)
    assert not list(tmp_path.glob("out/*"))


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "common.dicom")
    refused(lambda: importlib.import_module("common.dicom"), ImportError, "pydicom is missing", "mri-sr-bundles[dicom]")
