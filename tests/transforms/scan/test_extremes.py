"""Fill values, hot voxels and outliers: they are found, set aside and put back, and what is signal is not."""

import warnings
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from scipy import ndimage

from common.degradations import GaussianProfile, KSpaceTruncation
from common.transforms import LoadScand, MakeLRd, RestoreVolumed
from common.transforms.scan.extremes import find_extremes
from tests.bundles import runs
from tests.refused import has, refused
from tests.transforms.grids import doubled, rician, super_resolve, warned

SIZE = (24, 26, 22)
HEAD = rician(runs.phantom(0, SIZE), 8).round()
TOP, BLOCKS = np.quantile(HEAD, 0.999), GaussianProfile((2, 2, 2))
SCATTERED = np.unravel_index(np.random.default_rng(1).choice(np.prod(SIZE), 40, replace=False), SIZE)
BORDER, OTHER, HOLE = np.s_[:4], np.s_[:, :, -3:], np.s_[9:14, 9:14, 9:14]


def keep(seen, volume):
    seen.append(volume)
    return doubled(volume)


@pytest.mark.parametrize(
    ("dtype", "values", "words"),
    [
        ("i2", [(BORDER, -32768)], ["2288 of -32768", "(0-3, 0-25, 0-21)"]),
        ("i2", [(BORDER, -1024)], ["2288 of -1024"]),
        ("i2", [(np.s_[:16], -32768)], ["9152 of -32768"]),
        ("i2", [(BORDER, -32768), (OTHER, 32767)], ["1976 of -32768 and 1872 of 32767"]),
        ("i2", [(BORDER, -32768), (np.s_[-4:], -32767)], ["2288 of -32768 and 2288 of -32767"]),
        ("u2", [(OTHER, 65535)], ["1872 of 65535", "(0-23, 0-25, 19-21)"]),
        ("i4", [(HOLE, -(2**31))], ["125 of -2.147484e+09", "(9-13, 9-13, 9-13)"]),
        ("i2", [(SCATTERED, -32767)], ["40 of -32767"]),
        ("f4", [(np.s_[12, 13, 11], 30 * TOP)], ["1 of ", "(12, 13, 11)"]),
        ("f4", [(np.s_[12, 13, 11], 1e30), (np.s_[1, 1, 1], 3.4e38), (np.s_[2, 2, 2], -1e38)], ["1 of 1e+30"]),
        ("f4", [(SCATTERED, np.linspace(20, 300, 40) * TOP)], ["40 from "]),
    ],
)  # fmt: skip
def test_they_leave_scale_and_network_alone_and_are_put_back(tmp_path, dtype, values, words):
    data, found = HEAD.astype(dtype), np.zeros(SIZE, bool)
    for at, value in values:
        data[at], found[at] = value, True
    for codes, degradation in (("RAS", BLOCKS), ("PIL", KSpaceTruncation((2, 2, 2)))):
        path = runs.save(tmp_path / "scan.nii", data, runs.OBLIQUE, dtype, codes)
        where = runs.save(tmp_path / "found.nii", found, runs.OBLIQUE, "u1", codes)
        seen = []
        image, messages = warned(partial(super_resolve, path, tmp_path, degradation, partial(keep, seen)))
        assert len(messages) == 1 and image.get_data_dtype() == np.dtype(dtype)
        has(messages[0], "scan.nii: voxels far beyond the rest", *(words if codes == "RAS" else words[:1]))
        expected, at = (doubled(torch.from_numpy(nib.load(file).get_fdata())).numpy() for file in (path, where))
        np.testing.assert_array_equal(image.get_fdata()[at > 0], expected[at > 0])
        np.testing.assert_allclose(image.get_fdata()[at == 0], expected[at == 0], atol=1e-3)
        assert seen[0].min() == 0 and seen[0].max() < 2


def test_a_hot_voxel_is_seen_as_its_neighbours_and_degraded_as_such():
    """HR that becomes LR, and the result on the grid of HR; deviations have no such voxels."""
    data = torch.from_numpy(HEAD.astype(np.float32))
    data[12, 13, 11], data[3, 3, 3] = 1e20, -1e20
    entry, _ = warned(lambda: LoadScand("hr", "SI")({"hr": MetaTensor(data, affine=torch.eye(4))}))
    around = np.delete(HEAD[11:14, 12:15, 10:13].ravel(), 13)
    assert entry["hr"][0, 12, 13, 11] * entry["hr"].meta["intensity_range"][1] == pytest.approx(
        np.median(around), rel=1e-5
    )
    entry = MakeLRd("hr", BLOCKS)(entry)
    assert entry["lr"].max() < 2
    result = RestoreVolumed("sr", "lr", BLOCKS)(entry | {"sr": entry["hr"].as_tensor()})["sr"][0]
    least = entry["lr"].min() * TOP  # what is below the scan's smallest is cut off
    np.testing.assert_allclose(result, np.where(data < -1, data, data.clip(float(least))), rtol=1e-2)
    spread = RestoreVolumed("sd", "lr", BLOCKS, deviations=True)(entry | {"sd": entry["hr"].as_tensor()})["sd"]
    assert spread.max() < 2 * TOP


def test_a_fill_value_makes_no_tissue_of_air():
    """Voxels that are not finite in air become air, whatever else the volume holds."""
    data = torch.from_numpy(HEAD.astype(np.float32))
    data[:4], data[-2:, 0] = -32768, torch.nan
    entry, messages = warned(lambda: LoadScand("image", "SI")({"image": MetaTensor(data, affine=torch.eye(4))}))
    has(messages[0], "44 of 13728", "set to 0")
    has(messages[1], "2288 of -32768")
    both = []  # in one batch, of which each has set aside others
    for count in (1, 3):
        data[0, 0, :count] = 1e20
        both.append(warned(lambda: LoadScand("image", "SI")({"image": MetaTensor(data, affine=torch.eye(4))}))[0])
    assert list_data_collate(both)["image"].shape == (2, 1, *SIZE)
    assert entry["image"].min() == 0 and entry["image"].isfinite().all()


@pytest.mark.parametrize(("outside", "dtype"), [(0, "i2"), (0, "f4"), (100, "u2"), (300, "i2")])
def test_regions_that_are_exactly_constant_stay_so(tmp_path, outside, dtype):
    """Around a brain and in the void of an implant, also where the scan is oblique and stored otherwise."""
    away = [(np.arange(n) - n / 2 + 0.5) / (n / 2 - 5) for n in SIZE]
    data = np.where(sum(np.square(np.meshgrid(*away, indexing="ij"))) < 1, HEAD.clip(101), outside)
    data[9:15, 9:15, 8:14] = outside
    data[16:18, 12:14, 11] = outside  # too small to be known
    is_constant = data == outside
    for codes, degradation in (("RAS", BLOCKS), ("PIL", KSpaceTruncation((2, 2, 2)))):
        path = runs.save(tmp_path / "scan.nii", data, runs.OBLIQUE, dtype, codes)
        far = runs.save(
            tmp_path / "far.nii", ndimage.distance_transform_edt(is_constant) >= 2, runs.OBLIQUE, "u1", codes
        )
        image, messages = warned(partial(super_resolve, path, tmp_path, degradation, lambda v: doubled(v) + 0.1))
        found, at = image.get_fdata(), doubled(torch.from_numpy(nib.load(far).get_fdata())).numpy() > 0
        np.testing.assert_array_equal(found[at], outside)
        assert at.sum() > 10_000 and not messages
        seen = doubled(torch.from_numpy(nib.load(path).get_fdata())).numpy()
        inside = (seen != outside) | (seen == outside) & ~at & (found != outside)
        assert (found[inside] > seen[inside]).all() and inside.sum() > 8 * (~is_constant).sum() + 32


@pytest.mark.parametrize(("top", "is_told"), [(0.7, True), (0.6, True), (2, False)])
def test_a_saturated_scan_is_told(tmp_path, top, is_told):
    path = runs.save(tmp_path / "scan.nii", HEAD.clip(0, top * TOP).round(), dtype=np.int16)
    _, messages = warned(partial(super_resolve, path, tmp_path, BLOCKS))
    assert [f"highest value, {round(top * TOP)}" in each for each in messages] == [True] * is_told


def test_what_is_signal_is_not_found():
    rng = np.random.default_rng(0)
    noise = rician(np.zeros((40, 40, 40)), 3)
    sample, point = noise.copy(), np.zeros((30, 30, 30))
    sample[20:29, 20:28, 20:28] += rng.uniform(300, 500, (9, 8, 8))
    point[3, 4, 5:7] = 40, 20
    padded_ct = runs.head_ct(0).clip(-1024)
    padded_ct[:5] = -1024
    for name, volume in {
        "a head": HEAD,
        "8 bits, saturated": (HEAD / TOP * 400).clip(0, 255).round(),
        "standardised, without its background": np.where(HEAD > 100, (HEAD - 400) / 200, -4),
        "inverted": np.where(HEAD == HEAD.max(), -1.8 * TOP, -HEAD),
        "phase": (HEAD / HEAD.max() - 0.5) * 8190,
        "vessels four times as bright": np.where(rng.random(SIZE) < 0.003, 4 * HEAD, HEAD),
        "a small sample in noise": sample,
        "a point": point,
        "steps of few values": np.digitize(HEAD, [1, 400, 600]) ** 6.0,
        "CT": padded_ct,
    }.items():
        assert find_extremes(volume.astype(np.float32)) is None, name


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_integers_near_full_scale_do_not_wrap(tmp_path, dtype):
    info = np.iinfo(dtype)
    data = np.minimum(HEAD / HEAD.max() * float(info.max), np.nextafter(float(info.max), 0)).astype(dtype)
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(data, runs.OBLIQUE, dtype=dtype), path)
    image = super_resolve(path, tmp_path, BLOCKS, lambda v: 1.01 * doubled(v))
    assert np.asarray(image.dataobj).max() == info.max
    expected = (1.01 * doubled(torch.from_numpy(data.astype(float)))).clip(None, info.max)
    np.testing.assert_allclose(image.get_fdata(), expected, rtol=1e-5, atol=0.51)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda v: doubled(v) * torch.nan, ["from nan to nan", "--checkpoint"]),
        (lambda v: doubled(v).log(), ["from -inf to"]),
        (lambda v: 0 * doubled(v), ["from 0 to 0", "--bundle"]),
        (lambda v: 1e-9 * doubled(v), ["is 0 as int16", "float32"]),
    ],
)
def test_a_result_that_is_none_is_not_written(tmp_path, network, words):
    path = runs.save(tmp_path / "scan.nii", HEAD.astype(np.int16), dtype=np.int16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(lambda: super_resolve(path, tmp_path / "out", BLOCKS, network), ValueError, path, *words)
    assert not (tmp_path / "out").exists()
