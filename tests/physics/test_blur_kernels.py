"""Known kernels against what they stand for, what is said of a kernel, and files of kernels."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from skimage.measure import centroid, inertia_tensor
from torch.nn import functional as F

from common.degradations import InPlaneKernel, KSpaceTruncation
from common.physics import blur_kernels
from common.physics.blur_kernels import (
    compute_kernel_error,
    describe_kernel,
    make_gaussian_kernel,
    make_zero_filling_kernel,
    save_kernels,
)

from ..refused import refused

FWHM = 2 * np.sqrt(2 * np.log(2))
ABOUT = {"factor": 2, "offset": 0.0, "hr_spacing_mm": [1.0, 1.2]}
TRAINING = {"factor": 2, "offset": 0.0, "hr_spacing": [1.04, 1.2], "volumes": []}


@pytest.mark.parametrize("offset", [0.0, 0.5, -1.3])
def test_gaussians_have_the_moments_that_are_asked_for(offset):
    """Centre and second moments, by skimage, which knows images and nothing of us."""
    kernel = make_gaussian_kernel((3.0, 1.5), angle=25, size=41, offset=offset)
    assert kernel.shape == (41, 41) and kernel.dtype == torch.float32 and kernel.sum().item() == pytest.approx(1)
    k, cos, sin = kernel.double().numpy(), np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    assert centroid(k) - 20 == pytest.approx([offset, offset], abs=1e-3)
    turn = np.array([[cos, -sin], [sin, cos]])
    # The inertia tensor has the variance along the other axis on its diagonal.
    moments = np.trace(inertia_tensor(k)) * np.eye(2) - inertia_tensor(k)
    assert moments == pytest.approx(turn @ np.diag([9, 2.25]) @ turn.T, abs=1e-3)
    torch.testing.assert_close(make_gaussian_kernel(1.5), make_gaussian_kernel((1.5, 1.5), 70))


@pytest.mark.parametrize("factor", [2, 3])
def test_bicubic_is_that_of_torch_with_lr_pixels_in_the_middle_of_their_hr_pixels(factor):
    offset, hr = (factor - 1) / 2, torch.rand(1, 36, 42, 1)
    lr = InPlaneKernel(blur_kernels.make_bicubic_kernel(factor, 13, offset), factor, offset)(hr)[0, ..., 0]
    expected = F.interpolate(hr[None, ..., 0], scale_factor=1 / factor, mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(lr[3:-3, 3:-3], expected[3:-3, 3:-3], rtol=0, atol=1e-5)


def test_zero_filling_keeps_a_quarter_of_k_space_under_a_fermi_filter():
    """Written in k-space, of an image that is 0 near its edges: to 2 % of its range, and closer the larger K is."""
    image = gaussian_filter(np.random.default_rng(0).normal(size=(96, 96)), 0.7)
    image *= np.pad(np.outer(np.hanning(56), np.hanning(56)), 20) / image.std()
    image = torch.from_numpy(image)[None, ..., None]
    truncated = KSpaceTruncation((2, 2, 1))(image)[0, ..., 0].numpy()
    k = 2 * np.fft.fftfreq(48)  # 1 at the edge of what is kept
    fermi = 1 / (1 + np.exp((np.hypot(k[:, None], k) - 1.0) / 0.08))
    expected = np.fft.ifft2(np.fft.fft2(truncated) * fermi).real / fermi[0, 0]

    def error(**options):
        lr = InPlaneKernel(make_zero_filling_kernel(2, **options), 2)(image)[0, ..., 0].numpy()
        return np.abs(lr - expected).max() / np.ptp(expected)

    assert error() < 0.02 and error(size=81) < 0.005
    assert error(size=81, width=0.05) > 0.01 and error(size=81, radius=0.95) > 0.01


@pytest.mark.parametrize("offset", [0.5, 1.0, -1.5])
def test_the_centre_of_zero_filling_moves_with_its_offset_and_by_a_whole_pixel_its_taps(offset):
    moved, still = make_zero_filling_kernel(2, offset=offset), make_zero_filling_kernel(2)
    assert (moved.sum(dim=1) @ (torch.arange(33.0) - 16)).item() == pytest.approx(offset, abs=0.001)
    if offset == 1.0:
        moved, still = (k / k[8:25, 8:25].sum() for k in (moved.roll((-1, -1), (0, 1)), still))
        torch.testing.assert_close(moved[8:25, 8:25], still[8:25, 8:25])


def test_drawn_kernels_are_of_three_kinds():
    """Gaussians in their range at any angle, k-space truncated, and zero filling with its filter; centred, of sum 1."""
    drawn = blur_kernels.sample_kernels
    kernels = drawn(90, 2, seed=1, size=21)
    assert kernels.shape == (90, 21, 21) and torch.equal(kernels, drawn(90, 2, seed=1, size=21))
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(90))
    torch.testing.assert_close(kernels, kernels.flip(1, 2), rtol=0, atol=1e-6)
    truncated = make_zero_filling_kernel(2, 21, width=1e-6, radius=2)
    others = [kernel for kernel in kernels if not torch.allclose(kernel, truncated, atol=1e-6)]
    told = [describe_kernel(kernel) for kernel in others]
    gaussians = [about for about in told if about["residual"] < 1e-3]
    assert 20 < len(gaussians) < 40 and 50 < len(others) < 70
    sigma = np.array([about["fwhm"] for about in gaussians]) / FWHM
    assert sigma.min() >= 0.6 and 1.7 < sigma.max() <= 2 and np.ptp([about["angle"] for about in gaussians]) > 120
    peaks = [kernel.max().item() for kernel, about in zip(others, told, strict=True) if about["residual"] >= 1e-3]
    assert len({round(peak, 5) for peak in peaks}) == len(peaks) and max(peaks) < truncated.max()
    assert drawn(2, 3, 5, offset=0.5).shape == (2, 33, 33)


@pytest.mark.parametrize(("angle", "offset"), [(0, 0.5), (30, 0.0), (75, 0.5), (110, 0.0), (179, 0.5)])
def test_a_gaussian_is_described_by_its_width_angle_and_centre(angle, offset):
    """The shorter sigma first is the same Gaussian, a quarter turn on."""
    found = describe_kernel(1.7 * make_gaussian_kernel((2.2, 1.1), angle, offset=offset))
    assert found["centre"] == pytest.approx([offset, offset], abs=1e-3)
    assert found["sum"] == pytest.approx(1.7, abs=1e-4) and found["residual"] < 1e-3
    for told in (found, describe_kernel(make_gaussian_kernel((1.1, 2.2), angle - 90, offset=offset))):
        assert told["fwhm"] == pytest.approx([2.2 * FWHM, 1.1 * FWHM], abs=1e-3)
        assert abs((told["angle"] - angle + 90) % 180 - 90) < 0.05 and 0 <= told["angle"] <= 180


def test_centres_are_told_by_axis_and_what_no_gaussian_has():
    assert describe_kernel(make_gaussian_kernel(1.5).roll((2, -3), (0, 1)))["centre"] == pytest.approx(
        [2, -3], abs=1e-3
    )
    assert describe_kernel(make_gaussian_kernel(1.5).numpy())["residual"] < 1e-3
    assert describe_kernel(make_zero_filling_kernel(2))["residual"] > 0.1


def test_kernel_error_is_relative_and_knows_no_scale():
    truth, other = make_gaussian_kernel((2.0, 1.0), 30), make_gaussian_kernel(1.5, size=17)
    for same in (3 * truth, F.pad(truth, (4,) * 4)):
        assert compute_kernel_error(same, truth) == pytest.approx(0, abs=1e-6)
    expected = (other - F.pad(truth, (2,) * 4)).norm() / truth.norm()
    assert compute_kernel_error(other, truth) == pytest.approx(expected.item(), rel=1e-4)


def test_a_kernel_that_is_off_by_some_tenths_is_moved_to_its_place_with_its_sum():
    for offset in (0.0, 0.5):
        kernel = make_gaussian_kernel((2.0, 1.2), 40, offset=offset)
        off = torch.from_numpy(ndimage.shift(kernel.double().numpy(), (0.3, -0.4), order=5)).float()
        found = blur_kernels.centre_kernel(off, offset)
        assert np.abs(np.array(describe_kernel(found)["centre"]) - offset).max() < 0.01
        assert found.sum().item() == pytest.approx(off.sum().item(), rel=1e-5) and found.dtype == off.dtype
        assert compute_kernel_error(found, kernel) < 0.02
    far = make_gaussian_kernel(1.0, offset=5.0)
    assert torch.equal(blur_kernels.centre_kernel(far, 0.0), far)


def save(path, *sizes, **about):
    kernels = [make_gaussian_kernel(1.0 + 0.1 * i, size=size) for i, size in enumerate(sizes)]
    entries = [{"volume": f"{i}.nii", "slice": i or None, "kernel": kernel} for i, kernel in enumerate(kernels)]
    save_kernels(path, entries, **about)
    return entries


def test_kernels_come_back_from_their_files_in_order(tmp_path, capsys):
    """A row of a kernel is a line of the file, to be edited; what is read has sum 1. Scans without one are reported."""
    entries = save(tmp_path / "all.json", *[5] * 12)
    entries[2]["kernel"][2, 2] += 0.008
    for number, entry in enumerate(entries, 1):  # 10 comes after 9
        save_kernels(tmp_path / f"kernels_{number}.json", [entry], **ABOUT, note='a "b"')
    found = blur_kernels.read_kernels(tmp_path)
    assert [(entry["volume"], entry["slice"]) for entry in found] == [(f"{i}.nii", i or None) for i in range(12)]
    assert found[0]["file"] == str(tmp_path / "kernels_1.json") and found[2]["note"] == 'a "b"'
    kernels = blur_kernels.load_kernels(str(tmp_path), **TRAINING | {"volumes": ["0.nii", "1.nii"]})
    assert capsys.readouterr().out == "" and kernels.dtype == torch.float32
    expected = torch.stack([entry["kernel"] / entry["kernel"].sum() for entry in entries])
    torch.testing.assert_close(kernels, expected, rtol=0, atol=2e-8)
    blur_kernels.load_kernels(tmp_path, **TRAINING | {"volumes": ["0.nii", "77.nii"]})
    assert "no kernel of 77.nii;" in capsys.readouterr().out
    text = (tmp_path / "kernels_3.json").read_text()
    assert json.loads(text)["factor"] == 2 and json.loads(text)["note"] == 'a "b"'
    assert f" {json.dumps([round(float(v), 8) for v in entries[2]['kernel'][1]])},\n" in text
    save_kernels(tmp_path / "kernels_1.json", entries[:2])
    assert [entry["volume"] for entry in blur_kernels.read_kernels(tmp_path)][:3] == ["0.nii", "1.nii", "1.nii"]


def test_an_edited_kernel_is_refused_by_file_and_entry(tmp_path):
    path = tmp_path / "kernels_1.json"
    save(path, 5, 5)
    content = json.loads(path.read_text())
    first, *others = rows = content["kernels"][1]["kernel"]
    first_taps = [(float("nan"), "not finite"), (float("inf"), "not finite"), ("0.1x", "not rows"), (None, "not rows")]
    for changed, *words in (
        *[([[tap, *first[1:]], *others], *words) for tap, *words in first_taps],
        ((1.012 * np.array(rows)).tolist(), "sum is 1.012", "Divide it"),
        ([first[:-1], *others], "not rows of numbers"),
        (rows[:-1], "(4, 5)", "odd square"),
        ([row[:-1] for row in rows[:-1]], "(4, 4)", "odd square"),
        (first, "(5,)", "odd square"),
        (make_gaussian_kernel(1.0, size=7).tolist(), "(7, 7)", "(5, 5)", "pad the"),
    ):
        content["kernels"][1]["kernel"] = changed
        path.write_text(json.dumps(content))
        refused(lambda: blur_kernels.read_kernels(tmp_path), ValueError, path, "kernel 1", *words)


def test_folders_without_kernels_with_several_sizes_or_of_another_training_are_refused(tmp_path):
    def read(kind, *words, call=blur_kernels.read_kernels, **options):
        refused(lambda: call(tmp_path, **options), kind, *words)

    read(FileNotFoundError, tmp_path, "--only_stages 1", "--kernel_dir")
    path = tmp_path / "kernels_1.json"
    save(path)
    read(ValueError, tmp_path, "hold no kernel")
    for text in ('{"kernels": [', "[1, 2]", '{"kernel": []}', '{"kernels": 3}', '{"kernels": [3]}'):
        path.write_text(text)
        read(ValueError, path, "not a file of kernels")
    save(path, 5, **ABOUT)
    for key, value, said in (("factor", 3, 2), ("offset", 0.5, 0.0), ("hr_spacing", [1.06, 1.2], [1.0, 1.2])):
        read(ValueError, path, key, f"is {said}", value, call=blur_kernels.load_kernels, **TRAINING | {key: value})
    for key in ABOUT:
        save(path, 5, **{k: v for k, v in ABOUT.items() if k != key})
        read(ValueError, path, f"{key} is None", call=blur_kernels.load_kernels, **TRAINING)
    save(tmp_path / "kernels_2.json", 7)
    read(ValueError, "kernels_2.json, kernel 0", "(7, 7)", path, "(5, 5)")
