"""Reports: what is drawn where, and the numbers of the table."""

import builtins
import csv
import json
import math
import re
import sys
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from matplotlib.transforms import Affine2D
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from nibabel.affines import apply_affine, from_matvec
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation
from scipy.stats import ttest_rel

from common.degradations import GaussianProfile, KSpaceTruncation
from common.handlers import EvaluationReport, evaluation
from common.metrics import Brisque, bicubic, cubic, psnr
from common.reports import (
    box_plots,
    case,
    case_figure,
    cohort,
    feature_maps,
    feature_tsne,
    features,
    line_profile,
    loss_curves,
    merge_pictures,
    merge_tables,
    save_panels,
    training,
    write_table,
)
from common.reports.planes import View, content, load_panels

from ..pages import Page

RAS = np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.fixture
def figures(monkeypatch):
    """Figures as they were written, beside their files."""
    made = []
    for module in (case, cohort, features, training):
        save = module.save_figure
        monkeypatch.setattr(
            module, "save_figure", lambda figure, path, save=save: (made.append(figure), save(figure, path))
        )
    return made


def _affine(codes, shape, spacing):
    """Affine of a volume of this stored orientation, shape and spacing."""
    ornt = axcodes2ornt(codes)
    ras_shape = [0, 0, 0]
    ras_spacing = [1.0, 1.0, 1.0]
    for axis, (target, _) in enumerate(ornt):
        ras_shape[int(target)], ras_spacing[int(target)] = shape[axis], spacing[axis]
    return np.diag([*ras_spacing, 1.0]) @ np.linalg.inv(inv_ornt_aff(ornt, shape))


def _head(shape=(24, 28, 32)):
    """An off-centre ball."""
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    ball = ((x - 15) ** 2 + (y - 18) ** 2 + (z - 22) ** 2 < 49) * 0.5
    return ball.astype(np.float32)


def _case(volume, factors=(2, 2, 2)):
    lr = np.ascontiguousarray(volume[tuple(slice(None, None, f) for f in factors)])
    return lr, cubic(lr, factors, (0.0, 0.0, 0.0))


def test_error_maps_share_one_scale_that_the_larger_error_fills(tmp_path, figures):
    hr = _head()
    lr, base = _case(hr)
    sr = (hr + 0.25 * (base - hr)).astype(np.float32)
    scores = {"cubic": {"psnr": 21.234, "ssim": 0.81234}, "sr": {"psnr": 33.2, "ssim": 0.95}}
    case_figure(tmp_path / "case.png", lr, base, sr, hr, "case 1", scores, RAS, (2, 2, 2), (0.0, 0.0, 0.0))
    (figure,) = figures
    panels = np.array(figure.axes[:18]).reshape(3, 6)
    limits = {panel.images[0].get_clim() for panel in panels[:, 4:].ravel()}
    assert len(limits) == 1
    brightest = max(panel.images[0].get_array().max() for panel in panels[:, 4])
    assert 0.5 * brightest <= limits.pop()[1] <= brightest
    assert len({panel.images[0].get_clim() for panel in panels[:, :4].ravel()}) == 1
    for row in panels:
        ratio = row[5].images[0].get_array() / np.maximum(row[4].images[0].get_array(), 1e-6)
        assert ratio.max() == pytest.approx(0.25, abs=1e-3)
    titles = [panel.get_title() for panel in panels[0]]
    assert "21.23 dB, 0.8123" in titles[1] and "33.20 dB, 0.9500" in titles[2]
    # In the file: the error map of cubic is brighter than that of SR, and neither is blank.
    pixels = imread(tmp_path / "case.png")[..., :3].mean(axis=-1)
    cut = []
    for panel in panels[0, 4:]:
        box = panel.get_position()
        rows = slice(int((1 - box.y1) * pixels.shape[0]) + 2, int((1 - box.y0) * pixels.shape[0]) - 2)
        cut.append(pixels[rows, int(box.x0 * pixels.shape[1]) + 2 : int(box.x1 * pixels.shape[1]) - 2].mean())
    assert cut[0] > 1.5 * cut[1] > 0.01
    assert [p.name for p in tmp_path.iterdir()] == ["case.png"]


def test_without_ground_truth_there_are_no_error_maps(tmp_path, figures):
    lr, base = _case(_head())
    case_figure(tmp_path / "case.png", lr, base, base, None, "x", {}, RAS, (2, 2, 2), (0.0, 0.0, 0.0))
    assert [panel.get_title().strip() for panel in figures[0].axes[:3]] == ["LR", "cubic", "SR"]
    assert len(figures[0].axes) == 9


class Guided(torch.nn.Module):
    """Repeats LR voxels and adds a share of the guide."""

    def __init__(self, share):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, lr, guide):
        return torch.nn.functional.interpolate(lr, scale_factor=2) + self.share * guide


class Regressor:
    """Counts the bright voxels, in place of BRISQUE."""

    def __init__(self, path):
        assert path == "regressor.npz"

    def score(self, volume):
        return float((volume > 0.3).sum())


class Distance:
    """The largest difference, in place of LPIPS."""

    def __init__(self, weights):
        assert weights == "alexnet.pth"

    def score(self, volume, truth, device):
        assert device == torch.device("cpu") and volume.shape == truth.shape == (24, 28, 32)
        return float(abs(volume - truth).max())


def _evaluate(folder, volumes, evaluated, **options):
    """Evaluate one case, whose HR is in a file, and return its rows by method."""
    nib.save(nib.Nifti1Image(volumes["hr"][0].numpy(), RAS), folder / "a_t2w.nii.gz")
    path = str(folder / "a_t2w.nii.gz")
    batch = {key: MetaTensor(volume, meta={"filename_or_obj": path}, affine=RAS) for key, volume in volumes.items()}
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([batch], batch_size=1),
        network=evaluated,
        prepare_batch=lambda batch, *_, **__: (
            batch["lr"],
            batch["hr"],
            tuple(batch[key] for key in ("guide",) if key in batch),
            {},
        ),
        val_handlers=[EvaluationReport(folder / "out", method="half", **options)],
    ).run()
    return {row["method"]: row for row in json.loads((folder / "out" / "table.json").read_text())["cases"]}


def test_any_network_is_evaluated_beside_the_method_and_given_its_guide(tmp_path, figures, monkeypatch):
    """The guide is what LR lacks of HR, so that a share of 1 is perfect; some of it is outside of [0, 1]."""
    monkeypatch.setattr(Brisque, "load", Regressor)
    monkeypatch.setattr(evaluation, "Lpips", Distance)
    hr = torch.tensor(_head())[None] + 0.1
    lr = hr[:, ::2, ::2, ::2]
    guide = hr - torch.nn.functional.interpolate(lr[None], scale_factor=2)[0]
    guide[0, 15, 18, 22], hr[0, 15, 18, 22] = 3.0, 0.6 + 3.0
    torch.save(Guided(1.0).state_dict(), tmp_path / "perfect.pt")
    others = {
        "perfect": str(tmp_path / "perfect.pt"),
        "a quarter": Guided(0.25),
        "repeated": {"network": torch.nn.Upsample(scale_factor=2), "inferer": lambda lr, network, guide: network(lr)},
    }
    options = {"others": others, "brisque": "regressor.npz", "lpips": "alexnet.pth", "report": "true"}
    network, degradation = Guided(0.5), KSpaceTruncation((2, 2, 2))
    volumes = {"lr": lr, "hr": hr, "guide": guide}
    rows = _evaluate(tmp_path, volumes, network, network=network, degradation=degradation, **options)
    assert list(rows) == ["cubic", *others, "half"]
    assert rows["perfect"]["brisque"] == (hr > 0.3).sum() != rows["half"]["brisque"]
    assert rows["cubic"]["brisque"] not in (rows["perfect"]["brisque"], 0)
    cost = json.loads((tmp_path / "out" / "cost.json").read_text())
    assert cost["parameters"] == sum(p.numel() for p in network.parameters()) > 0
    assert list(cost["seconds"]) == [rows["half"]["case"]] and cost["seconds"][rows["half"]["case"]] > 0
    assert rows["perfect"]["lpips"] < 1e-6 < rows["half"]["lpips"] < rows["a quarter"]["lpips"]
    assert rows["half"]["psnr"] < 40 and (rows["perfect"]["psnr"] is None or rows["perfect"]["psnr"] > 100)
    repeated = lr.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert rows["repeated"]["psnr"] == pytest.approx(psnr(repeated, hr.clamp(0, 1)), abs=1e-4)
    panels = np.array(figures[0].axes[:48]).reshape(6, 8)
    titles = [panel.get_title().split("\n")[0] for panel in panels[0]]
    assert titles == ["LR", "guide", "cubic", *others, "half", "HR"]
    drawn = [panel.images[0].get_array() for panel in panels[::2, 1]]
    assert min(d.min() for d in drawn) == 0 and max(d.max() for d in drawn) == 1
    assert drawn[0].shape == panels[0, 7].images[0].get_array().shape
    assert [bool(panel.images) for panel in panels[1]] == [False, False, True, True, True, True, True, False]
    assert (tmp_path / "out" / "a_t2w_planes.npz").is_file()
    page = Page(tmp_path / "out" / "a_t2w.html")
    assert list(page.volumes) == ["scan", "cubic", "half", "HR"] and page.settings["errors"]["of"] == ["cubic", "half"]
    np.testing.assert_allclose(page.volumes["scan"].affine, degradation.lr_affine(RAS), atol=1e-6)
    np.testing.assert_allclose(page.volumes["HR"].get_fdata().max(), np.quantile(lr, 0.999), atol=1e-3)


def test_others_that_are_no_networks(tmp_path):
    make = partial(EvaluationReport, tmp_path, KSpaceTruncation((2, 2, 2)), "sr")
    with pytest.raises(ValueError, match=r"others: 'a' is the file a\.pt, but the report has no network"):
        make(others={"a": "a.pt"})
    with pytest.raises(ValueError, match=r"others: 'a' is \{'network': 3\}, expected a file of weights"):
        make(others={"a": {"network": 3}})


def test_the_centre_slice_and_the_papers_bicubic(tmp_path, figures):
    """What lies outside of the slice has no part in PSNR and SSIM; without the option all has."""
    hr = torch.rand(1, 24, 28, 13, generator=torch.Generator().manual_seed(0))
    degradation = GaussianProfile((2, 2, 1))
    volumes = {"lr": degradation(hr), "hr": hr}
    plain = _evaluate(tmp_path, volumes, torch.nn.Upsample(scale_factor=(2, 2, 1)), degradation=degradation)
    assert list(plain) == ["cubic", "half"]
    options = {"degradation": degradation, "centre_slice": "true"}
    rows = _evaluate(tmp_path, volumes, torch.nn.Upsample(scale_factor=(2, 2, 1)), **options)
    assert list(rows) == ["cubic", "bicubic", "half"]
    results = {
        "cubic": cubic(volumes["lr"], (2, 2, 1), (0.5, 0.5, 0)),
        "bicubic": bicubic(volumes["lr"], (2, 2, 1), (0.5, 0.5, 0)),
        "half": volumes["lr"].repeat_interleave(2, 1).repeat_interleave(2, 2),
    }
    for method, volume in results.items():
        error = (volume.clamp(0, 1) - hr)[0, :, :, 6]
        assert rows[method]["psnr"] == pytest.approx(-10 * math.log10(error.square().mean()), abs=1e-4)
        if method in plain:
            assert plain[method]["psnr"] == pytest.approx(psnr(volume.clamp(0, 1), hr), abs=1e-4)
            assert plain[method]["displacement_x"] == rows[method]["displacement_x"]
    # Joint tables take bicubic for what it is.
    merge_tables(tmp_path / "joint", {"own": [tmp_path / "out"]})
    assert list(json.loads((tmp_path / "joint" / "table.json").read_text())["summary"]) == ["cubic", "bicubic", "own"]
    for refused in (KSpaceTruncation((2, 2, 1)), GaussianProfile((1, 1, 4))):
        with pytest.raises(ValueError, match=r"found the factors .*expected 1 for Z and the offset"):
            EvaluationReport(tmp_path, refused, "sr", centre_slice=True)


@pytest.mark.parametrize("lpips", [None, False, "false", "False"])
def test_a_score_that_is_not_asked_for_needs_no_package(tmp_path, lpips):
    report = EvaluationReport(tmp_path, KSpaceTruncation((2, 2, 2)), "sr", Guided(0.5), lpips=lpips)
    assert report.lpips is None and report.brisque is None


@pytest.mark.parametrize("codes", ["RAS", "PIL", "ASR", "LPS"])
def test_heads_are_upright_in_their_proportions_whatever_the_orientation(tmp_path, figures, codes):
    """A spot that is right, anterior and superior of the middle is drawn on the left and up; millimetres are square."""
    shape = (16, 20, 24)
    ras_spacing = np.array([1.0, 1.5, 3.0])
    to_stored = axcodes2ornt(codes)
    axes = to_stored[:, 0].astype(int)
    stored_shape, spacing = [shape[a] for a in axes], ras_spacing[axes]
    affine = _affine(codes, stored_shape, spacing)
    hr = np.full(stored_shape, 0.05, np.float32)
    inner = tuple(slice(2, -2) for _ in range(3))
    hr[inner] = 0.5
    spot = np.rint(apply_affine(np.linalg.inv(affine), np.array([11, 14, 17]) * ras_spacing)).astype(int)
    middle = np.rint(apply_affine(np.linalg.inv(affine), np.array([8, 10, 12]) * ras_spacing)).astype(int)
    near = tuple(slice(min(a, b) - 1, max(a, b) + 2) for a, b in zip(spot, middle, strict=True))
    hr[near] = 1.0
    factors = tuple(2 if a == 0 else 1 for a in axes)
    lr, base = _case(hr, factors)
    case_figure(tmp_path / "case.png", lr, base, base, hr, codes, {}, affine, factors, (0.0, 0.0, 0.0))
    figure = figures[0]
    picture = imread(tmp_path / "case.png")[..., 0]
    for row in np.array(figure.axes[:18]).reshape(3, 6):
        for panel in (row[0], row[3]):
            box = panel.get_position().transformed(Affine2D().scale(picture.shape[1], picture.shape[0]))
            pixels = picture[::-1][int(box.y0) + 2 : int(box.y1) - 2, int(box.x0) + 2 : int(box.x1) - 2]
            # The letters on the LR panel are yellow at its edges: look at its inner part.
            inner = tuple(slice(n // 8, -n // 8) for n in pixels.shape)
            y, x = (np.argwhere(pixels[inner] > 0.9).mean(axis=0) / pixels[inner].shape).tolist()
            assert x < 0.45 and y > 0.55, (codes, panel.get_title(), x, y)
            assert panel.get_aspect() == 1.0
    hr_panel = figure.axes[6 + 3]  # coronal: R-L by I-S
    left, right, low, high = hr_panel.images[0].get_extent()
    shape_of_array = hr_panel.images[0].get_array().shape
    np.testing.assert_allclose([(right - left) / shape_of_array[1], (high - low) / shape_of_array[0]], [1.0, 3.0])


@pytest.mark.parametrize("codes", ["RAS", "PIL", "LSA"])
def test_lr_voxels_are_drawn_where_they_are_in_the_world(codes):
    hr_shape, lr_shape, factors, offset = (12, 10, 9), (6, 10, 3), (2, 1, 3), (0.5, 0.0, 0.0)
    affine = _affine(codes, hr_shape, (1.0, 2.0, 0.5))
    voxel = np.array([4, 7, 1])
    world = apply_affine(affine, voxel * factors + np.array(offset))
    frame = affine @ inv_ornt_aff(io_orientation(affine), hr_shape)
    point = apply_affine(np.linalg.inv(frame), world)
    marker = np.zeros(lr_shape)
    marker[tuple(voxel)] = 1
    canonical_shape = np.abs(np.linalg.solve(frame, affine)[:3, :3]) @ hr_shape
    whole = tuple(slice(0, round(n)) for n in canonical_shape)
    view = View(frame, tuple(int(p) for p in np.floor(point + 0.5)), whole)
    panel = view.cut(marker, affine @ from_matvec(np.diag(np.array(factors, float)), offset))
    millimetres = point * np.diag(frame)[:3]
    for plane, normal in zip(panel.planes, (2, 1, 0), strict=True):
        (index,) = np.argwhere(plane)  # the plane goes through the voxel
        edges = np.delete(panel.edges, normal, axis=0)
        drawn = edges[:, 0] + (index + 0.5) * np.ptp(edges, axis=1) / plane.shape
        np.testing.assert_allclose(drawn, np.delete(millimetres, normal), atol=1e-9)


@pytest.mark.parametrize("codes", ["RAS", "LPI"])
def test_methods_see_a_case_alike_whatever_they_cut_off_and_however_they_order_axes(tmp_path, codes):
    """HR is cut at its far ends, which are low in R, A, S where it is stored the other way round."""
    rng, shape = np.random.default_rng(0), (25, 29, 35)
    hr = rng.random(shape).astype(np.float32) * 0.1
    hr[6:22, 5:29, 4:35] += 0.8
    affine = _affine(codes, shape, (1.0, 1.5, 2.0))
    nib.save(nib.Nifti1Image(hr, affine), tmp_path / "hr.nii.gz")
    view = View.of_file(tmp_path / "hr.nii.gz")
    truth = view.cut(hr, affine)
    other = view.cut(hr[:24, :28, :32].transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])
    save_panels(tmp_path / "planes.npz", {"HR": truth, "a/b": other})
    read = load_panels(tmp_path / "planes.npz")
    assert list(read) == ["HR", "a/b"]
    missing = [0, 0, 0]
    for axis, ends in enumerate(other.edges):
        spacing = (1.0, 1.5, 2.0)[axis]
        found = np.rint((ends - truth.edges[axis]) / spacing).astype(int)
        missing[axis] = found
        np.testing.assert_allclose(ends - truth.edges[axis], found * spacing, atol=1e-5)
    for normal, whole, part, again in zip((2, 1, 0), truth.planes, other.planes, read["a/b"].planes, strict=True):
        ends = zip(whole.shape, np.delete(missing, normal, 0), strict=True)
        cut = tuple(slice(low, n + high) for n, (low, high) in ends)
        np.testing.assert_array_equal(whole[cut], part)
        np.testing.assert_array_equal(part, again)
    assert np.abs(missing).max() == 3


def test_planes_go_through_an_object_away_from_the_middle():
    volume = np.random.default_rng(0).random((40, 50, 60)).astype(np.float32) * 0.05
    volume[30:36, 4:10, 50:58] += 0.8
    centre, box = content(volume)
    assert all(low <= c < high for c, (low, high) in zip(centre, ((30, 36), (4, 10), (50, 58)), strict=True))
    assert box == (slice(28, 38), slice(2, 12), slice(48, 60))
    assert content(np.zeros((4, 4, 4)))[1] == (slice(0, 4),) * 3


@pytest.mark.parametrize(
    ("factors", "offset", "direction", "ends"),
    [
        ((1, 2, 4), (0.0, 0.5, 1.5), 1, "inferior to superior"),
        ((1, 2, 4), (0.0, 0.5, 1.5), -1, "inferior to superior"),
        ((2, 2, 2), (0.0, 0.0, 0.0), 1, "right to left"),
        ((2, 2, 2), (0.0, 0.0, 0.0), -1, "right to left"),
    ],
)
def test_line_profile_draws_lr_samples_where_they_lie(tmp_path, figures, factors, offset, direction, ends):
    """On a ramp every curve and every LR sample lies on one straight line, if each is drawn at its own position.

    However the axis is stored, right is on the left, as in the picture, and superior on the right.
    """
    shape, axis = (16, 16, 32), int(np.argmax(factors))
    affine = np.diag([1.0, 1.0, 1.5, 1.0])
    affine[axis, axis] *= direction
    ramp = np.moveaxis(np.broadcast_to(np.arange(shape[axis]) / 40, (*np.delete(shape, axis), shape[axis])), -1, axis)
    lr_shape = [n // f for n, f in zip(shape, factors, strict=True)]
    samples = (np.arange(lr_shape[axis]) * factors[axis] + offset[axis]) / 40
    lr = np.moveaxis(np.broadcast_to(samples, (*np.delete(lr_shape, axis), lr_shape[axis])), -1, axis)
    line_profile(tmp_path / "line.png", lr, ramp, ramp + 0.1, ramp, "ramp", affine, factors, offset)
    curves = {line.get_label(): line.get_xydata() for line in figures[0].axes[1].lines}
    slope = 1 / 40 / affine[axis, axis] * (-1 if ends == "right to left" else 1)
    start = 0 if slope > 0 else (shape[axis] - 1) / 40
    for label, shift in (("LR samples", 0), ("HR", 0), ("cubic", 0), ("SR", 0.1)):
        np.testing.assert_allclose(curves[label][:, 1], start + slope * curves[label][:, 0] + shift, atol=1e-9)
    assert figures[0].axes[1].get_xlabel().endswith(ends)
    low, high = figures[0].axes[1].get_xlim()
    assert low < 0 < high
    assert len(curves["LR samples"]) == lr_shape[axis]
    assert imread(tmp_path / "line.png").std() > 0.05


def test_line_profile_goes_through_the_steepest_tissue(tmp_path, figures):
    hr = np.zeros((16, 16, 16), np.float32)
    hr[::2, 6, 12] = 1.0
    lr, base = _case(hr)
    line_profile(tmp_path / "line.png", lr, base, base, hr, "x", RAS, (2, 2, 2), (0.0, 0.0, 0.0))
    (curve,) = (line.get_ydata() for line in figures[0].axes[1].lines if line.get_label() == "HR")
    np.testing.assert_array_equal(curve, hr[:, 6, 12])  # against the position, which runs to the left
    # In the picture: y is 6 all along the line, drawn in the axial plane.
    np.testing.assert_array_equal(figures[0].axes[0].lines[0].get_ydata(), 6)


def _rows():
    values = {
        "cubic": [(30.0, 0.9), (32.0, 0.8), (37.0, 0.7)],
        "sr": [(31.0, 0.95), (math.nan, 0.85), (math.inf, 0.75)],
    }
    return [
        {
            "case": f"case{i}",
            "method": method,
            "psnr": psnr,
            "ssim": ssim,
            "displacement_x": 0.0,
            "displacement_y": 0.25 * i,
            "displacement_z": math.nan,
        }
        for method, pairs in values.items()
        for i, (psnr, ssim) in enumerate(pairs)
    ]


def test_table_by_hand(tmp_path):
    text = write_table(tmp_path / "new", _rows())
    with open(tmp_path / "new" / "table.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(r["case"], r["method"]) for r in read] == [(r["case"], r["method"]) for r in _rows()]
    assert float(read[2]["psnr"]) == 37.0 and math.isnan(float(read[4]["psnr"]))
    table = json.loads((tmp_path / "new" / "table.json").read_text())
    psnr = table["summary"]["cubic"]["psnr"]
    # (30, 32, 37): mean 33, squared deviations 9 + 1 + 16 = 26, over n - 1 = 13.
    assert psnr == {"mean": pytest.approx(33.0), "sd": pytest.approx(math.sqrt(13.0)), "n": 3}
    assert table["summary"]["sr"]["psnr"] == {"mean": None, "sd": None, "n": 2}
    assert table["summary"]["sr"]["displacement_z"] == {"mean": None, "sd": None, "n": 0}
    assert table["cases"][4]["psnr"] is None and table["cases"][1]["ssim"] == 0.8
    lines = text.splitlines()
    assert lines[2].split()[:5] == ["cubic", "3", "33.00", "+-", "3.61"]
    assert lines[3].startswith("sr") and "0.8500 +- 0.1000" in lines[3] and lines[3].endswith("  -")
    assert len({len(line) for line in lines}) == 1
    assert "0.25 +- 0.25" in lines[2] and "-0.00" not in text
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"table.csv", "table.json"}


def test_the_spread_of_a_table_with_seeds_is_that_of_their_means(tmp_path, figures):
    """By hand; a case that is not defined is left out of its seed's mean, a seed without any out of the table's."""
    psnr = {"cubic": {None: (10, 30)}, "sr": {3: (20, 40), 0: (22, 46), 7: (math.nan, 35), 1: (math.nan, math.nan)}}
    shift = {f"displacement_{axis}": 0.0 for axis in "xyz"}
    rows = [
        {"case": f"case{i}", "method": method, "seed": seed, "psnr": value, "ssim": 0.5 + i / 4, **shift}
        for method, seeds in psnr.items()
        for seed, values in seeds.items()
        for i, value in enumerate(values)
    ]
    lines = write_table(tmp_path, rows).splitlines()
    table = json.loads((tmp_path / "table.json").read_text())
    # (30, 34, 35): mean 33, squared deviations 9 + 1 + 4 = 14, over n - 1 = 7.
    assert table["summary"]["sr"]["psnr"] == {"mean": 33.0, "sd": pytest.approx(math.sqrt(7)), "n": 3}
    assert table["summary"]["cubic"]["psnr"] == {"mean": 20.0, "sd": None, "n": 1}
    assert table["summary"]["sr"]["ssim"] == {"mean": 0.625, "sd": 0.0, "n": 4}
    assert [(row["seed"], row["psnr"]) for row in table["cases"][2:6]] == [(3, 20), (3, 40), (0, 22), (0, 46)]
    assert lines[2].split()[:4] == ["cubic", "2", "20.00", "0.6250"]
    assert lines[3].split()[:5] == ["sr", "2", "33.00", "+-", "2.65"]
    assert lines[4:] == ["mean over the cases; +- is the standard deviation over 4 seeds"]
    # A point is the mean of a case.
    box_plots(tmp_path / "box.png", rows)
    points = [line.get_ydata() for line in figures[0].axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [[10, 30], [21, 121 / 3]])


def test_a_table_has_brisque_where_its_rows_have_it(tmp_path, figures):
    rows = [{**row, "brisque": 10.0 + 2 * i} for i, row in enumerate(_rows())]
    lines = write_table(tmp_path, rows).splitlines()
    assert lines[0].endswith("BRISQUE") and lines[2].endswith("12.0 +- 2.0") and lines[3].endswith("18.0 +- 2.0")
    summary = json.loads((tmp_path / "table.json").read_text())["summary"]
    assert summary["sr"]["brisque"] == {"mean": 18.0, "sd": 2.0, "n": 3}
    assert next(csv.reader((tmp_path / "table.csv").open()))[-1] == "brisque"
    box_plots(tmp_path / "box.png", rows)
    panels = {panel.get_title(): panel for panel in figures[0].axes}
    points = [line.get_ydata() for line in panels["BRISQUE"].lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(points, [[10, 12, 14], [16, 18, 20]])
    # Shifts share a scale, which is not that of the scores.
    assert panels["shift x (voxel)"].get_ylim()[1] < 1 < 10 < panels["BRISQUE"].get_ylim()[1]
    del rows[1]["brisque"]
    with pytest.raises(ValueError, match=r"case1.*brisque"):
        write_table(tmp_path, rows)


def test_a_table_has_lpips_beside_brisque(tmp_path, figures):
    rows = [{**row, "lpips": 0.1 * i} for i, row in enumerate(_rows())]
    lines = write_table(tmp_path, rows).splitlines()
    assert lines[0].endswith("LPIPS") and lines[2].endswith("0.1000 +- 0.1000")
    box_plots(tmp_path / "box.png", [{**row, "brisque": 1.0} for row in rows])
    assert [panel.get_title() for panel in figures[0].axes][-2:] == ["BRISQUE", "LPIPS"]


def test_methods_are_compared_by_a_paired_t_test(tmp_path):
    """Of the cases that both have; of seeds the mean; with the statistic that scipy has for pairs."""
    rng = np.random.default_rng(0)
    psnr = {name: 30 + shift + rng.normal(size=(5, 2)) for name, shift in (("a", 0), ("b", 1), ("c", 0.1))}
    rows = [
        {"case": f"sub-{i}", "method": name, "seed": seed, "psnr": values[i, seed], "ssim": 0.5 + 0.1 * (name == "c")}
        | dict.fromkeys(("displacement_x", "displacement_y", "displacement_z"), 0.0)
        for name, values in psnr.items()
        for i in range(5 if name != "c" else 4)
        for seed in (0, 1)
    ]
    text = write_table(tmp_path, rows, against="b")
    found = json.loads((tmp_path / "table.json").read_text())["paired_t_test"]
    assert found["against"] == "b" and list(found["methods"]) == ["a", "c"]
    for name, n in (("a", 5), ("c", 4)):
        mine, theirs = psnr[name][:n].mean(axis=1), psnr["b"][:n].mean(axis=1)
        expected = {"difference": (mine - theirs).mean(), "p": ttest_rel(mine, theirs).pvalue, "n": n}
        assert found["methods"][name]["psnr"] == pytest.approx(expected)
    # Where all cases differ alike there is no spread to test with.
    assert found["methods"]["c"]["ssim"] == pytest.approx({"difference": 0.1, "p": None, "n": 4})
    assert "paired t-test over the cases, against b" in text
    with pytest.raises(ValueError, match=r"against is 'd', expected one of the methods: a, b, c"):
        write_table(tmp_path, rows, against="d")


def test_a_single_case_has_no_spread(tmp_path):
    assert "30.00" in (text := write_table(tmp_path, _rows()[:1])) and "+-" not in text


def test_table_names_the_missing_column_and_leaves_the_old_table(tmp_path):
    write_table(tmp_path, _rows())
    before = (tmp_path / "table.csv").read_text()
    rows = _rows()
    del rows[1]["ssim"]
    with pytest.raises(ValueError, match=r"case1.*ssim"):
        write_table(tmp_path, rows)
    assert (tmp_path / "table.csv").read_text() == before
    with pytest.raises(ValueError, match="at least one"):
        write_table(tmp_path, [])


def _table(folder, method, psnr, base=30.0):
    """The table of one run: ``psnr`` by case."""
    rows = [
        {"case": case, "method": m, "psnr": p, "ssim": 0.9}
        for case, value in psnr.items()
        for m, p in (("cubic", base), (method, value))
    ]
    write_table(folder, [{**row, **{f"displacement_{a}": math.nan for a in "xyz"}} for row in rows])
    return folder


def test_tables_of_runs_are_joined_and_folds_pooled(tmp_path):
    folds = [_table(tmp_path / "1", "own", {"a": 31.0, "b": 33.0}), _table(tmp_path / "2", "own", {"c": 35.0})]
    whole = _table(tmp_path / "3", "own", {"b": 32.0, "a": 34.0, "c": 36.0}, base=30.0 + 1e-7)
    other = _table(tmp_path / "4", "own", {"a": 21.0, "b": 21.0, "c": math.inf}, base=20.0)
    text = merge_tables(tmp_path / "out", {"folds": folds, "whole": [whole], "other scale": [other]})
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "folds", "whole", "cubic (other scale)", "other scale"]
    found = {method: (row["psnr"]["mean"], row["psnr"]["sd"], row["psnr"]["n"]) for method, row in summary.items()}
    assert found == {
        "cubic": (30, 0, 3),
        "folds": (33, 2, 3),
        "whole": (34, 2, 3),
        "cubic (other scale)": (20, 0, 3),
        "other scale": (21, 0, 2),  # infinity is null in a table
    }
    assert text.splitlines()[3].startswith("folds ") and "33.00 +- 2.00" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"table.csv", "table.json", "boxplots.png"}


def test_methods_stand_below_the_interpolation_of_their_own_input(tmp_path, figures):
    """B and D have another LR than A and C; a score that only B has is open for the others."""
    spec = {"A": (31, 30), "B": (21, 20), "C": (32, 30 + 1e-5), "D": (22, 20)}
    folders = {n: [_table(tmp_path / n, "own", {"a": psnr, "b": psnr}, base)] for n, (psnr, base) in spec.items()}
    rows = json.loads((tmp_path / "B" / "table.json").read_text())["cases"]
    write_table(
        tmp_path / "B", [{k: math.nan if v is None else v for k, v in row.items()} | {"lpips": 0.1} for row in rows]
    )
    text = merge_tables(tmp_path / "out", folders)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "A", "C", "cubic (B)", "B", "D"]
    assert [summary[m]["psnr"]["mean"] for m in summary] == [30, 31, 32, 20, 21, 22]
    assert [summary[m]["lpips"]["n"] for m in summary] == [0, 0, 0, 2, 2, 0]
    assert "not compared on equal terms" in text and "\n  A; C\n  B; D\n" in text
    assert "equal terms" not in merge_tables(tmp_path / "out", {name: folders[name] for name in "AC"})
    # Compared by a test are only those that had the same LR, also where one has a case more.
    folders["E"] = [_table(tmp_path / "E", "own", {"a": 31.5, "b": 32.5, "c": 30.5}, 30)]
    text = merge_tables(tmp_path / "out", folders, against="A")
    tests = json.loads((tmp_path / "out" / "table.json").read_text())["paired_t_test"]["methods"]
    assert {name: found["psnr"]["n"] for name, found in tests.items() if found} == {
        "cubic": 2, "C": 2, "cubic (E)": 2, "E": 2,
    }  # fmt: skip
    assert re.search(r"(?m)^B +under 2 ", text)


def _planes(folder, hr, lr, sr, factors, method):
    """What an evaluation leaves of the case "a"."""
    view = View.of_volume(hr, RAS)
    base = cubic(lr, factors, (0.0, 0.0, 0.0))
    panels = {name: view.cut(volume, RAS) for name, volume in {"cubic": base, method: sr, "HR": hr}.items()}
    panels = {"LR": view.cut(lr, RAS @ np.diag([*factors, 1])), **panels}
    save_panels(folder / "a_planes.npz", panels)
    return panels


def test_a_case_of_several_runs_is_one_picture(tmp_path, figures):
    """Two methods on one LR, one on another, one of which no planes are there, and one in folds, of two cases."""
    hr = _head()
    coarse, fine = _case(hr)[0], _case(hr, (2, 2, 1))[0]
    spec = {"A": (coarse, 0.9, (2, 2, 2), 30), "B": (fine, 0.8, (2, 2, 1), 20), "C": (coarse, 0.5, (2, 2, 2), 30)}
    folders = {}
    for name, (lr, share, factors, base) in spec.items():
        folders[name] = [_table(tmp_path / name, "own", {"a": base + 10 * share}, base)]
        _planes(tmp_path / name, hr, lr, hr * np.float32(share), factors, "own")
    folders["no planes"] = [_table(tmp_path / "none", "own", {"a": 33})]
    folds = [_table(tmp_path / "1", "own", {"b": 33.0}, 25), _table(tmp_path / "2", "own", {"a": 37.0})]
    folders["folds"] = folds
    _planes(tmp_path / "2", hr, coarse, hr * np.float32(0.7), (2, 2, 2), "own")
    text = merge_pictures(tmp_path / "out", folders)
    assert text.startswith("pictures: 1, one for each case") and "none for no planes; folds, whose" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a_profile.png"]
    panels = np.array(figures[-2].axes[:54]).reshape(6, 9)
    titles = [panel.get_title().strip().split("\n") for panel in panels[0]]
    assert [title[0] for title in titles] == ["LR", "cubic", "A", "C", "folds", "LR (B)", "cubic (B)", "B", "HR"]
    assert titles[2][1] == "39.00 dB, 0.9000" and titles[6][1] == "20.00 dB, 0.9000"
    assert panels[0, 0].images[0].get_array().shape == panels[0, 5].images[0].get_array().shape
    assert panels[2, 0].images[0].get_array().shape[0] < panels[2, 5].images[0].get_array().shape[0]
    assert len({panel.images[0].get_clim() for panel in panels[::2].ravel()}) == 1
    errors = [panel for panel in panels[1::2].ravel() if panel.images]
    assert len(errors) == 3 * 6 and len({panel.images[0].get_clim() for panel in errors}) == 1
    for column, share in ((2, 0.9), (3, 0.5), (4, 0.7), (7, 0.8)):
        for row in (0, 2, 4):
            shown, truth = (panels[row, c].images[0].get_array() for c in (column, 8))
            np.testing.assert_allclose(shown, share * truth, atol=1e-6)
            np.testing.assert_allclose(panels[row + 1, column].images[0].get_array(), (1 - share) * truth, atol=1e-6)
    picture, profile = figures[-1].axes
    curves = {line.get_label(): line.get_xydata() for line in profile.lines}
    assert list(curves) == ["LR", "cubic", "A", "C", "folds", "cubic (B)", "B", "HR"]
    # The line runs through the ball, and everybody's curve and dots along the same one.
    assert np.abs(np.diff(curves["HR"][:, 1])).max() == pytest.approx(0.5)
    for name, share in (("A", 0.9), ("C", 0.5), ("folds", 0.7), ("B", 0.8)):
        np.testing.assert_allclose(curves[name][:, 1], share * curves["HR"][:, 1], atol=1e-6)
        np.testing.assert_allclose(curves[name][:, 0], curves["HR"][:, 0], atol=1e-6)
    places, values = curves["HR"].T
    for place, value in curves["LR"]:
        assert value == values[np.argmin(np.abs(places - place))]
    x, y = picture.lines[0].get_data()
    assert min(np.ptp(x), np.ptp(y)) == 0 and np.ptp(x) + np.ptp(y) == pytest.approx(np.ptp(profile.get_xlim()))
    # The first run has not tested this case: no input has the plain title.
    other = {"folds": folds[:1], "A": folders["A"], "B": folders["B"]}
    assert "none for folds, whose" in merge_pictures(tmp_path / "other", other)
    assert [line.get_label() for line in figures[-1].axes[1].lines] == [
        "LR (A)",
        "cubic (A)",
        "A",
        "cubic (B)",
        "B",
        "HR",
    ]


def test_runs_of_several_seeds_are_joined_and_the_first_is_drawn(tmp_path, figures):
    """B's scans change with the seed: its cubic and it are a group of their own, though its first seed's are A's."""
    hr = _head()
    lr = _case(hr)[0]
    spec = {"A": {5: (31, 30), 6: (33, 30)}, "B": {5: (32, 30), 6: (31, 28)}, "C": {5: (34, 30), 6: (34, 30)}}
    folders = {}
    for name, seeds in spec.items():
        folders[name] = {
            seed: [_table(tmp_path / f"{name}{seed}", "own", {"a": p}, b)] for seed, (p, b) in seeds.items()
        }
        for seed in seeds:
            _planes(tmp_path / f"{name}{seed}", hr, lr, hr * np.float32(seed / 10), (2, 2, 2), "own")
    text = merge_tables(tmp_path / "out", folders)
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    root, half = pytest.approx(math.sqrt(2)), pytest.approx(math.sqrt(0.5))
    assert {method: tuple(row["psnr"].values()) for method, row in table["summary"].items()} == {
        "cubic": (30, None, 1), "A": (32, root, 2), "C": (34, 0, 2), "cubic (B)": (29, root, 2), "B": (31.5, half, 2),
    }  # fmt: skip
    assert "\n  A; C\n  B\n" in text and "The LR inputs of B change with the seed" in text
    assert "change with the seed" not in merge_tables(tmp_path / "out", {name: folders[name] for name in "AC"})
    text = merge_pictures(tmp_path / "out", folders)
    assert text == "pictures: 1, one for each case, with a column for each method, and as many line profiles, of seed 5"
    panels = figures[-2].axes[: 6 * 6]
    assert [panel.get_title().strip().split("\n")[0] for panel in panels[:6]] == ["LR", "cubic", "A", "B", "C", "HR"]
    np.testing.assert_allclose(panels[2].images[0].get_array(), 0.5 * panels[5].images[0].get_array(), atol=1e-6)


def test_tables_that_cannot_be_joined(tmp_path):
    one, again = _table(tmp_path / "1", "own", {"a": 31.0, "b": 32.0}), _table(tmp_path / "2", "own", {"b": 32.0})
    with pytest.raises(ValueError, match=r"folds: the case b was tested in .*1 and again in .*2; "):
        merge_tables(tmp_path / "out", {"folds": [one, again]})
    with pytest.raises(FileNotFoundError, match=r"no table\.json in .*none"):
        merge_tables(tmp_path / "out", {"one": [one], "two": [tmp_path / "none"]})
    write_table(tmp_path / "3", _rows() + [{**row, "method": "more"} for row in _rows()[:3]])
    with pytest.raises(
        ValueError, match=r"3.table\.json: expected the rows of one method beside cubic, found sr, more"
    ):
        merge_tables(tmp_path / "out", {"three": [tmp_path / "3"]})
    for name in ("cubic", "HR"):
        with pytest.raises(ValueError, match=f"named '{name}'"):
            merge_tables(tmp_path / "out", {name: [one]})
    assert not (tmp_path / "out").exists()


def test_box_plots_draw_every_case_and_no_nan(tmp_path, figures):
    box_plots(tmp_path / "box.png", _rows())
    panels = figures[0].axes
    points = [np.sort(line.get_ydata()) for line in panels[0].lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(points[0], [30, 32, 37])
    assert np.nansum(points[1]) == 31
    assert panels[2].get_ylim() == panels[3].get_ylim() and panels[3].get_ylim()[1] >= 0.5
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ["cubic", "sr"]
    assert imread(tmp_path / "box.png").std() > 0.05


def test_loss_curves_of_a_resumed_run(tmp_path, figures):
    history = tmp_path / "history.jsonl"
    entry = '{{"iteration": {}, "epoch": 1, "generator/l1": {}, "lr_discriminator/lsgan": {}}}'
    lines = [entry.format(i, 10 / i, -0.5) for i in range(1, 101)]
    lines.append('{"iteration": 101, "epo')  # killed here, resumed from iteration 80
    lines += [entry.format(i, 5.0, "NaN" if i == 90 else 0.5) for i in range(81, 91)]
    lines.append('{"iteration": 90, "validation/psnr": 30.5}')
    history.write_text("\n".join(lines) + "\n")
    loss_curves(tmp_path / "loss.png", history)
    l1, lsgan, validation = figures[0].axes[:3]
    raw = dict(l1.lines[0].get_xydata())
    assert raw[80] == 10 / 80 and raw[85] == 5.0 and len(raw) == 100
    assert l1.get_yscale() == "log" and lsgan.get_yscale() == "linear"
    assert "1 not finite" in lsgan.get_title() and "not finite" not in l1.get_title()
    np.testing.assert_array_equal(validation.lines[0].get_xydata(), [[90, 30.5]])
    assert imread(tmp_path / "loss.png").std() > 0.05


def test_loss_curves_say_what_is_wrong(tmp_path):
    history = tmp_path / "history.jsonl"
    history.write_text("iteration,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="line 1"):
        loss_curves(tmp_path / "loss.png", history)
    history.write_text("")
    with pytest.raises(ValueError, match="no losses"):
        loss_curves(tmp_path / "loss.png", history)
    assert not (tmp_path / "loss.png").exists()


def _group(seed, level):
    image = _head()[:, :, 22]
    maps = np.random.default_rng(seed).normal(size=(5, 12, 14)) * np.array([0.1, 3, 0.1, 2, 1])[:, None, None] + level
    return {"image": image, "lr": image[::2, ::2], "features": maps, "affine": RAS}


def test_feature_maps_show_the_same_most_varied_channels_on_common_scales(tmp_path, figures):
    feature_maps(tmp_path / "maps.png", _group(0, 0.0), _group(1, 4.0))
    panels = np.array(figures[0].axes[:10]).reshape(2, 5)
    for column, channel in zip(range(2, 5), (1, 3, 4), strict=True):
        source, target = panels[:, column]
        assert f"channel {channel}" in source.get_title() and f"channel {channel}" in target.get_title()
        assert source.images[0].get_clim() == target.images[0].get_clim()
        assert target.images[0].get_array().mean() - source.images[0].get_array().mean() > 3
    assert panels[0, 1].images[0].get_extent() == panels[0, 0].images[0].get_extent()
    assert imread(tmp_path / "maps.png").std() > 0.05


def test_tsne_parts_what_differs_and_mixes_what_does_not(tmp_path, figures):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    feature_tsne(tmp_path / "tsne.png", {"before": (source, target + 20), "after": (source, target)})
    before, after = figures[0].axes
    assert before.get_title().startswith("before") and after.get_title().startswith("after")
    assert "100%" in before.get_title()
    mixed = int(after.get_title().split(": ")[1].split("%")[0])
    assert 25 <= mixed <= 75
    centres = [np.mean(points.get_offsets(), axis=0) for points in before.collections]
    widths = [np.std(points.get_offsets(), axis=0).max() for points in before.collections]
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * max(widths)


def test_tsne_without_scikit_learn_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    features = np.zeros((5, 2)), np.zeros((5, 2))
    with pytest.raises(ImportError, match=r"pip install scikit-learn"):
        feature_tsne(tmp_path / "tsne.png", {"after": features})


def test_a_failed_report_leaves_the_old_picture_and_no_rubbish(tmp_path, monkeypatch):
    box_plots(tmp_path / "box.png", _rows())
    before = (tmp_path / "box.png").read_bytes()

    def full(self, name, **kwargs):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="No space"):
        box_plots(tmp_path / "box.png", _rows())
    assert (tmp_path / "box.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["box.png"]


def test_reports_keep_out_of_pyplot():
    """Global figures would leak memory over a cohort and need a display."""
    import subprocess

    code = "import sys, common.reports; sys.exit('matplotlib.pyplot' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
