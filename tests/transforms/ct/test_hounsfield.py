"""CT of any offset, padding and table becomes one and the same window; what is no CT, or no MR, is refused."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from common.data.simulation.signal import TISSUES, acquire
from common.transforms.ct.hounsfield import CheckMRd, HounsfieldWindowd, find_ct_offset

SPACING = np.array([0.9, 0.9, 1.5])  # two axes that the mask pools and one that it does not
SHAPE = (161, 159, 50)
X, Y, Z = np.meshgrid(*[np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)], indexing="ij")
OUTSIDE = np.hypot(X - 72, Y - 72) > 72  # of the scanner's circle
WINDOW = (-1000, 1000)


def ellipsoid(centre, radii):
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip((X, Y, Z), centre, radii, strict=True)) < 1


@pytest.fixture(scope="module")
def head():
    """The same head in CT, T1w and T2w: tissue in shells, a sinus, and the lower end cut off by the field of view."""
    labels = np.zeros(SHAPE, dtype=int)
    shells = {"skin": 0, "fat": 2, "muscle": 4, "bone": 8, "csf": 13, "gm": 16, "wm": 26}
    for tissue, depth in shells.items():
        labels[ellipsoid((70, 75, 0), (60 - depth, 62 - depth, 66 - depth))] = TISSUES.index(tissue)
    labels[ellipsoid((70, 125, 15), (8, 6, 10))] = TISSUES.index("air")
    fractions = np.stack([gaussian_filter((labels == i).astype(np.float32), 0.6) for i in range(len(TISSUES))])
    return {c: acquire(fractions, c, np.random.default_rng(1)).astype(np.float32) for c in ("ct", "t1w", "t2w")}


def noisy(ct, deviation):
    return (ct + deviation * np.random.default_rng(2).standard_normal(ct.shape)).clip(-1024, 3071).round()


def volume(array):
    affine = np.diag([*SPACING, 1.0])
    return MetaTensor(torch.as_tensor(array)[None], affine=affine, meta={"filename_or_obj": "/d/scan.nii.gz"})


def windowed(array, window=WINDOW, offset="auto"):
    entry = {"ct": volume(array)}
    before = entry["ct"].clone()
    out = HounsfieldWindowd("ct", window, offset)(entry)["ct"]
    assert torch.equal(entry["ct"], before) and out.dtype == torch.float32 and out.shape == before.shape
    assert np.allclose(out.affine, before.affine) and out.meta["filename_or_obj"] == "/d/scan.nii.gz"
    return out[0].numpy()


@pytest.mark.parametrize("noise", [0, 20, 60])
@pytest.mark.parametrize("shift", [0, 1000, 1024])
def test_any_offset_and_padding_comes_out_as_the_same_window(head, shift, noise):
    ct = noisy(head["ct"], noise)
    expected = windowed(ct)
    # A few voxels of sinus and skin stay as noisy as they are.
    inside = ct > -500
    assert np.allclose(expected[inside], ((ct[inside] + 1000) / 2000).clip(0, 1), atol=1e-6)
    assert np.all(expected[OUTSIDE] == 0)
    ct[-1, -1, -1] = 3071  # metal
    stored = ct + shift
    cases = [stored.astype(np.int16), *(np.where(OUTSIDE, pad, stored) for pad in (-2048, -3024))]
    cases += [np.where(OUTSIDE, 0, stored)] if not shift else []
    if shift:
        unsigned = stored.clip(0).astype(np.uint16)
        cases += [unsigned.astype(np.float32), np.where(OUTSIDE, 0, unsigned).astype(np.int32)]
    for case in cases:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert np.allclose(windowed(case), expected, atol=1e-6)
        said = [str(w.message) for w in caught if "ct_offset" in str(w.message)]
        assert len(said) == (shift > 0) and all("scan.nii.gz" in s and f"ct_offset -{shift}" in s for s in said)


def test_other_bodies_and_little_air_are_ct_too(head):
    cropped = head["ct"][40:110, 40:146, :24]
    assert (cropped < -700).mean() < 0.05 and find_ct_offset(cropped) == 0 and find_ct_offset(cropped + 1024) == -1024
    rng = np.random.default_rng(0)
    pelvis, chest = (np.full(SHAPE, -1000.0) for _ in range(2))
    for body in (pelvis, chest):
        body[ellipsoid((72, 72, 0), (70, 50, 1e4))] = -100
        body[ellipsoid((72, 72, 0), (58, 38, 1e4))] = 50
        body[ellipsoid((72, 96, 0), (9, 9, 1e4))] = 500
    for side in (35, 109):
        pelvis[ellipsoid((side, 72, 40), (10, 10, 15))] = 900
        chest[ellipsoid((side, 72, 40), (20, 30, 1e4))] = -850
    for body, noise in [(pelvis, 10), (pelvis, 50), (chest, 10), (chest, 50)]:
        scan = gaussian_filter(body, 0.6) + noise * rng.standard_normal(SHAPE)
        assert [find_ct_offset(scan + shift) for shift in (0, 1000, 1024)] == [0, -1000, -1024]


@pytest.mark.parametrize("contrast", ["t1w", "t2w"])
def test_mr_is_no_ct_at_any_scale(head, contrast):
    mr = head[contrast]
    assert all(find_ct_offset(mr * scale) is None for scale in np.geomspace(0.1, 30, 80))
    with pytest.raises(ValueError, match=r"(?s)scan\.nii\.gz: does not look like CT.* 0 to .*Is it MR.*--ct_offset"):
        windowed(mr)
    for passing in (mr, mr.astype(np.int16), (mr - mr.mean()) / mr.std(), mr - 3, 30 * mr - 300 * (mr < 20)):
        entry = {"mr": volume(passing)}
        assert CheckMRd("mr")(entry)["mr"] is entry["mr"]


def test_a_narrow_peak_1000_above_air_is_not_enough_to_be_ct():
    rng = np.random.default_rng(0)
    gel = np.where(ellipsoid((70, 75, 20), (50, 50, 50)), 1040.0, 10.0)
    dim = np.where(X < 60, 600.0, np.where(X > 110, 1500.0, 1040.0)) * (gel > 500)
    assert find_ct_offset(gel + 20 * rng.standard_normal(SHAPE)) is None  # no bone
    assert find_ct_offset(dim + 20 * rng.standard_normal(SHAPE)) is None  # tissue where CT has none


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v + 1000, lambda v: (v + 1024).clip(0), lambda v: v / 2])
def test_ct_given_as_mr_is_refused(head, change):
    for kind in (np.float32, np.int16):
        with pytest.raises(ValueError, match=r"scan\.nii\.gz: .*those of CT.*exchanged.*--check_mr false"):
            CheckMRd("mr")({"mr": volume(change(head["ct"]).astype(kind))})


def test_whoever_insists_on_an_offset_gets_it(head):
    vessels = np.zeros(SHAPE)  # a subtraction: air and tissue 0
    vessels[ellipsoid((70, 70, 40), (4, 4, 30))] = 400
    with pytest.raises(ValueError, match="does not look like CT"):
        windowed(vessels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(windowed(vessels, (-100, 900), 0), (vessels + 100) / 1000, atol=1e-6)
        assert np.allclose(windowed(head["ct"] + 700, offset=-700), windowed(head["ct"]), atol=1e-6)


def test_without_air_everything_is_body(head):
    brain = head["ct"][50:100, 60:110, :20]
    assert np.allclose(windowed(brain, (-50, 100), 0), ((brain + 50) / 150).clip(0, 1), atol=1e-6)


def test_padding_is_air_and_water_in_a_corner_is_none():
    padded = np.where(OUTSIDE, -3024.0, 40.0)
    assert np.allclose(windowed(padded, (-1100, 900), 0), np.where(OUTSIDE, 0.05, 0.57), atol=1e-6)
    full = np.full(SHAPE, 40.0)
    full[ellipsoid((72, 72, 40), (10, 10, 10))] = -950
    full[0, 0, 0] = 0
    assert np.allclose(windowed(full, offset=0), (full + 1000) / 2000, atol=1e-6)


def test_tables_go_and_bodies_stay():
    rng = np.random.default_rng(0)
    legs = [ellipsoid((c, 80, 0), (r, 35, 1e4)) for c, r in ((40, 32), (112, 20))]
    ear = (abs(X - 112) < 1.5) & (abs(Z - 40) < 10) & (Y > 100) & (Y < 133)  # 3 mm thick, 18 mm long
    body = legs[0] | legs[1] | ear
    shells = ((abs(Y - 36) < 2) | (abs(Y - 12) < 2)) & (X > 5)
    foam = (Y > 12) & (Y < 36) & (X > 5) & ~shells
    lung, bubble = ellipsoid((40, 80, 0), (10, 12, 1e4)), ellipsoid((112, 80, 40), (6, 6, 6))
    hu = np.where(body, 40.0, -1000.0)
    hu[shells], hu[foam], hu[lung], hu[bubble] = -100, -920, -850, -950
    hu += 20 * rng.standard_normal(SHAPE)
    out = windowed(hu, (-1000, 1000), 0)
    kept = body | lung | bubble
    expected = ((hu + 1000) / 2000).clip(0, 1).astype(np.float32)
    assert (np.abs(out - expected)[kept] > 1e-6).mean() < 1e-3
    assert np.abs(out - expected)[ear | lung | bubble].max() < 1e-6
    assert np.all(out[shells] == 0) and np.all(out[Y < 38] == 0) and np.all(out[X < 2] == 0)


def test_a_window_that_leaves_nothing_is_refused(head):
    with pytest.raises(
        ValueError, match=r"(?s)scan\.nii\.gz: nothing.* 2500 to 3000 HU.* -10\d\d to 1\d\d\d HU.*--window"
    ):
        windowed(head["ct"], (2500, 3000))


@pytest.mark.parametrize(
    ("window", "offset", "said"),
    [
        ((250, -150), "auto", "window is"),
        ((1, 2, 3), 0, "window is"),
        ((0, float("inf")), 0, "window is"),
        ((0, 1), "-1024", "ct_offset is '-1024'"),
        ((0, 1), True, "ct_offset"),
        ((0, 1), float("nan"), "ct_offset"),
    ],
)
def test_options_out_of_range_are_refused(window, offset, said):
    with pytest.raises(ValueError, match=said):
        HounsfieldWindowd("ct", window, offset)


def test_missing_keys_are_passed_over_where_that_is_allowed():
    for transform in (HounsfieldWindowd("ct", WINDOW, allow_missing_keys=True), CheckMRd("ct", True)):
        assert transform({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="ct"):
        CheckMRd("ct")({"other": 1})
