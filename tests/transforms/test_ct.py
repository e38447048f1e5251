"""CT of any offset, padding and table becomes one and the same window; what is no CT, or no MR, is refused."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from common.data.simulation.signal import TISSUES, simulate_acquisition
from common.transforms.ct import CheckThickSlicesd, HounsfieldWindowd, ResampleHRd
from common.transforms.scan.modality import CheckMRd, find_ct_offset
from tests.refused import refused
from tests.transforms.grids import affine_of, scan_of, told, warned, world_of

SPACING = (0.9, 0.9, 1.5)  # two axes that the mask pools and one that it does not
SHAPE = (161, 159, 50)
X, Y, Z = np.meshgrid(*[np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)], indexing="ij")
AFFINE = np.diag([*SPACING, 1.0])
OUTSIDE = np.hypot(X - 72, Y - 72) > 72  # of the scanner's circle


def ellipsoid(centre, radii):
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip((X, Y, Z), centre, radii, strict=True)) < 1


@pytest.fixture(scope="module")
def head():
    """The same head in CT, T1w and T2w: tissue in shells, a sinus, and the lower end cut off by the field of view."""
    labels = np.zeros(SHAPE, dtype=int)
    for tissue, depth in {"skin": 0, "fat": 2, "muscle": 4, "bone": 8, "csf": 13, "gm": 16, "wm": 26}.items():
        labels[ellipsoid((70, 75, 0), (60 - depth, 62 - depth, 66 - depth))] = TISSUES.index(tissue)
    labels[ellipsoid((70, 125, 15), (8, 6, 10))] = TISSUES.index("air")
    fractions = np.stack([gaussian_filter((labels == i).astype(np.float32), 0.6) for i in range(len(TISSUES))])
    return {
        c: simulate_acquisition(fractions, c, np.random.default_rng(1)).astype(np.float32) for c in ("ct", "t1w", "t2w")
    }


def noise(sigma):
    return sigma * np.random.default_rng(2).standard_normal(SHAPE)


def windowed(array, window=(-1000, 1000), offset="auto"):
    entry = {"ct": scan_of(array, AFFINE)}
    before = entry["ct"].clone()
    out = HounsfieldWindowd("ct", window, offset)(entry)["ct"]
    assert torch.equal(entry["ct"], before) and out.dtype == torch.float32 and out.shape == before.shape
    assert np.allclose(out.affine, before.affine) and out.meta["filename_or_obj"] == "/d/scan.nii.gz"
    return out[0].numpy()


@pytest.mark.parametrize("shift, sigma", [(0, 0), (0, 60), (1000, 0), (1000, 20), (1000, 60), (1024, 0), (1024, 60)])
def test_any_offset_and_padding_comes_out_as_the_same_window(head, shift, sigma):
    ct = (head["ct"] + noise(sigma)).clip(-1024, 3071).round()
    expected = windowed(ct)
    # A few voxels of sinus and skin stay as noisy as they are.
    inside = ct > -500
    assert np.allclose(expected[inside], ((ct[inside] + 1000) / 2000).clip(0, 1), atol=1e-6)
    assert np.all(expected[OUTSIDE] == 0)
    ct[-1, -1, -1] = 3071  # metal
    stored = ct + shift
    cases = [stored.astype(np.int16), *(np.where(OUTSIDE, pad, stored) for pad in (-2048, -3024))]
    unsigned = stored.clip(0) if shift else stored
    for case in (*cases, unsigned.astype(np.float32), np.where(OUTSIDE, 0, unsigned).astype(np.int32)):
        found, said = warned(lambda case=case: windowed(case))
        assert np.allclose(found, expected, atol=1e-6)
        assert len(said) == (shift > 0) and all("scan.nii.gz" in s and f"ct_offset -{shift}" in s for s in said)


def test_other_bodies_and_little_air_are_ct_too_and_a_narrow_peak_1000_above_air_is_not_enough(head):
    cropped = head["ct"][40:110, 40:146, :24]
    assert (cropped < -700).mean() < 0.05 and find_ct_offset(cropped) == 0 and find_ct_offset(cropped + 1024) == -1024
    pelvis, chest = (np.full(SHAPE, -1000.0) for _ in range(2))
    for body in (pelvis, chest):
        body[ellipsoid((72, 72, 0), (70, 50, 1e4))] = -100
        body[ellipsoid((72, 72, 0), (58, 38, 1e4))] = 50
        body[ellipsoid((72, 96, 0), (9, 9, 1e4))] = 500
    for side in (35, 109):
        pelvis[ellipsoid((side, 72, 40), (10, 10, 15))] = 900
        chest[ellipsoid((side, 72, 40), (20, 30, 1e4))] = -850
    for body, sigma in [(pelvis, 10), (pelvis, 50), (chest, 10), (chest, 50)]:
        scan = gaussian_filter(body, 0.6) + noise(sigma)
        assert [find_ct_offset(scan + shift) for shift in (0, 1000, 1024)] == [0, -1000, -1024]
    gel = np.where(ellipsoid((70, 75, 20), (50, 50, 50)), 1040.0, 10.0)
    dim = np.where(X < 60, 600.0, np.where(X > 110, 1500.0, 1040.0)) * (gel > 500)
    for scan in (gel, dim):  # no bone; tissue where CT has none
        assert find_ct_offset(scan + noise(20)) is None


@pytest.mark.parametrize("contrast", ["t1w", "t2w"])
def test_mr_is_no_ct_at_any_scale(head, contrast):
    mr = head[contrast]
    assert all(find_ct_offset(mr * scale) is None for scale in np.geomspace(0.1, 30, 80))
    refused(lambda: windowed(mr), ValueError, "scan.nii.gz", "does not look like CT", " 0 to ", "MR?", "--ct_offset")
    for passing in (mr, mr.astype(np.int16), (mr - mr.mean()) / mr.std(), mr - 3, mr - 300, 30 * mr - 300 * (mr < 20)):
        entry = {"mr": scan_of(passing, AFFINE)}
        assert CheckMRd("mr")(entry)["mr"] is entry["mr"]


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v + 1000, lambda v: (v + 1024).clip(0), lambda v: v / 2])
def test_ct_given_as_mr_is_refused(head, change):
    for kind in (np.float32, np.int16):
        entry = {"mr": scan_of(change(head["ct"]).astype(kind), AFFINE)}
        words = "scan.nii.gz", "CT", "exchanged", "--check_mr False"
        refused(lambda e=entry: CheckMRd("mr")(e), ValueError, *words)


def test_whoever_insists_on_an_offset_gets_it_where_the_window_leaves_something(head):
    vessels = np.where(ellipsoid((70, 70, 40), (4, 4, 30)), 400.0, 0.0)  # a subtraction: air and tissue 0
    refused(lambda: windowed(vessels), ValueError, "does not look like CT")
    assert np.allclose(told(lambda: windowed(vessels, (-100, 900), 0)), (vessels + 100) / 1000, atol=1e-6)
    words = "scan.nii.gz", "nothing", "2500 to 3000 HU", "the values are -10", "--window"
    refused(lambda: windowed(head["ct"], (2500, 3000)), ValueError, *words)
    assert np.allclose(told(lambda: windowed(head["ct"] + 700, offset=-700)), windowed(head["ct"]), atol=1e-6)


def test_without_air_everything_is_body_and_water_in_a_corner_is_no_padding(head):
    brain = head["ct"][50:100, 60:110, :20]
    assert np.allclose(windowed(brain, (-50, 100), 0), ((brain + 50) / 150).clip(0, 1), atol=1e-6)
    padded = windowed(np.where(OUTSIDE, -3024.0, 40.0), (-1100, 900), 0)
    assert np.allclose(padded, np.where(OUTSIDE, 0.05, 0.57), atol=1e-6)
    full = np.where(ellipsoid((72, 72, 40), (10, 10, 10)), -950.0, 40.0)
    full[0, 0, 0] = 0
    assert np.allclose(windowed(full, offset=0), (full + 1000) / 2000, atol=1e-6)


def test_tables_go_and_bodies_stay():
    ear = (abs(X - 112) < 1.5) & (abs(Z - 40) < 10) & (Y > 100) & (Y < 133)  # 3 mm thick, 18 mm long
    body = ellipsoid((40, 80, 0), (32, 35, 1e4)) | ellipsoid((112, 80, 0), (20, 35, 1e4)) | ear
    shells = ((abs(Y - 36) < 2) | (abs(Y - 12) < 2)) & (X > 5)
    foam = (Y > 12) & (Y < 36) & (X > 5) & ~shells
    lung, bubble = ellipsoid((40, 80, 0), (10, 12, 1e4)), ellipsoid((112, 80, 40), (6, 6, 6))
    hu = np.where(body, 40.0, -1000.0)
    hu[shells], hu[foam], hu[lung], hu[bubble] = -100, -920, -850, -950
    hu += noise(20)
    out = windowed(hu, offset=0)
    difference = np.abs(out - ((hu + 1000) / 2000).clip(0, 1).astype(np.float32))
    assert (difference[body | lung | bubble] > 1e-6).mean() < 1e-3 and difference[ear | lung | bubble].max() < 1e-6
    assert np.all(out[Y < 38] == 0) and np.all(out[X < 2] == 0)


def test_refused_and_what_lacks_a_key_that_it_may_lack():
    for window in ((250, -150), (1, 1), (1, 2, 3), (0, float("inf"))):
        refused(lambda w=window: HounsfieldWindowd("ct", w), ValueError, "window", window)
    for offset in ("-1024", True, float("nan")):
        refused(lambda o=offset: HounsfieldWindowd("ct", (0, 1), o), ValueError, "ct_offset", repr(offset))
    for transform in (HounsfieldWindowd("ct", (0, 1), allow_missing_keys=True), CheckMRd("ct", True)):
        assert transform({"other": 1}) == {"other": 1}
    refused(lambda: CheckMRd("ct")({"other": 1}), KeyError, "ct")


def volume(spacing, shape=(6, 6, 6), function=None):
    """Oblique, the third axis mirrored; voxels are a function of their world coordinates, or random."""
    affine = affine_of("RAI", spacing, (20, -15, 35), (-31.5, 17.25, -60.125))
    return scan_of(torch.rand(shape) if function is None else function(world_of(affine, shape)), affine)


def check(spacing, scale, models=None):
    entry = {"lr": volume(spacing)}
    assert CheckThickSlicesd("lr", [1, 1, scale], models)(entry)["lr"] is entry["lr"]


def test_slices_must_fit_the_scale_and_a_result_that_stays_anisotropic_is_warned_of():
    for spacing, scale in (((1, 1, 4), 4), ((0.9, 1, 5), 6), ((1, 1, 1.5), 2), ((0.4, 1, 2), 3), ((1, 0.45, 6), 4)):
        told(lambda spacing=spacing, scale=scale: check(spacing, scale))
    told(lambda: check((1, 1, 2.9), 2))
    told(lambda: check((1, 0.5, 8), 4), "scan.nii.gz", "8 mm", "scale 4", "anisotropic: slices of 2 mm")
    for spacing, scale, *words in [
        ((1, 1, 1), 2, "scan.nii.gz", "slices are 1 mm", "pixels are 1 mm", "isotropic or nearly"),
        ((0.5, 1, 1.4), 2, "isotropic or nearly"),
        ((5, 1, 1), 5, "slices are 1 mm", "pixels are 5 mm", "slice_axis"),
        ((1, 1, 2), 4, "scan.nii.gz", "2 mm", "1 mm", "scale 4", "0.5 mm", '--scale "[1,1,2]"'),
        ((1, 0.8, 3.4), 6, '--scale "[1,1,4]"'),
        ((1, 1, 1.6), 6, '--scale "[1,1,2]"'),
    ]:
        refused(lambda spacing=spacing, scale=scale: check(spacing, scale), ValueError, *words)


def test_weights_that_fit_are_named(tmp_path):
    for name, text in (("model", '{"scale": [1, 1, 4]}'), ("model_2", '{"scale": [1, 1, 2]}'), ("broken", "{")):
        (tmp_path / f"{name}.json").write_text(text)
    refused(lambda: check((1, 1, 2), 4, tmp_path), ValueError, "scale 1x1x2, model_2.pt, ")
    told(lambda: check((1, 1, 4), 2, tmp_path), "anisotropic", "scale 1x1x4, model.pt, ", "slices of 1 mm")
    told(lambda: check((1, 1, 6), 3, tmp_path), "anisotropic", "[1, 1, 6]", f"none in {tmp_path}")
    told(lambda: check((1, 1, 12), 6, tmp_path), "anisotropic")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((0.7, 0.7, 0.7), (1, 1, 1)),
        ((0.45, 0.5, 2.5), (1, 1, 1)),
        ((1.2, 0.3, 1), (0.5, 1, 1.005)),
        ((1, 1, 1), (2, 0.5, 1)),
        ((1.5, 1.2, 2), (1, 1, 1)),
    ],
)
def test_a_function_of_the_world_stays_where_it_is(old, new):
    def smooth(world):
        return np.sin(world @ np.array([0.025, 0.0175, 0.02])) + world @ np.array([0.01, -0.02, 0.015])

    shape = tuple(int(60 / s) | 1 for s in old)  # odd, so that no whole factor divides it
    hr = volume(old, shape, smooth)
    out = ResampleHRd("hr", new)({"hr": hr})["hr"]
    spacing = np.linalg.norm(np.asarray(out.affine)[:3, :3], axis=0)
    changed = np.abs(np.divide(new, old) - 1) > 0.01
    assert np.abs(spacing - np.where(changed, new, old)).max() < 1e-12
    assert (np.abs(np.multiply(out.shape[1:], spacing) - np.multiply(shape, old)) <= 0.9999 * spacing).all()
    # The edge of the field of view stays: the outer corner of the first voxel.
    assert np.abs(np.asarray(out.affine - hr.affine) @ (-0.5, -0.5, -0.5, 1)).max() < 1e-6
    assert out.meta["filename_or_obj"] == "/d/scan.nii.gz" and hr.shape[1:] == shape
    inner = tuple(slice(max(3, n // 6), -max(3, n // 6)) for n in out.shape[1:])
    expected = smooth(world_of(out.affine, out.shape[1:]))[inner]
    # A profile of 2 mm takes this much of the wave; a tenth of a millimetre off would be some times as much.
    assert np.abs(out[0].numpy()[inner] - expected).max() < 6e-4


def test_what_the_coarser_grid_cannot_hold_is_averaged_away_and_a_spacing_that_is_right_changes_nothing():
    stripes = (np.indices((40, 40, 40))[0] % 2).astype(np.float32)
    out = ResampleHRd("hr", (2, 1, 1))({"hr": scan_of(stripes, np.eye(4))})["hr"][0, 3:-3]
    assert out.shape == (14, 40, 40) and (out - 0.5).abs().max() < 0.03
    hr = volume((1, 0.995, 2))
    out = ResampleHRd("hr", (1, 1, 1.99))({"hr": hr})["hr"]
    assert torch.equal(out.as_tensor(), hr.as_tensor()) and np.array_equal(out.affine, hr.affine)
    integers = scan_of((hr.as_tensor()[0] * 1000).short(), hr.affine)
    assert ResampleHRd("hr", (1, 1, 1))({"hr": integers})["hr"].dtype == torch.float32
    for spacing in ((1, 1), (1, 0, 1), (1, 1, float("nan")), 1.0):
        refused(lambda s=spacing: ResampleHRd("hr", s), ValueError, "spacing", spacing)
    for transform in (ResampleHRd("x", (1, 1, 1), True), CheckThickSlicesd("x", [1, 1, 2], allow_missing_keys=True)):
        assert transform({"other": 1}) == {"other": 1}
