"""The width of a scan's slice profile, from the scan."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.degradations import FittedProfile, GaussianProfile, RicianNoise, make_slice_profile
from common.io.slice_thickness import read_profile_width
from tests.refused import refused

FACTORS = (1, 1, 3)


def affine_of(*spacing):
    return torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def anatomy():
    """Tissues of two sizes in a head."""
    noise = torch.randn(96, 96, 96, generator=torch.Generator().manual_seed(0)).numpy()
    fine, coarse = (ndimage.gaussian_filter(noise, sigma) > 0 for sigma in (2, 5))
    distance = torch.linspace(-1, 1, 96).square()
    head = distance[:, None, None] + distance[:, None] + distance < 0.9
    return torch.where(head, torch.from_numpy(0.3 + 0.4 * fine + 0.2 * coarse).float(), 0.0)[None, None]


@pytest.mark.parametrize("noise", [torch.nn.Identity(), RicianNoise(0.03, seed=0)], ids=str)
def test_the_width_is_found_with_noise_as_without_it(anatomy, noise):
    profiles = [GaussianProfile(FACTORS, fwhm=fwhm) for fwhm in (0.4, 0.8, 1.0, 1.2, 1.8)]
    found = {
        profile.fwhm: FittedProfile(FACTORS).estimate_width(noise(profile(anatomy[0]))[None])[0] for profile in profiles
    }
    assert (found.pop(0.4), found.pop(1.8)) == (pytest.approx(0.7, abs=0.05), 1.2)
    assert found == pytest.approx({fwhm: fwhm for fwhm in found}, abs=0.15)


def test_finer_pixels_along_one_axis_alone_do_not_change_the_width(anatomy):
    scanned = MetaTensor(GaussianProfile((1.5, 1, 6), fwhm=0.8)(anatomy[0])[None], affine_of(1.5, 1.0, 6.0))
    assert FittedProfile(FACTORS).estimate_width(scanned)[0] == pytest.approx(0.8, abs=0.15)


def test_a_width_that_is_not_sure_is_not_used(anatomy):
    """Parts that differ, as where a half is smooth across its slices, and slices as thin as pixels."""
    scan = GaussianProfile(FACTORS)(anatomy[0])[None]
    smooth = torch.from_numpy(ndimage.gaussian_filter1d(scan.numpy(), 1.0, axis=4))
    left = torch.arange(scan.shape[2])[:, None, None] < scan.shape[2] // 2
    width, found = FittedProfile(FACTORS).estimate_width(scan)
    lowest, highest = (float(word) for word in found.split()[:3:2])
    assert lowest - 0.01 <= width <= highest + 0.01 and found.endswith("in parts of the scan")
    width, found = FittedProfile(FACTORS).estimate_width(torch.where(left, smooth, scan))
    lowest, highest = (float(word) for word in found.split()[:3:2])
    assert width is None and highest > lowest + 0.15
    cubes = MetaTensor(scan, affine_of(3.0, 3.0, 3.0))
    assert FittedProfile(FACTORS).estimate_width(cubes) == (None, "slices are about as thick as pixels are wide")


@pytest.mark.parametrize("shape", [(20, 20, 12), (2, 40, 40), (40, 2, 12), (1, 1, 1), (60, 60, 9)])
def test_what_tells_nothing_is_taken_for_slices_that_touch(shape):
    fitted = FittedProfile(FACTORS)
    assert all(fitted.estimate_width(torch.full((1, 1, *shape), value))[0] is None for value in (0.0, 1.0))
    assert shape == (20, 20, 12) or fitted.estimate_width(torch.rand(1, 1, *shape))[0] is None
    assert fitted.make_profile(None).factors == FACTORS and fitted.make_profile(None).fwhm == 1.0


def test_a_width_that_is_given():
    assert make_slice_profile(FACTORS, 0.8).fwhm == 0.8 and make_slice_profile(FACTORS, "auto").factors == FACTORS
    for wrong in ("wide", -1, 0, True, float("inf"), None):
        refused(
            lambda wrong=wrong: make_slice_profile(FACTORS, wrong), ValueError, "adapt_profile", repr(wrong), "auto"
        )


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_a_width_that_the_protocol_tells(tmp_path, name):
    """Slices of 5 mm that are 6 mm apart; the JSON beside a scan counts, whatever else it says."""
    affine, file, told = affine_of(0.5, 0.5, 6.0), str(tmp_path / name), tmp_path / "scan.json"
    scan, batch = (MetaTensor(torch.zeros(1, 1, 4, 4, 4), affine, {"filename_or_obj": f}) for f in (file, [file]))
    thickened = MetaTensor(torch.zeros(1, 1, 4, 4, 2), affine_of(0.5, 0.5, 12.0), {"filename_or_obj": file})
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), affine.numpy()), file)
    assert read_profile_width(scan) is None and read_profile_width(scan.as_tensor()) is None
    for said, width in (({"EchoTime": 0.1}, None), ({"SliceThickness": 5}, 5 / 6), ({"SliceThickness": 6.0}, 1)):
        told.write_text(json.dumps(said))
        assert read_profile_width(scan) == read_profile_width(batch) == (width and pytest.approx(width))
        assert read_profile_width(thickened) is None
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "latin-1"):  # as some editors and programs leave it
        told.write_text('{"InstitutionName": "Universit\u00e4t", "SliceThickness": "3"}', encoding=encoding)
        assert read_profile_width(scan) == 0.5
    for meta in (3.0, np.float32(3), torch.tensor([3.0, 4.0], dtype=torch.float64), [torch.tensor(3.0)]):
        read = MetaTensor(scan.as_tensor(), affine, {"filename_or_obj": "a series", "SliceThickness": meta})
        assert read_profile_width(read) == 0.5
    wrong = [json.dumps({"SliceThickness": mm}) for mm in ("5 mm", 0, -1, True, [5, 5], {}, float("nan"), 1e9)]
    for text in [*wrong, "", "{", "[5]", '{"SliceThickness": 3,}', "[" * 10**5]:
        told.write_text(text)
        with pytest.warns(UserWarning, match=f"^{told}: .*(SliceThickness|JSON)"):
            assert read_profile_width(scan) is None
    told.unlink()
    told.symlink_to("nowhere.json")
    with pytest.warns(UserWarning, match=f"^{told}: it links to nowhere.json"):
        assert read_profile_width(scan) is None
    with pytest.warns(UserWarning, match="^a series: SliceThickness is -1"):
        assert read_profile_width(MetaTensor(scan, meta={"filename_or_obj": "a series", "SliceThickness": -1})) is None
