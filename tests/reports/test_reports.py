"""Reports: what is drawn where, and the numbers of the table."""

import csv
import itertools
import json
import math
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Affine2D
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation
from scipy.ndimage import fourier_shift, gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common import reports
from common.degradations import GaussianProfile, KSpaceTruncation
from common.handlers import EvaluationReport
from common.inferers import ConsistentInferer
from common.lab.tables import comparison
from common.metrics import Metric, compute_psnr, interpolate_bicubic, interpolate_cubic
from common.reports.cohort import describe_gain_over_start
from common.reports.evaluated import METRICS
from common.reports.planes import View, find_foreground, load_panels, save_panels

from ..refused import has, refused

RAS = np.eye(4)
LPIPS = {**METRICS, "lpips": Metric(None, "LPIPS", more_is_better=False)}
AT_VOXELS = ((2, 2, 2), (0.0, 0.0, 0.0))


def _affine_of(codes, shape, spacing):
    ornt, ras_spacing = axcodes2ornt(codes), np.ones(4)
    ras_spacing[ornt[:, 0].astype(int)] = spacing
    return np.diag(ras_spacing) @ np.linalg.inv(inv_ornt_aff(ornt, shape))


def _ball():
    x, y, z = np.ogrid[:24, :28, :32]
    return (((x - 15) ** 2 + (y - 18) ** 2 + (z - 22) ** 2 < 49) * 0.5).astype(np.float32)


def _case(volume, factors=(2, 2, 2)):
    lr = np.ascontiguousarray(volume[tuple(slice(None, None, f) for f in factors)])
    return lr, interpolate_cubic(lr, factors, (0.0, 0.0, 0.0))


def _draw_case(path, lr, cubic, sr, hr, name, scores, affine, factors, offset):
    """The picture of volumes that lie on HR as the degradation puts them."""
    to_lr = affine @ from_matvec(np.diag(np.array(factors, float)), offset)
    volumes = {"LR": (lr, to_lr), "cubic": (cubic, affine), "SR": (sr, affine), "HR": (hr, affine)}
    there = {title: pair for title, pair in volumes.items() if pair[0] is not None}
    images = {title: nib.Nifti1Image(np.asarray(v, np.float32), a) for title, (v, a) in there.items()}
    reports.save_figure(reports.draw_case(images, name, scores), path)


def _saved(folder):
    return json.loads((folder / "table.json").read_text())


def _drawn_points(panel):
    return [line.get_ydata() for line in panel.lines if line.get_marker() == "o"]


def test_error_maps_share_one_scale_that_the_larger_error_fills(tmp_path, figures):
    lr, base = _case(hr := _ball())
    sr = (hr + 0.25 * (base - hr)).astype(np.float32)
    scores = {"cubic": {"psnr": 21.234, "ssim": 0.81234}, "SR": {"psnr": 33.2, "ssim": 0.95}}
    _draw_case(tmp_path / "case.png", lr, base, sr, hr, "case 1", scores, RAS, *AT_VOXELS)
    panels = np.array(figures[0].axes[:18]).reshape(3, 6)
    (limits,) = {panel.images[0].get_clim() for panel in panels[:, 4:].ravel()}
    brightest = max(panel.images[0].get_array().max() for panel in panels[:, 4])
    assert 0.5 * brightest <= limits[1] <= brightest
    assert len({panel.images[0].get_clim() for panel in panels[:, :4].ravel()}) == 1
    for row in panels:
        ratio = row[5].images[0].get_array() / np.maximum(row[4].images[0].get_array(), 1e-6)
        assert ratio.max() == pytest.approx(0.25, abs=1e-3)
    assert "21.23 dB, SSIM 0.8123" in panels[0, 1].get_title() and "33.20 dB, SSIM 0.9500" in panels[0, 2].get_title()
    assert [p.name for p in tmp_path.iterdir()] == ["case.png"]
    _draw_case(tmp_path / "case.png", lr, base, base, None, "x", {}, RAS, *AT_VOXELS)  # without the truth
    assert [panel.get_title().strip() for panel in figures[1].axes[:9]] == ["LR", "cubic", "SR"] + 6 * [""]


class Guided(torch.nn.Module):
    def __init__(self, share):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, lr, guide):
        return torch.nn.functional.interpolate(lr, scale_factor=2) + self.share * guide


class Shifted(torch.nn.Module):
    def forward(self, volume):
        return volume - 0.2


def _evaluated_rows(folder, volumes, evaluated, ranges=None, inferer=None, subject=None, **options):
    def prepare(batch, *_, **__):
        return batch["lr"], batch["hr"], tuple(batch[key] for key in volumes if key == "guide"), {}

    nib.save(nib.Nifti1Image(volumes["hr"][0].numpy(), RAS), path := folder / "a_t2w.nii.gz")
    batch = {k: MetaTensor(v, meta={"filename_or_obj": str(path)}, affine=RAS) for k, v in volumes.items()}
    for key, ends in (ranges or {}).items():
        batch[key].meta["intensity_range"] = torch.tensor(ends, dtype=torch.float64)
    batch |= {} if subject is None else {"subject": subject}
    data = DataLoader(Dataset([{"hr": str(path)}], lambda _: batch), batch_size=1)
    report = EvaluationReport(folder / "out", method="half", **options)
    options = {"prepare_batch": prepare, "inferer": inferer, "val_handlers": [report]}
    SupervisedEvaluator(torch.device("cpu"), data, evaluated, **options).run()
    return {row["method"]: row for row in _saved(folder / "out")["cases"]}


def test_any_network_is_evaluated_beside_the_method_and_given_its_guide(tmp_path, figures):
    """The guide is what LR lacks of HR, so a share of 1 is perfect; some exceeds [0, 1]."""

    def largest_difference(volume, truth):
        assert volume.device == torch.device("cpu") and volume.shape == truth.shape == (1, 1, 24, 28, 32)
        return abs(volume - truth).amax(dim=(2, 3, 4))

    hr = torch.tensor(_ball())[None] + 0.1
    lr = hr[:, ::2, ::2, ::2]
    repeated = lr.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    guide = hr - repeated
    guide[0, 15, 18, 22], hr[0, 15, 18, 22] = 3.0, 0.6 + 3.0
    torch.save(Guided(1.0).state_dict(), tmp_path / "perfect.pt")
    others = {"perfect": str(tmp_path / "perfect.pt"), "a quarter": Guided(0.25)}
    others["repeated"] = {"network": torch.nn.Upsample(scale_factor=2), "inferer": lambda lr, network, _: network(lr)}
    network, degradation = Guided(0.5), KSpaceTruncation((2, 2, 2))
    options = {"network": network, "degradation": degradation, "compare_with": others}
    readied: list = []
    options |= {"metrics": {"largest": largest_difference}, "prepare": lambda net: readied.append(net) or net}
    rows = _evaluated_rows(tmp_path, {"lr": lr, "hr": hr, "guide": guide}, network, **options)
    assert list(rows) == ["cubic", *others, "half"]
    assert [sum(p.item() for p in each.parameters()) for each in readied] == [1, 0.25, 0]  # with its weights
    cost = json.loads((tmp_path / "out" / "cost.json").read_text())
    assert cost["parameters"] == 1 and list(cost["seconds"]) == [rows["half"]["case"]]
    assert cost["seconds"][rows["half"]["case"]] > 0
    assert [Path(source).name.partition(".")[0] for source in cost["sources"]] == [rows["half"]["case"]]
    assert rows["perfect"]["largest"] < 1e-6 < rows["half"]["largest"] < rows["a quarter"]["largest"]
    assert rows["half"]["psnr"] < 40 and (rows["perfect"]["psnr"] is None or rows["perfect"]["psnr"] > 100)
    assert rows["repeated"]["psnr"] == pytest.approx(compute_psnr(repeated, hr.clamp(0, 1)), abs=1e-4)
    panels = np.array(figures[0].axes[:48]).reshape(6, 8)
    assert [p.get_title().split("\n")[0] for p in panels[0]] == ["LR", "guide", "cubic", *others, "half", "HR"]
    drawn = [panel.images[0].get_array() for panel in panels[::2, 1]]
    assert min(d.min() for d in drawn) == 0 and max(d.max() for d in drawn) == 1
    assert drawn[0].shape == panels[0, 7].images[0].get_array().shape
    assert [bool(panel.images) for panel in panels[1]] == [False, False, *[True] * 5, False]
    assert (tmp_path / "out" / "a_t2w_planes.npz").is_file()


@pytest.mark.usefixtures("undrawn")
def test_the_centre_slice_and_the_papers_bicubic(tmp_path):
    """What lies outside of the slice has no part in PSNR and SSIM; without the option all has."""
    hr = torch.rand(1, 24, 28, 13, generator=torch.Generator().manual_seed(0))
    lr = (degradation := GaussianProfile((2, 2, 1)))(hr)
    case = tmp_path, {"lr": lr, "hr": hr}, torch.nn.Upsample(scale_factor=(2, 2, 1))
    plain = _evaluated_rows(*case, degradation=degradation)
    rows = _evaluated_rows(*case, degradation=degradation, score_over="centre_slice")
    assert list(plain) == ["cubic", "half"] and list(rows) == ["cubic", "bicubic", "half"]
    results = [interpolate(lr, (2, 2, 1), (0.5, 0.5, 0)) for interpolate in (interpolate_cubic, interpolate_bicubic)]
    for method, volume in zip(rows, [*results, lr.repeat_interleave(2, 1).repeat_interleave(2, 2)], strict=True):
        error = (volume.clamp(0, 1) - hr)[0, :, :, 6]
        assert rows[method]["psnr"] == pytest.approx(-10 * math.log10(error.square().mean()), abs=1e-4)
        if method in plain:
            assert plain[method]["psnr"] == pytest.approx(compute_psnr(volume.clamp(0, 1), hr), abs=1e-4)
            assert plain[method]["displacement_x"] == rows[method]["displacement_x"]
    comparison.merge_tables(tmp_path / "joint", {"own": [tmp_path / "out"]})  # takes bicubic for what it is
    assert list(_saved(tmp_path / "joint")["summary"]) == ["cubic", "bicubic", "own"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("over", ["volume", "slices", "centre_slice"])
@pytest.mark.parametrize("own_lr", [False, True])
def test_the_scale_of_papers_by_hand(tmp_path, over, own_lr):
    """HR and results in the units of their files over HR's maximum: scikit-image, slice by slice where it is asked for.

    Slices of air do not count, and values below the scan's smallest are cut off as in the file that is saved.
    """
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(1, 24, 28, 13, generator=generator)
    hr[..., :3] *= 0.01
    hr[0, 5, 6, 6] = 2.5  # a vessel
    lr = (degradation := GaussianProfile((2, 2, 1)))(hr) * (0.8 if own_lr else 1)
    ranges = {"hr": (-3.0, 500.0), "lr": (-3.0, 400.0) if own_lr else (-3.0, 500.0)}
    network = torch.nn.Sequential(torch.nn.Upsample(scale_factor=(2, 2, 1)), Shifted())
    options = {"degradation": degradation, "data_range": "maximum", "score_over": over}
    rows = _evaluated_rows(tmp_path, {"lr": lr, "hr": hr}, network, ranges, **options)
    truth, scan = (volume[0].numpy() * (ranges[key][1] + 3) - 3 for key, volume in (("hr", hr), ("lr", lr)))
    result = scan.repeat(2, 0).repeat(2, 1) - 0.2 * (ranges["lr"][1] + 3)
    result = np.maximum(result, scan.min())
    slices = {"volume": [slice(None)], "slices": range(3, 13), "centre_slice": [6]}[over]
    found = []
    for z in slices:
        x, y = truth[..., z] / truth.max(), result[..., z] / truth.max()
        settings = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        mean, local = structural_similarity(x, y, full=True, **settings)
        found.append((peak_signal_noise_ratio(x, y, data_range=1), mean if over == "volume" else local.mean()))
    assert [rows["half"]["psnr"], rows["half"]["ssim"]] == pytest.approx(np.mean(found, axis=0), abs=1e-4)
    assert rows["half"]["data_range"] == "maximum" and rows["half"].get("score_over", "volume") == over


class Given(torch.nn.Module):
    def __init__(self, volume):
        super().__init__()
        self.volume = volume

    def forward(self, lr):
        return self.volume[None]


class SelfTrained(ConsistentInferer):
    """Stands for an inferer that trains on the scan."""

    is_self_trained, seed = True, 7

    def __call__(self, inputs, network):
        return network(inputs)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("over", "scale"), [("volume", "percentile"), ("slices", "maximum")])
def test_psnr_without_the_shift(tmp_path, over, scale):
    """What stands still, as interpolation does, keeps its PSNR; what was moved gets that back; the rest is said."""
    noise, body = np.random.default_rng(0).normal(size=(2, 32, 36, 40)), np.zeros((32, 36, 40))
    body[9:-9, 9:-9, 9:-9] = 1
    hr = (0.5 + gaussian_filter(noise[0], 1.5)) * gaussian_filter(body, 2)
    sr = gaussian_filter(hr, 0.4) + 0.005 * noise[1]
    moved = np.fft.ifftn(fourier_shift(np.fft.fftn(sr), (0.3, -0.2, 0.1))).real
    hr, sr, moved = (torch.tensor(volume, dtype=torch.float32)[None] for volume in (hr, sr, moved))
    lr = (degradation := KSpaceTruncation((2, 2, 2)))(hr)
    options = {"degradation": degradation, "compare_with": {"still": Given(sr), "flat": Given(0 * sr + 0.1)}}
    options |= {"score_over": over, "data_range": scale, "inferer": SelfTrained(SimpleInferer(), degradation)}
    ranges = {"hr": (0.0, 1.0), "lr": (0.0, 1.0)}
    rows = _evaluated_rows(tmp_path, {"lr": lr, "hr": hr}, Given(moved), ranges, subject="anna", **options)
    for method in ("cubic", "still"):
        assert abs(rows[method]["displacement_x"]) < 0.03 and rows[method]["psnr_registered"] == rows[method]["psnr"]
    assert rows["half"]["psnr"] < rows["still"]["psnr"] - 1
    assert rows["half"]["psnr_registered"] == pytest.approx(rows["still"]["psnr"], abs=0.3)
    assert rows["flat"]["psnr_registered"] is None
    assert {row["person"] for row in rows.values()} == {"anna"}
    assert rows["half"].items() > {"seed": 7, "iterations": 8, "precision": "float32"}.items()
    assert rows["half"]["machine"] and rows["half"]["seconds"] >= 0 and rows["still"]["seed"] is None


@pytest.mark.parametrize("codes", ["PIL", "LPS"])
def test_heads_are_upright_in_their_proportions_whatever_the_orientation(tmp_path, figures, codes):
    """A spot right, anterior and superior of the middle is drawn on the left and up; millimetres are square."""
    axes, spacing = axcodes2ornt(codes)[:, 0].astype(int), np.array([1.0, 1.5, 3.0])
    shape = np.array([16, 20, 24])[axes]
    affine = _affine_of(codes, shape, spacing[axes])
    hr = np.pad(np.full(shape - 4, 0.5, np.float32), 2, constant_values=0.05)
    found = np.rint(apply_affine(np.linalg.inv(affine), np.array([[11, 14, 17], [8, 10, 12]]) * spacing)).astype(int)
    hr[tuple(slice(min(ends) - 2, max(ends) + 2) for ends in found.T)] = 1.0
    lr, base = _case(hr, factors := tuple(2 if a == 0 else 1 for a in axes))
    _draw_case(tmp_path / "case.png", lr, base, base, hr, codes, {}, affine, factors, (0.0, 0.0, 0.0))
    picture, panels = imread(tmp_path / "case.png")[..., 2], np.array(figures[0].axes[:18]).reshape(3, 6)
    for panel in panels[:, [0, 3]].ravel():
        box = panel.get_position().transformed(Affine2D().scale(picture.shape[1], picture.shape[0]))
        pixels = picture[::-1][int(box.y0) + 2 : int(box.y1) - 2, int(box.x0) + 2 : int(box.x1) - 2]
        inner = tuple(slice(n // 8, -n // 8) for n in pixels.shape)  # without the yellow letters at the edges
        y, x = (np.argwhere(pixels[inner] > 0.9).mean(axis=0) / pixels[inner].shape).tolist()
        assert x < 0.48 and y > 0.52 and panel.get_aspect() == 1.0, (codes, panel.get_title(), x, y)
    for panel, (left, top, right, bottom) in zip(panels[:, 0], ("RALP", "RSLI", "ASPI"), strict=True):
        letters = {text.get_text(): text.get_position() for text in panel.texts if len(text.get_text()) == 1}
        assert letters[left][0] < 0.1 and letters[right][0] > 0.9 and letters[left][1] == letters[right][1] == 0.5
        assert letters[bottom][1] < 0.1 and letters[top][1] > 0.9 and letters[top][0] == letters[bottom][0] == 0.5
    coronal = panels[1, 3].images[0]  # R-L by I-S
    left, right, low, high = coronal.get_extent()
    np.testing.assert_allclose([high - low, right - left] / np.array(coronal.get_array().shape), [3.0, 1.0])


@pytest.mark.parametrize("codes", ["RAS", "PIL", "LSA"])
def test_lr_voxels_are_drawn_where_they_are_in_the_world(codes):
    hr_shape, lr_shape, factors, offset = (12, 10, 9), (6, 10, 3), (2, 1, 3), (0.5, 0.0, 0.0)
    affine, voxel = _affine_of(codes, hr_shape, (1.0, 2.0, 0.5)), (4, 7, 1)
    to_lr = from_matvec(np.diag(np.array(factors, float)), offset)
    frame = affine @ inv_ornt_aff(io_orientation(affine), hr_shape)
    point, marker = apply_affine(np.linalg.inv(frame) @ affine @ to_lr, voxel), np.zeros(lr_shape)
    marker[voxel] = 1
    whole = tuple(slice(0, round(n)) for n in np.abs(np.linalg.solve(frame, affine)[:3, :3]) @ hr_shape)
    panel = View(frame, tuple(int(p) for p in np.floor(point + 0.5)), whole).cut_panel(marker, affine @ to_lr)
    for plane, normal in zip(panel.planes, (2, 1, 0), strict=True):
        (index,) = np.argwhere(plane)  # the plane goes through the voxel
        edges = np.delete(panel.edges, normal, axis=0)
        drawn = edges[:, 0] + (index + 0.5) * np.ptp(edges, axis=1) / plane.shape
        np.testing.assert_allclose(drawn, np.delete(point * np.diag(frame)[:3], normal), atol=1e-9)
    # Of a box, all LR voxels are drawn that reach into it, and no others.
    box = (slice(3, 8), slice(2, 6), slice(1, 5))
    edges = View(frame, (5, 4, 3), tuple(box)).cut_panel(marker, affine @ to_lr).edges / voxel_sizes(frame)[:, None]
    corners = np.stack(np.meshgrid(*[np.arange(n + 1) - 0.5 for n in lr_shape], indexing="ij"), -1)
    corners = apply_affine(np.linalg.inv(frame) @ affine @ to_lr, corners).reshape(-1, 3)
    for axis, (part, drawn) in enumerate(zip(box, edges, strict=True)):
        ends = np.unique(corners[:, axis].round(6))
        seen = (ends[1:] > part.start - 0.5 + 1e-3) & (ends[:-1] < part.stop - 0.5 - 1e-3)
        np.testing.assert_allclose(drawn, [ends[:-1][seen].min(), ends[1:][seen].max()], atol=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPI"])
def test_methods_see_a_case_alike_whatever_they_cut_off_and_however_they_order_axes(tmp_path, codes):
    """HR is cut at its far ends, which lie low in R, A, S where axes are flipped."""
    shape, spacing = (25, 29, 35), np.array([1.0, 1.5, 2.0])
    hr = np.random.default_rng(0).random(shape).astype(np.float32) * 0.1
    hr[6:22, 5:29, 4:35] += 0.8
    affine = _affine_of(codes, shape, spacing)
    nib.save(nib.Nifti1Image(hr, affine), tmp_path / "hr.nii.gz")
    view = View.from_file(tmp_path / "hr.nii.gz")
    truth = view.cut_panel(hr, affine)
    other = view.cut_panel(hr[:24, :28, :32].transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])
    save_panels(tmp_path / "planes.npz", {"HR": truth, "a/b": other})
    read = load_panels(tmp_path / "planes.npz")
    assert list(read) == ["HR", "a/b"]
    missing = np.rint((other.edges - truth.edges) / spacing[:, None]).astype(int)
    np.testing.assert_allclose(other.edges - truth.edges, missing * spacing[:, None], atol=1e-5)
    for normal, whole, part, again in zip((2, 1, 0), truth.planes, other.planes, read["a/b"].planes, strict=True):
        ends = zip(whole.shape, np.delete(missing, normal, 0), strict=True)
        np.testing.assert_array_equal(whole[tuple(slice(low, n + high) for n, (low, high) in ends)], part)
        np.testing.assert_array_equal(part, again)
    assert np.abs(missing).max() == 3


def test_planes_go_through_an_object_away_from_the_middle():
    volume = np.random.default_rng(0).random((40, 50, 60)).astype(np.float32) * 0.05
    volume[30:36, 4:10, 50:58] += 0.8
    centre, box = find_foreground(volume)
    assert all(low <= c < high for c, (low, high) in zip(centre, ((30, 36), (4, 10), (50, 58)), strict=True))
    assert box == (slice(28, 38), slice(2, 12), slice(48, 60))
    assert find_foreground(np.zeros((4, 4, 4)))[1] == (slice(0, 4),) * 3


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    ("factors", "offset", "ends"),
    [((1, 2, 4), (0.0, 0.5, 1.5), "inferior to superior"), ((4, 2, 2), (0.0, 0.0, 0.0), "right to left")],
)
def test_line_profile_draws_lr_samples_where_they_lie(factors, offset, direction, ends):
    """On a ramp all lie on one straight line; right is on the left, superior on the right."""
    shape, axis = np.array([16, 16, 32]), int(np.argmax(factors))
    affine, along = np.diag([1.0, 1.0, 1.5, 1.0]), [-1 if a == axis else 1 for a in range(3)]
    affine[axis, axis] *= direction
    samples = (np.arange(shape[axis] // factors[axis]) * factors[axis] + offset[axis]) / 40
    ramp = np.broadcast_to((np.arange(shape[axis]) / 40).reshape(along), shape)
    lr = np.broadcast_to(samples.reshape(along), shape // factors)
    frame = affine @ inv_ornt_aff(io_orientation(affine), shape)
    view = View(frame, tuple(shape // 2), tuple(slice(0, n) for n in shape))
    images = {"LR": view.cut_panel(lr, affine @ from_matvec(np.diag(np.array(factors, float)), offset))}
    images |= {name: view.cut_panel(ramp + more, affine) for name, more in (("cubic", 0), ("SR", 0.1), ("HR", 0))}
    plot = reports.draw_panels("ramp$x^{$", images, {}, {}).axes[-1]  # a name that looks like a formula
    curves = {line.get_label(): line.get_xydata() for line in plot.lines}
    slope = 1 / 40 / affine[axis, axis] * (-1 if ends == "right to left" else 1)
    start = 0 if direction > 0 else (shape[axis] - 1) / 40
    for label, shift in (("LR", 0), ("HR", 0), ("cubic", 0), ("SR", 0.1)):
        np.testing.assert_allclose(curves[label][:, 1], start + slope * curves[label][:, 0] + shift, atol=1e-9)
    assert plot.get_xlabel().endswith(ends) and len(curves["LR"]) == len(samples)


@pytest.mark.parametrize(("factors", "end"), [((1, 1, 6), np.inf), ((2, 2, 2), np.inf), ((1, 1, 6), 10)])
def test_the_zoom_is_where_tissue_differs_in_a_plane_that_became_finer(factors, end):
    """Not at the rim, where the difference is greater, nor in noise, nor where the scan ends before the result."""
    shape, spacing = np.array([96, 108, 90]), np.array([1.5, 1.0, 1.0])
    x, y, z = np.meshgrid(*((np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    radius = np.sqrt((x / 62) ** 2 + (y / 47) ** 2 + (z / 39) ** 2)
    draw = np.random.default_rng(0)
    cubic = np.where(radius < 1, 0.5, 0.02) + 0.03 * draw.standard_normal(shape)
    rim = 0.5 * ((radius > 0.95) & (radius < 1.05))
    detail = 0.15 * ((np.abs(x) < 2) & (np.abs(y + 14) < 6) & (np.abs(z - 9) < 6))
    sr = cubic + rim + detail + 0.03 * draw.standard_normal(shape) * (y > 0)
    cubic *= y < end
    affine, lr = np.diag([*spacing, 1.0]), cubic[tuple(slice(None, None, f) for f in factors)]
    volumes = {"LR": (lr, affine @ np.diag([*factors, 1])), "cubic": (cubic, affine), "SR": (sr, affine)}
    images = {title: nib.Nifti1Image(v.astype(np.float32), a) for title, (v, a) in volumes.items()}
    figure = reports.draw_case(images, "x", {})
    panels = np.array(figure.axes[:12]).reshape(4, 3)
    (row,) = (number for number in range(3) if panels[number, 0].patches)
    across = [("x", "y"), ("x", "z"), ("y", "z")][row]
    assert row != 0 or factors == (2, 2, 2)
    place = {"x": 0, "y": -14, "z": 9}
    shown = np.array([sorted(ends()) for ends in (panels[3, 0].get_xlim, panels[3, 0].get_ylim)])
    centre = shape / 2 * spacing
    for axis, (low, high) in zip(across, shown, strict=True):
        at = place[axis] + centre["xyz".index(axis)] - images["SR"].affine[0, 3]
        grid = View.from_volume(lr, volumes["LR"][1]).affine[:3, 3]["xyz".index(axis)]
        assert low < at - grid < high, (axis, low, at, high)
    for panel in panels[row]:  # a box of the zoom's size on each volume, and a quarter of the plane
        box = panel.patches[0]
        np.testing.assert_allclose([box.get_x(), box.get_y()], shown[:, 0])
        assert 4 * box.get_width() == pytest.approx(np.ptp(panel.get_xlim())) and box.get_width() == box.get_height()
    assert len({panel.images[0].get_clim() for panel in panels[3]}) == 1
    curves = {line.get_label(): line.get_ydata() for line in figure.axes[-1].lines}
    assert list(curves) == ["LR", "cubic", "SR"] and (curves["SR"] - curves["cubic"]).max() > 0.1


@pytest.mark.parametrize(("shape", "count"), [((24, 24, 24), 1), ((80, 80, 4), 4), ((6, 80, 80), 4)])
def test_labels_are_apart(shape, count):
    """Whatever the proportions of the volume, and however many methods with whatever names there are."""
    methods = [f"a method with a rather long name, {i}" for i in range(count)]
    volume = np.random.default_rng(0).random(shape)
    view = View.from_volume(volume, RAS)
    hr = view.cut_panel(volume, RAS)
    images = {"LR": hr, "cubic": hr, **dict.fromkeys(methods, hr), "HR": hr}
    errors = {title: reports.compute_error_panel(hr, hr) for title in ("cubic", *methods)}
    scores = {title: {"psnr": 30.0, "ssim": 0.9} for title in errors}
    figure = reports.draw_panels("a name longer than the picture is wide " * 5, images, errors, scores)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = {label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in ticks]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    texts = [text for text, box in zip(texts, boxes, strict=True) if box.width > 1]  # others are not drawn
    boxes = [box for box in boxes if box.width > 1]
    for (one, first), (other, second) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not first.overlaps(second), (one.get_text(), other.get_text())
    assert all(figure.bbox.x0 <= b.x0 and b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in boxes)


def _rows():
    cubic, sr = [(30.0, 0.9), (32.0, 0.8), (37.0, 0.7)], [(31.0, 0.95), (math.nan, 0.85), (math.inf, 0.75)]
    return [
        {"case": f"case{i}", "method": method, "psnr": psnr, "ssim": ssim}
        | {"displacement_x": 0.0, "displacement_y": 0.25 * i, "displacement_z": math.nan}
        for method, scores in (("cubic", cubic), ("sr", sr))
        for i, (psnr, ssim) in enumerate(scores)
    ]


def test_table_by_hand(tmp_path, figures):
    text = reports.write_table(tmp_path / "new", _rows())
    read = list(csv.DictReader((tmp_path / "new" / "table.csv").open(newline="")))
    assert [(r["case"], r["method"]) for r in read] == [(r["case"], r["method"]) for r in _rows()]
    assert float(read[2]["psnr"]) == 37.0 and math.isnan(float(read[4]["psnr"]))
    lines, table = text.splitlines(), _saved(tmp_path / "new")
    cubic, sr = table["summary"].values()
    # (30, 32, 37): mean 33, squared deviations 9 + 1 + 16 = 26, over n - 1 = 13.
    assert cubic["psnr"] == {"mean": pytest.approx(33.0), "sd": pytest.approx(math.sqrt(13.0)), "n": 3}
    assert [sr[k] for k in ("psnr", "displacement_z")] == [{"mean": None, "sd": None, "n": n} for n in (2, 0)]
    assert table["cases"][4]["psnr"] is None and table["cases"][1]["ssim"] == 0.8
    assert lines[2].split()[:5] == ["cubic", "3", "33.00", "+-", "3.61"]
    assert re.split("  +", lines[0].strip()) == ["method", "cases", "PSNR (dB)", "SSIM"], "others are in the files"
    assert lines[3].startswith("sr") and lines[3].endswith("0.8500 +- 0.1000")
    assert cubic["displacement_y"] == {"mean": 0.25, "sd": 0.25, "n": 3} and len({len(line) for line in lines}) == 1
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"table.csv", "table.json"}
    single = reports.write_table(tmp_path, _rows()[:1])
    assert "30.00" in single and "+-" not in single
    reports.draw_box_plots(tmp_path / "box.png", _rows())  # draws every case and no NaN
    panels = figures[0].axes
    np.testing.assert_array_equal(np.sort(_drawn_points(panels[0])[0]), [30, 32, 37])
    assert np.nansum(_drawn_points(panels[0])[1]) == 31
    boxes = [box.get_path().vertices for box in panels[0].patches]
    assert not any(np.isfinite(box).all() for box in boxes), "of three cases there are points alone"
    five = [{**row, "case": f"{row['case']} {i}"} for i in range(5) for row in _rows()[:4:3]]
    reports.draw_box_plots(tmp_path / "box.png", five)
    boxes = [box.get_path().vertices for box in figures[1].axes[0].patches]
    assert all(np.isfinite(box).all() for box in boxes)
    assert panels[2].get_ylim() == panels[3].get_ylim() and panels[3].get_ylim()[1] >= 0.5
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ["cubic", "sr"]
    row = {**_rows()[0], "case": "m\udcfcller", "method": "a$x^{$"}  # no UTF-8, and what looks like a formula
    reports.write_table(tmp_path, [row])
    reports.draw_box_plots(tmp_path / "box.png", [row])
    assert "\nm\\udcfcller,a$x^{$,30.0" in (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert _saved(tmp_path)["cases"][0]["case"] == "m\udcfcller"


def test_a_table_has_a_further_metric_where_its_rows_have_it(tmp_path, figures):
    rows = [{**row, "lpips": 10.0 + 2 * i} for i, row in enumerate(_rows())]
    lines = reports.write_table(tmp_path, rows, LPIPS).splitlines()
    cells = [re.split("  +", line.strip())[-1] for line in lines[:-1]]
    assert (cells[0], *cells[2:]) == ("LPIPS", "12.0000 +- 2.0000", "18.0000 +- 2.0000")
    assert _saved(tmp_path)["metrics"].keys() == {"lpips"}
    assert "metrics" not in _saved(_table_of_run(tmp_path / "plain", {"a": 31.0}))
    assert _saved(tmp_path)["summary"]["sr"]["lpips"] == {"mean": 18.0, "sd": 2.0, "n": 3}
    assert next(csv.reader((tmp_path / "table.csv").open()))[-1] == "lpips"
    reports.draw_box_plots(tmp_path / "box.png", rows, LPIPS)
    panels = {panel.get_title(): panel for panel in figures[0].axes}
    np.testing.assert_array_equal(_drawn_points(panels["LPIPS"]), [[10, 12, 14], [16, 18, 20]])
    assert panels["shift x (voxel)"].get_ylim()[1] < 1 < 10 < panels["LPIPS"].get_ylim()[1], "shifts share a scale"


def test_a_table_says_how_psnr_and_ssim_are_taken_where_that_is_not_by_default(tmp_path):
    default = {"data_range": "percentile", "score_over": "volume"}
    plain = reports.write_table(tmp_path / "plain", rows := [{**row, **default} for row in _rows()])
    assert plain == reports.write_table(tmp_path / "silent", _rows())
    assert (tmp_path / "plain" / "table.csv").read_bytes() == (tmp_path / "silent" / "table.csv").read_bytes()
    others = [{**row, "data_range": "maximum"} for row in rows]
    has(reports.write_table(tmp_path / "maximum", others), plain, "data_range maximum")
    assert {row["data_range"] for row in csv.DictReader((tmp_path / "maximum" / "table.csv").open())} == {"maximum"}
    assert "score_over" not in (tmp_path / "maximum" / "table.csv").read_text()
    comparison.merge_tables(tmp_path / "joint", {"own": [tmp_path / "maximum"]})
    assert _saved(tmp_path / "joint")["cases"][-1]["data_range"] == "maximum"
    mixed = {"own": [tmp_path / "maximum"], "other": [tmp_path / "silent"]}
    refused(
        lambda: comparison.merge_tables(tmp_path / "mixed", mixed), ValueError, "data_range", "maximum", "percentile"
    )


def _table_of_run(folder, psnr_by_case, base=30.0):
    shifts = {f"displacement_{axis}": math.nan for axis in "xyz"}
    pairs = [(case, pair) for case, value in psnr_by_case.items() for pair in (("cubic", base), ("own", value))]
    rows = [{"case": case, "method": method, "psnr": p, "ssim": 0.9, **shifts} for case, (method, p) in pairs]
    reports.write_table(folder, rows)
    return folder


@pytest.mark.parametrize(("psnr", "said"), [(30.06, "yes"), (30.04, "not trained"), (29.94, "below start")])
def test_a_row_and_its_start(psnr, said):
    assert describe_gain_over_start(psnr, 30.0) == said


def test_runs_are_joined_and_stand_below_the_interpolation_of_their_own_input(tmp_path):
    """Folds are pooled; B and D have another LR than A and C; only B has a further score."""
    folders = {
        "A": [_table_of_run(tmp_path / "1", {"a": 31.0, "b": 33.0}), _table_of_run(tmp_path / "2", {"c": 35.0})],
        "B": [_table_of_run(tmp_path / "B", {"a": 21.0, "b": 21.0, "c": math.inf}, 20.0)],
        "C": [_table_of_run(tmp_path / "C", {"b": 32.0, "a": 34.0, "c": 36.0}, 30.0 + 1e-5)],
        "D": [_table_of_run(tmp_path / "D", {"a": 22.0, "b": 22.0, "c": 22.0}, 20.0)],
    }
    rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in _saved(tmp_path / "B")["cases"]]
    reports.write_table(tmp_path / "B", [{**row, "lpips": 0.1} for row in rows], LPIPS)
    text, summary = comparison.merge_tables(tmp_path / "out", folders), _saved(tmp_path / "out")["summary"]
    expected = [("cubic", 30, 0, 3, 0), ("A", 33, 2, 3, 0), ("C", 34, 2, 3, 0)]
    expected += [("cubic (B)", 20, 0, 3, 3), ("B", 21, 0, 2, 3), ("D", 22, 0, 3, 0)]
    assert [(name, *row["psnr"].values(), row["lpips"]["n"]) for name, row in summary.items()] == expected
    has(text, "33.00 +- 2.00", "\n  A; C\n  B; D\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"table.csv", "table.json", "boxplots.png"}
    assert "A; C" not in comparison.merge_tables(tmp_path / "out", {name: folders[name] for name in "AC"})


def _planes(folder, hr, lr, share, factors):
    """What an evaluation leaves of the case "a" and a method that gives a share of HR."""
    view = View.from_volume(hr, RAS)
    volumes = {"cubic": interpolate_cubic(lr, factors, (0.0, 0.0, 0.0)), "own": hr * np.float32(share), "HR": hr}
    panels = {name: view.cut_panel(volume, RAS) for name, volume in volumes.items()}
    save_panels(folder / "a_planes.npz", {"LR": view.cut_panel(lr, np.diag([*factors, 1])), **panels})


def test_a_case_of_several_runs_is_one_picture(tmp_path, figures):
    """A, C and the folds have one LR, B has another, and one method left no planes."""
    coarse, fine = _case(hr := _ball())[0], _case(hr, (2, 2, 1))[0]
    spec = {"A": (coarse, 0.9, (2, 2, 2), 30), "B": (fine, 0.8, (2, 2, 1), 20), "C": (coarse, 0.5, (2, 2, 2), 30)}
    folders = {}
    for name, (lr, share, factors, base) in spec.items():
        folders[name] = [_table_of_run(tmp_path / name, {"a": base + 10 * share}, base)]
        _planes(tmp_path / name, hr, lr, share, factors)
    folders["no planes"] = [_table_of_run(tmp_path / "none", {"a": 33})]
    folders["folds"] = [_table_of_run(tmp_path / "1", {"b": 33.0}, 25), _table_of_run(tmp_path / "2", {"a": 37.0})]
    _planes(tmp_path / "2", hr, coarse, 0.7, (2, 2, 2))
    has(comparison.merge_pictures(tmp_path / "out", folders), "pictures: 1", "none for no planes; folds")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png"]
    panels = np.array(figures[0].axes[:54]).reshape(6, 9)
    titles = [panel.get_title().strip().split("\n") for panel in panels[0]]
    assert [title[0] for title in titles] == ["LR", "cubic", "A", "C", "folds", "LR (B)", "cubic (B)", "B", "HR"]
    assert titles[2][1] == "39.00 dB, SSIM 0.9000" and titles[6][1] == "20.00 dB, SSIM 0.9000"
    lrs = [[panels[row, column].images[0].get_array().shape for row in (0, 2)] for column in (0, 5)]
    assert lrs[0][0] == lrs[1][0] and lrs[0][1][0] < lrs[1][1][0]
    assert len({panel.images[0].get_clim() for panel in panels[::2].ravel()}) == 1
    errors = [panel for panel in panels[1::2].ravel() if panel.images]
    assert len(errors) == 3 * 6 and len({panel.images[0].get_clim() for panel in errors}) == 1
    for column, share in ((2, 0.9), (3, 0.5), (4, 0.7), (7, 0.8)):
        for row in (0, 2, 4):
            shown, truth = (panels[row, c].images[0].get_array() for c in (column, 8))
            np.testing.assert_allclose(shown, share * truth, atol=1e-6)
            np.testing.assert_allclose(panels[row + 1, column].images[0].get_array(), (1 - share) * truth, atol=1e-6)
    profile = figures[0].axes[-1]
    curves = {line.get_label(): line.get_xydata() for line in profile.lines}
    assert list(curves) == ["LR", "cubic", "A", "C", "folds", "cubic (B)", "B", "HR"]
    places, values = curves["HR"].T  # on a line through the ball, on which everybody's curve and dots lie
    assert np.abs(np.diff(values)).max() == pytest.approx(0.5)
    for name, share in (("A", 0.9), ("C", 0.5), ("folds", 0.7), ("B", 0.8)):
        np.testing.assert_allclose(curves[name], np.stack([places, share * values], axis=1), atol=1e-6)
    assert all(value == values[np.argmin(np.abs(places - place))] for place, value in curves["LR"])
    other = {"folds": folders["folds"][:1], "A": folders["A"], "B": folders["B"]}  # the first lacks this case
    has(comparison.merge_pictures(tmp_path / "other", other), "none for folds")
    assert [c.get_label() for c in figures[1].axes[-1].lines] == ["LR (A)", "cubic (A)", "A", "cubic (B)", "B", "HR"]


def test_loss_curves_of_a_resumed_run(tmp_path, figures):
    entry = '{{"iteration": {}, "epoch": 1, "generator/l1": {}, "lr_discriminator/lsgan": {}}}'
    lines = [entry.format(i, 10 / i, -0.5) for i in range(1, 101)]
    lines.append('{"iteration": 101, "epo')  # killed here, resumed from iteration 80
    lines += [entry.format(i, 5.0, "NaN" if i == 90 else 0.5) for i in range(81, 91)]
    lines.append('{"iteration": 90, "validation/psnr": 30.5}')
    (tmp_path / "history.jsonl").write_text("\n".join(lines) + "\n")
    reports.draw_loss_curves(tmp_path / "loss.png", tmp_path / "history.jsonl")
    l1, lsgan, validation = figures[0].axes[:3]
    raw = dict(l1.lines[0].get_xydata())
    assert raw[80] == 10 / 80 and raw[85] == 5.0 and len(raw) == 100
    assert l1.get_yscale() == "log" and lsgan.get_yscale() == "linear"
    assert "1 not finite" in lsgan.get_title() and "not finite" not in l1.get_title()
    np.testing.assert_array_equal(validation.lines[0].get_xydata(), [[90, 30.5]])
    (tmp_path / "one.jsonl").write_text('{"iteration": 1, "epoch": 1, "generator/l1": 0.1}\n')
    reports.draw_loss_curves(tmp_path / "one.png", tmp_path / "one.jsonl")
    assert figures[1].axes[0].lines[0].get_marker() == "o", "a line of one point is not seen"


def test_feature_maps_show_the_same_most_varied_channels_on_common_scales(tmp_path, figures):
    maps = np.random.default_rng(0).normal(size=(2, 5, 12, 14)) * np.array([0.1, 3, 0.1, 2, 1])[:, None, None]
    image = _ball()[:, :, 22]
    groups = [{"image": image, "lr": image[::2, ::2], "features": m, "affine": RAS} for m in (maps[0], maps[1] + 4)]
    reports.draw_feature_maps(tmp_path / "maps.png", *groups)
    panels = np.array(figures[0].axes[:10]).reshape(2, 5)
    for (source, target), channel in zip(panels.T[2:], (1, 3, 4), strict=True):
        assert f"channel {channel}" in source.get_title() and f"channel {channel}" in target.get_title()
        assert source.images[0].get_clim() == target.images[0].get_clim()
        assert target.images[0].get_array().mean() - source.images[0].get_array().mean() > 3
    assert panels[0, 1].images[0].get_extent() == panels[0, 0].images[0].get_extent()


def test_tsne_parts_what_differs_and_mixes_what_does_not(tmp_path, figures):
    source, target = np.random.default_rng(0).normal(size=(2, 20, 4))
    reports.draw_feature_tsne(tmp_path / "tsne.png", {"before": (source, target + 20), "after": (source, target)})
    before, after = figures[0].axes
    assert re.match("before.*: 100%", before.get_title(), re.DOTALL)
    assert 25 <= int(re.match(r"after.*?: (\d+)%", after.get_title(), re.DOTALL)[1]) <= 75
    one, other = (points.get_offsets() for points in before.collections)
    assert np.linalg.norm(one.mean(0) - other.mean(0)) > 2 * max(one.std(0).max(), other.std(0).max())


def test_what_is_refused_writes_nothing(tmp_path, monkeypatch):
    one, again = _table_of_run(tmp_path / "1", {"a": 31.0, "b": 32.0}), _table_of_run(tmp_path / "2", {"b": 32.0})
    reports.write_table(tmp_path / "3", _rows() + [{**row, "method": "more"} for row in _rows()[:3]])
    lacking = [{key: value for key, value in row.items() if key != "ssim" or i != 1} for i, row in enumerate(_rows())]
    partial = [{**row, **({"lpips": 1.0} if i != 1 else {})} for i, row in enumerate(_rows())]
    (tmp_path / "bad").write_text("iteration,loss\n1,0.5\n")
    (tmp_path / "empty").touch()
    before, out = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}, tmp_path / "out"

    def evaluated(factors=(2, 2, 2), degradation=KSpaceTruncation, **options):
        return lambda: EvaluationReport(out, degradation(factors), "sr", **options)

    def merged(**folders):
        return lambda: comparison.merge_tables(out, folders)

    def curves(name):
        return lambda: reports.draw_loss_curves(out / "loss.png", tmp_path / name)

    def tsne(vectors):
        groups = {"after": (np.zeros((2, 2)), np.zeros((vectors - 2, 2)))}
        return lambda: reports.draw_feature_tsne(out / "tsne.png", groups)

    for call, kind, words in [
        (evaluated(compare_with={"a": "a.pt"}), ValueError, ["compare_with", "'a'", "a.pt"]),
        (evaluated(compare_with={"a": {"network": 3}}), ValueError, ["compare_with", "'a'", "{'network': 3}"]),
        (evaluated((2, 2, 1), score_over="centre_slice"), ValueError, ["[2, 2, 1]", "offset"]),
        (evaluated((1, 1, 4), GaussianProfile, score_over="centre_slice"), ValueError, ["[1, 1, 4]", "1 for Z"]),
        (evaluated(score_over="slice"), ValueError, ["score_over is 'slice'", "volume or slices or centre_slice"]),
        (evaluated(metrics={"seed": abs}), ValueError, ["'seed'"]),
        (evaluated(metrics={"nrmse": 3}), ValueError, ["'nrmse' is 3", "a function of result and HR"]),
        (evaluated(data_range=255), ValueError, ["data_range is 255", "percentile or maximum"]),
        (lambda: reports.write_table(tmp_path / "1", lacking), ValueError, ["case1", "ssim"]),
        (lambda: reports.write_table(tmp_path / "1", partial, LPIPS), ValueError, ["case1", "lpips"]),
        (lambda: reports.write_table(tmp_path / "1", []), ValueError, ["at least one"]),
        (merged(folds=[one, again]), ValueError, ["folds", "case b", one, again]),
        (merged(one=[one], two=[tmp_path / "none"]), FileNotFoundError, ["table.json", tmp_path / "none"]),
        (merged(three=[tmp_path / "3"]), ValueError, [tmp_path / "3" / "table.json", "cubic", "sr, more"]),
        *((merged(**{name: [one]}), ValueError, [f"'{name}'"]) for name in ("cubic", "HR")),
        (curves("bad"), ValueError, [tmp_path / "bad", "line 1"]),
        (curves("empty"), ValueError, ["empty"]),
        (tsne(vectors=4), ValueError, ["4", "at least 5"]),
    ]:
        refused(call, kind, *words)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    refused(tsne(vectors=5), ImportError, "pip install scikit-learn")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before and not out.exists()


def test_a_failed_report_leaves_the_old_picture_and_no_rubbish(tmp_path, monkeypatch):
    reports.draw_box_plots(path := tmp_path / "box.png", _rows())
    before = path.read_bytes()
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write_bytes(b"half") and open("/no/such/file"))
    refused(lambda: reports.draw_box_plots(path, _rows()), FileNotFoundError, "/no/such/file")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
