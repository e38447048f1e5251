"""A scan that the scanner zero-filled is the one that was acquired again, where its header says that one's matrix."""

import numpy as np
import pytest
from pydicom import Dataset

from common.program.dicom.series import read_acquisition
from common.transforms import AcquiredMatrixd
from common.transforms.scan.acquired import compute_acquired_affine, crop_k_space, read_acquired_matrix
from tests.bundles.runs import OBLIQUE, phantom
from tests.refused import refused
from tests.transforms.grids import scan_of, told, world_of, zero_filled

SIZES = (20, 24, 9)
DIRECTION = "InPlanePhaseEncodingDirectionDICOM"


@pytest.mark.parametrize("larger", [(20, 24, 9), (40, 48, 9), (30, 36, 9), (33, 31, 9), (21, 25, 18)])
@pytest.mark.parametrize("sizes", [SIZES, (19, 23, 9)])
def test_what_was_filled_with_zeros_is_undone(sizes, larger):
    acquired = 1 + phantom(0, sizes) / 1000  # no ringing below 0, of which a magnitude would make another image
    filled = zero_filled(acquired, larger)
    # Of even sizes a scanner has one sample more on one side: what it makes imaginary is lost with it.
    atol = (1e-3 if sizes == SIZES else 1e-5) * acquired.max()
    for scan in (filled.real, abs(filled)):
        np.testing.assert_allclose(crop_k_space(scan, sizes), acquired, atol=atol)
    assert crop_k_space(filled.real - 1.5, sizes).min() < 0 <= crop_k_space(abs(filled - 1.5), sizes).min()


def test_voxels_lie_where_they_lay():
    """A line through the volume is where it was, from its first voxel to the end of the field of view."""
    place = compute_acquired_affine(OBLIQUE, (30, 31, 9), SIZES)
    np.testing.assert_allclose(place @ [0, 0, 0, 1], OBLIQUE @ [0, 0, 0, 1])
    np.testing.assert_allclose(place @ [*SIZES, 1], OBLIQUE @ [30, 31, 9, 1])
    np.testing.assert_allclose(world_of(place, (20, 1, 1))[10, 0, 0], (OBLIQUE @ [15, 0, 0, 1])[:3])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"AcquisitionMatrixPE": 299, "FrequencyEncodingSteps": 384, DIRECTION: "ROW"}, [299, 384, 22]),
        ({"AcquisitionMatrixPE": 299, "BaseResolution": 384, DIRECTION: "COL"}, [384, 299, 22]),
        ({"AcquisitionMatrixPE": 299, "BaseResolution": 384}, [512, 512, 22]),  # which axis is phase is not known
        ({"AcquisitionMatrixPE": 256, "BaseResolution": 256}, [256, 256, 22]),
        ({"AcquisitionMatrixPE": 299, DIRECTION: "COLUMN"}, [512, 299, 22]),
        ({"AcquisitionMatrixPE": 500, "BaseResolution": 1024, DIRECTION: "COL"}, [512, 512, 22]),
        ({"AcquisitionMatrixPE": 299, "BaseResolution": float("inf"), DIRECTION: "COL"}, [512, 299, 22]),
        ({"AcquisitionMatrixPE": "299", "BaseResolution": 0, DIRECTION: ["COL"]}, [512, 512, 22]),
        ({}, [512, 512, 22]),
    ],
)
def test_what_a_header_says(said, expected):
    assert read_acquired_matrix(said, (512, 512, 22)) == expected


def test_what_dicom_says():
    """Philips writes the same places of the tag whichever way phase is encoded, Siemens others."""
    for matrix, direction, expected in (
        ([0, 384, 299, 0], "ROW", [299, 384, 22]),
        ([384, 0, 0, 299], "COL", [384, 299, 22]),
        (None, "COL", [512, 512, 22]),
        ([384, 0, 0], "COL", [512, 512, 22]),
    ):
        headers = [Dataset(), Dataset()]
        for header in headers:
            header.AcquisitionMatrix, header.InPlanePhaseEncodingDirection = matrix, direction
        assert read_acquired_matrix(read_acquisition(headers), (512, 512, 22)) == expected
    headers[0].AcquisitionMatrix = [256, 0, 0, 256]
    assert read_acquisition(headers) == {}


def test_a_scan_is_taken_as_acquired_and_not_where_detail_would_be_lost():
    sizes, file = [40, 36, 12], "/d/scan.nii.gz"
    filled = abs(zero_filled(phantom(0, sizes), (60, 72, 12))).astype(np.float32)

    def taken(matrix):
        return AcquiredMatrixd("image")({"image": scan_of(filled, OBLIQUE, file), "image_matrix": matrix})["image"]

    found = told(lambda: taken(sizes), f"{file}: used as acquired, 40x36x12 of its 60x72x12 voxels")
    np.testing.assert_array_equal(found[0], crop_k_space(filled, sizes))
    np.testing.assert_allclose(found.affine, compute_acquired_affine(OBLIQUE, filled.shape, sizes))
    assert found.meta["filename_or_obj"] == file
    assert told(lambda: taken([60, 72, 12]), f"{file}: no header says", "--acquired_matrix").shape[1:] == filled.shape
    refused(lambda: taken([24, 36, 12]), ValueError, file)
    refused(lambda: taken([40, 99, 12]), ValueError, file, "at most the file's voxels, [60, 72, 12]")
