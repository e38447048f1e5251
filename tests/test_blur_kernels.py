"""Known kernels against what they stand for, what is said of a kernel, and files of kernels."""

import json
import re

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from skimage.measure import centroid, inertia_tensor
from torch.nn import functional as F

from common.blur_kernels import (
    bicubic_kernel,
    centred,
    describe_kernel,
    drawn_kernels,
    gaussian_kernel,
    kernel_error,
    load_kernels,
    read_kernels,
    save_kernels,
    zero_filling_kernel,
)
from common.degradations import InPlaneKernel, KSpaceTruncation

FWHM = 2 * np.sqrt(2 * np.log(2))


@pytest.mark.parametrize("offset", [0.0, 0.5, -1.3])
def test_gaussians_have_the_moments_that_are_asked_for(offset):
    """Centre and second moments, by skimage, which knows images and nothing of us."""
    kernel = gaussian_kernel((3.0, 1.5), angle=25, size=41, offset=offset)
    assert kernel.shape == (41, 41) and kernel.dtype == torch.float32 and kernel.sum().item() == pytest.approx(1)
    k = kernel.double().numpy()
    assert centroid(k) - 20 == pytest.approx([offset, offset], abs=1e-3)
    cos, sin = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    turn = np.array([[cos, -sin], [sin, cos]])
    moments = turn @ np.diag([9, 2.25]) @ turn.T
    # The inertia tensor has the variance along the other axis on its diagonal.
    found = inertia_tensor(k)
    assert np.trace(found) * np.eye(2) - found == pytest.approx(moments, abs=1e-3)
    torch.testing.assert_close(gaussian_kernel(1.5), gaussian_kernel((1.5, 1.5), 70))


@pytest.mark.parametrize("factor", [2, 3])
def test_bicubic_is_that_of_image_processing(factor):
    """torch's antialiased bicubic; its LR pixels lie in the middle of their HR pixels."""
    offset = (factor - 1) / 2
    hr = torch.rand(1, 36, 42, 1)
    lr = InPlaneKernel(bicubic_kernel(factor, 13, offset), factor, offset)(hr)[0, ..., 0]
    expected = F.interpolate(hr[None, ..., 0], scale_factor=1 / factor, mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(lr[3:-3, 3:-3], expected[3:-3, 3:-3], rtol=0, atol=1e-5)


def test_zero_filling_keeps_a_quarter_of_k_space_under_a_fermi_filter():
    """Written in k-space, of an image that is 0 near its edges: to 2 % of its range, and closer the larger K is."""
    size, factor = 96, 2
    image = gaussian_filter(np.random.default_rng(0).normal(size=(size, size)), 0.7)
    image = image / image.std() * np.pad(np.outer(np.hanning(56), np.hanning(56)), 20)
    truncated = KSpaceTruncation((factor, factor, 1))(torch.from_numpy(image)[None, ..., None])[0, ..., 0].numpy()
    k = 2 * np.fft.fftfreq(size // factor)  # 1 at the edge of what is kept
    fermi = 1 / (1 + np.exp((np.hypot(k[:, None], k) - 1.0) / 0.08))
    expected = np.fft.ifft2(np.fft.fft2(truncated) * fermi).real / fermi[0, 0]

    def error(kernel):
        lr = InPlaneKernel(kernel, factor)(torch.from_numpy(image)[None, ..., None])[0, ..., 0].numpy()
        return np.abs(lr - expected).max() / np.ptp(expected)

    assert error(zero_filling_kernel(factor)) < 0.02 and error(zero_filling_kernel(factor, 81)) < 0.005
    assert (
        error(zero_filling_kernel(factor, 81, width=0.05)) > 0.01 < error(zero_filling_kernel(factor, 81, radius=0.95))
    )


@pytest.mark.parametrize("offset", [0.5, 1.0, -1.5])
def test_zero_filling_moves_with_its_offset(offset):
    """Its centre of mass does, in spite of its long tails; by a whole pixel its taps move."""
    moved, still = zero_filling_kernel(2, offset=offset), zero_filling_kernel(2)
    position = torch.arange(33.0) - 16
    assert (moved.sum(dim=1) @ position).item() == pytest.approx(offset, abs=0.001)
    if offset == 1.0:
        moved, still = (k / k[8:25, 8:25].sum() for k in (moved.roll((-1, -1), (0, 1)), still))
        torch.testing.assert_close(moved[8:25, 8:25], still[8:25, 8:25])


def test_drawn_kernels_are_of_three_kinds():
    """Gaussians in their range at any angle, k-space truncated, and zero filling with its filter; centred, of sum 1."""
    kernels = drawn_kernels(90, 2, seed=1)
    assert kernels.shape == (90, 33, 33) and torch.equal(kernels, drawn_kernels(90, 2, seed=1))
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(90))
    torch.testing.assert_close(kernels, kernels.flip(1, 2), rtol=0, atol=1e-6)
    told = [describe_kernel(kernel) for kernel in kernels]
    gaussians = [about for about in told if about["residual"] < 1e-3]
    sigma = np.array([about["fwhm"] for about in gaussians]) / FWHM
    assert sigma.min() >= 0.6 and 1.7 < sigma.max() <= 2 and np.ptp([about["angle"] for about in gaussians]) > 120
    truncated = zero_filling_kernel(2, width=1e-6, radius=2)
    plain = [torch.allclose(kernel, truncated, atol=1e-6) for kernel in kernels]
    assert 20 < len(gaussians) < 40 and 20 < sum(plain) < 40
    filtered = [k for k, p, about in zip(kernels, plain, told, strict=True) if not p and about["residual"] >= 1e-3]
    assert len({round(kernel.max().item(), 5) for kernel in filtered}) == len(filtered)
    assert all(kernel.max() < truncated.max() for kernel in filtered)
    assert drawn_kernels(2, 3, 5, 21, 0.5).shape == (2, 21, 21)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("angle", [0, 30, 75, 110, 179])
def test_a_gaussian_is_described_by_its_width_angle_and_centre(angle, offset):
    kernel = 1.7 * gaussian_kernel((2.2, 1.1), angle, offset=offset)
    found = describe_kernel(kernel)
    assert found["fwhm"] == pytest.approx([2.2 * FWHM, 1.1 * FWHM], abs=1e-3)
    assert abs((found["angle"] - angle + 90) % 180 - 90) < 0.05 and 0 <= found["angle"] <= 180
    assert found["centre"] == pytest.approx([offset, offset], abs=1e-3)
    assert found["sum"] == pytest.approx(1.7, abs=1e-4) and found["residual"] < 1e-3
    # The shorter sigma first is the same Gaussian, a quarter turn on.
    turned = describe_kernel(gaussian_kernel((1.1, 2.2), angle - 90, offset=offset))
    assert turned["fwhm"] == pytest.approx(found["fwhm"], abs=1e-3)
    assert abs((turned["angle"] - angle + 90) % 180 - 90) < 0.05


def test_the_centre_is_told_axis_by_axis_and_the_residual_is_what_no_gaussian_has():
    kernel = gaussian_kernel(1.5).roll((2, -3), dims=(0, 1))
    assert describe_kernel(kernel)["centre"] == pytest.approx([2, -3], abs=1e-3)
    assert describe_kernel(gaussian_kernel(1.5).numpy())["residual"] < 1e-3
    assert describe_kernel(zero_filling_kernel(2))["residual"] > 0.1


def test_kernel_error_is_relative_and_knows_no_scale():
    truth = gaussian_kernel((2.0, 1.0), 30)
    assert kernel_error(3 * truth, truth) == pytest.approx(0, abs=1e-6)
    assert kernel_error(F.pad(truth, (4,) * 4), truth) == pytest.approx(0, abs=1e-6)
    other = gaussian_kernel(1.5, size=17)
    expected = (other - F.pad(truth, (2,) * 4)).norm() / truth.norm()
    assert kernel_error(other, truth) == pytest.approx(expected.item(), rel=1e-4)


def entries_of(*sizes):
    kernels = [gaussian_kernel(1.0 + 0.1 * i, size=size) for i, size in enumerate(sizes)]
    return [{"volume": f"{i}.nii", "slice": i or None, "kernel": kernel} for i, kernel in enumerate(kernels)]


ABOUT = {"factor": 2, "offset": 0.0, "hr_spacing_mm": [1.0, 1.2]}
TRAINING = {"factor": 2, "offset": 0.0, "hr_spacing": [1.01, 1.2], "volumes": []}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("factor", 3, "its factor is 2, expected 3"),
        ("offset", 0.5, "its offset is 0.0, expected 0.5"),
        ("hr_spacing", [1.5, 1.2], r"its hr_spacing_mm is \[1.0, 1.2\], expected \[1.5, 1.2\]"),
    ],
)
def test_kernels_of_another_kind_are_refused(tmp_path, key, value, said):
    save_kernels(tmp_path / "kernels_1.json", entries_of(5), **ABOUT)
    with pytest.raises(ValueError, match=rf"kernels_1\.json: {said} as in this training"):
        load_kernels(tmp_path, **{**TRAINING, key: value})
    save_kernels(tmp_path / "kernels_1.json", entries_of(5), **{k: v for k, v in ABOUT.items() if k not in key})
    if key != "hr_spacing":
        with pytest.raises(ValueError, match=f"its {key} is None"):
            load_kernels(tmp_path, **TRAINING)


def test_scans_without_a_kernel_are_reported(tmp_path, capsys):
    save_kernels(tmp_path / "kernels_1.json", entries_of(5, 5), **ABOUT)
    assert len(load_kernels(tmp_path, **{**TRAINING, "volumes": ["0.nii", "1.nii"]})) == 2
    assert capsys.readouterr().out == ""
    load_kernels(tmp_path, **{**TRAINING, "volumes": ["0.nii", "7.nii"]})
    assert "no kernel of 7.nii; if their estimation was interrupted" in capsys.readouterr().out


def test_a_kernel_is_moved_to_its_place():
    """A Gaussian that is off by some tenths comes to lie where it should, with its sum; noise stays where it is."""
    for offset in (0.0, 0.5):
        kernel = gaussian_kernel((2.0, 1.2), 40, offset=offset)
        off = torch.from_numpy(ndimage.shift(kernel.double().numpy(), (0.3, -0.4), order=5)).float()
        found = centred(off, offset)
        assert np.abs(np.array(describe_kernel(found)["centre"]) - offset).max() < 0.01
        assert found.sum().item() == pytest.approx(off.sum().item(), rel=1e-5) and found.dtype == off.dtype
        assert kernel_error(found, kernel) < 0.02
    far = gaussian_kernel(1.0, offset=5.0)
    assert torch.equal(centred(far, 0.0), far)


def test_kernels_come_back_from_their_files_in_order(tmp_path):
    entries = entries_of(*[5] * 12)
    for number in range(12):  # 10 comes after 9
        save_kernels(tmp_path / f"kernels_{number + 1}.json", [entries[number]], **ABOUT, note='a "b"')
    found = read_kernels(tmp_path)
    assert [entry["volume"] for entry in found] == [f"{i}.nii" for i in range(12)]
    assert [entry["slice"] for entry in found] == [None, *range(1, 12)]
    assert found[0]["file"] == str(tmp_path / "kernels_1.json")
    kernels = load_kernels(str(tmp_path), **TRAINING)
    torch.testing.assert_close(kernels, torch.stack([e["kernel"] for e in entries]), rtol=0, atol=2e-8)
    assert kernels.dtype == torch.float32
    head = json.loads((tmp_path / "kernels_3.json").read_text())
    assert head["factor"] == 2 and head["note"] == 'a "b"'
    # One row of the kernel is one line of the file, to be edited.
    line = json.dumps([round(float(v), 8) for v in entries[2]["kernel"][1]])
    assert f"\n      {line},\n" in (tmp_path / "kernels_3.json").read_text()
    save_kernels(tmp_path / "kernels_1.json", entries[:2])
    assert [entry["volume"] for entry in read_kernels(tmp_path)][:3] == ["0.nii", "1.nii", "1.nii"]


def test_an_edited_kernel_is_read_with_sum_1(tmp_path):
    kernel = gaussian_kernel(1.0, size=5)
    kernel[2, 2] += 0.008
    save_kernels(tmp_path / "kernels_1.json", [{"volume": "a", "slice": None, "kernel": kernel}], **ABOUT)
    assert torch.allclose(load_kernels(tmp_path, **TRAINING)[0], kernel / kernel.sum(), atol=1e-7)


def _edit(change):
    """The second entry's kernel, as rows of numbers, changed."""

    def edit(text):
        data = json.loads(text)
        data["kernels"][1]["kernel"] = change(data["kernels"][1]["kernel"])
        return json.dumps(data)

    return edit


def _first_tap(value):
    return _edit(lambda rows: [[value, *rows[0][1:]], *rows[1:]])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[:-20], ["not a file of kernels"]),
        (lambda text: "", ["not a file of kernels"]),
        (lambda text: "[1, 2]", ["not a file of kernels"]),
        (lambda text: '{"kernel": []}', ["not a file of kernels"]),
        (lambda text: '{"kernels": 3}', ["not a file of kernels"]),
        (lambda text: '{"kernels": [3]}', ["not a file of kernels"]),
        (_edit(lambda rows: [[2 * v for v in row] for row in rows]), ["kernel 1", "sum is 2", "Divide it"]),
        (_first_tap(float("nan")), ["kernel 1", "not finite"]),
        (_first_tap(float("inf")), ["kernel 1", "not finite"]),
        (_first_tap("0.1x"), ["kernel 1", "not rows of numbers"]),
        (_first_tap(None), ["kernel 1", "not rows of numbers"]),
        (_edit(lambda rows: None), ["kernel 1", "not rows of numbers"]),
        (_edit(lambda rows: "a"), ["kernel 1", "not rows of numbers"]),
        (_edit(lambda rows: [rows[0][:-1], *rows[1:]]), ["kernel 1", "not rows of numbers"]),
        (_edit(lambda rows: rows[:-1]), ["kernel 1", "(4, 5)", "odd square"]),
        (_edit(lambda rows: [row[:-1] for row in rows[:-1]]), ["kernel 1", "(4, 4)", "odd square"]),
        (_edit(lambda rows: rows[0]), ["kernel 1", "(5,)", "odd square"]),
        (_edit(lambda rows: []), ["kernel 1", "odd square"]),
        (_edit(lambda rows: gaussian_kernel(1.0, size=7).tolist()), ["kernel 1", "(7, 7)", "(5, 5)", "pad the"]),
    ],
)  # fmt: skip
def test_an_edited_file_is_refused_by_name_and_entry(tmp_path, edit, said):
    path = tmp_path / "kernels_1.json"
    save_kernels(path, entries_of(5, 5))
    path.write_text(edit(path.read_text()))
    with pytest.raises(ValueError) as error:
        read_kernels(tmp_path)
    assert str(error.value).startswith(str(path))
    assert all(words in str(error.value) for words in said), error.value


def test_mixed_sizes_of_files_and_missing_kernels_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path)) + ".*--stages 1.*--kernel_dir"):
        read_kernels(tmp_path)
    save_kernels(tmp_path / "kernels_1.json", [])
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*hold no kernel"):
        read_kernels(tmp_path)
    save_kernels(tmp_path / "kernels_1.json", entries_of(5))
    save_kernels(tmp_path / "kernels_2.json", entries_of(7))
    with pytest.raises(ValueError, match=r"kernels_2\.json, kernel 0: .*\(7, 7\), but .*kernels_1\.json has \(5, 5\)"):
        read_kernels(tmp_path)
