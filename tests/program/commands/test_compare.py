"""``python -m common compare``: what it draws, where, and what it refuses."""

import json
from pathlib import Path
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from scipy.ndimage import gaussian_filter

from common.degradations import GaussianProfile, KSpaceTruncation
from common.geometry.rigid import make_rigid_matrix
from common.handlers import EvaluationReport
from common.metrics import interpolate_cubic
from common.program.cases.inputs import describe_file
from common.program.commands import compare as module
from common.program.commands.compare import compare
from common.program.dicom.derived import write_derived_series
from common.program.dicom.search import find_series
from common.program.dicom.series import write_nifti
from common.reports.planes import View, to_ras
from common.runtime.errors import Notice
from common.transforms.scan.volume import MakeLRd, NormaliseVolumed, convert_to_units

from ...bundles.runs import OBLIQUE, degrade, save
from ...clients.dicom import Series
from ...pages import Page
from ...refused import refused

AFFINE = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
SPOT = np.array([25, 20, 14])
AT = nib.affines.apply_affine(AFFINE, SPOT).tolist()


@pytest.fixture
def case(tmp_path):
    """A ball with a bright spot, its LR scan, and a result that is a little off, on an oblique, flipped grid."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (40, 36, 32)], indexing="ij"), -1)
    hr = 600.0 * (np.linalg.norm(grid - [20, 18, 16], axis=-1) < 12) + 300 * (np.linalg.norm(grid - SPOT, axis=-1) < 3)
    return {
        "hr": str(save(tmp_path / "hr.nii.gz", hr, AFFINE)),
        "scan": str(save(tmp_path / "lr.nii.gz", *degrade(hr, AFFINE, GaussianProfile((2, 2, 1))))),
        "result": str(save(tmp_path / "sr.nii.gz", hr + 20, AFFINE)),
    }


def test_one_of_several_stacks(tmp_path, monkeypatch, capsys):
    """It is brought to the grid of a result that names it, from where the JSON says: a function of the world stays."""
    across = AFFINE @ nib.affines.from_matvec(np.array([[0, 0, 1.5], [1, 0, 0], [0, 1, 0]]), [-3, 2, 1])
    grids = {
        "sr": (AFFINE, (30, 24, 20)),
        "a": (AFFINE @ np.diag([1, 1, 4, 1]), (30, 24, 5)),
        "b": (across, (26, 22, 26)),
        "c": (across, (26, 22, 26)),
    }
    moved = make_rigid_matrix(np.array([4.0, -7, 5, 10, 5, -8]), np.zeros(3))
    files = {}
    for name, (affine, shape) in grids.items():
        voxels = np.moveaxis(np.indices(shape), 0, -1)
        world = nib.affines.apply_affine(affine, voxels) @ [3.0, -2.0, 4.0]
        affine = np.linalg.inv(moved) @ affine if name in "bc" else affine
        files[name] = str(save(tmp_path / f"{name}.nii.gz", 500 + world + (name == "c"), affine))
    inputs = [{"Name": f"stack {name}", **describe_file(files[name])} for name in "abc"]
    stacks = {"stack a": {"Reference": True}, "stack b": {"Placed": moved.tolist()}, "stack c": {"LeftOut": "unlike"}}
    record = {"Inputs": inputs, "Adapted": stacks, "CubicOf": "stack b"}
    (tmp_path / "sr.json").write_text(json.dumps({"SuperResolution": record}))
    figure = Mock(wraps=module.draw_case)
    monkeypatch.setattr(module, "draw_case", figure)
    with pytest.warns(Notice, match="moved by up to .* where the JSON of .* says that stack b lies"):
        compare(files["b"], files["sr"], str(tmp_path / "look.png"))
    assert "cubic is here of" not in capsys.readouterr().out
    drawn = {name: image.get_fdata() for name, image in figure.call_args.args[0].items()}
    inner = (slice(8, -8),) * 3
    np.testing.assert_allclose(drawn["cubic"][inner], drawn["SR"][inner], atol=1e-3)
    assert 0 < np.abs(drawn["scan"] - drawn["SR"])[inner].max() < 0.05
    words = "was left out: unlike; name stack a or stack b"
    refused(lambda: compare(files["c"], files["sr"], str(tmp_path / "c.png")), ValueError, words)


def test_what_is_drawn(case, tmp_path, monkeypatch):
    """The volumes on one scale, cubic at the right place, and the voxel that was asked for in all three planes."""
    figure = Mock(wraps=module.draw_case)
    monkeypatch.setattr(module, "draw_case", figure)
    whole, near = str(tmp_path / "whole.png"), str(tmp_path / "near.png")
    compare(case["scan"], case["result"], whole)
    compare(**case, output=near, position=AT, size=16)
    alone, drawn = (
        ({name: image.get_fdata() for name, image in call.args[0].items()}, call.args[2], call.args[3])
        for call in figure.call_args_list
    )
    lr, hr = (nib.load(case[key]).get_fdata() for key in ("scan", "hr"))
    for (volumes, scores, _), titles, unit in ((alone, ["scan", "cubic", "SR"], lr), (drawn, [*alone[0], "HR"], hr)):
        top = np.quantile(unit, 0.999)
        assert list(volumes) == titles and scores.keys() == ({"cubic", "SR"} if "HR" in titles else set())
        np.testing.assert_allclose(volumes["scan"], lr / top, atol=1e-4)
        cubic = interpolate_cubic(lr / top, (2, 2, 1), (0.5, 0.5, 0))
        np.testing.assert_allclose(volumes["cubic"], cubic, atol=1e-4)
        np.testing.assert_allclose(volumes["SR"], (hr + 20) / top, atol=1e-4)
    assert alone[2] is None
    np.testing.assert_allclose(drawn[2][0], SPOT, atol=1e-4)
    pictures = [imread(path) for path in (whole, near)]
    assert all(picture.std() > 0.05 for picture in pictures) and pictures[0].shape != pictures[1].shape
    compare(case["scan"], case["result"], one := str(tmp_path / "one.png"), plane="coronal")
    assert imread(one).shape[0] < pictures[0].shape[0]


@pytest.mark.parametrize(("is_file", "gain"), [(False, 1), (True, 1), (True, 10)])
@pytest.mark.filterwarnings("ignore:.*HR has other units")
def test_scores_are_those_of_an_evaluations_table(tmp_path, capsys, is_file, gain):
    """For LR that is made of HR, and a file with a 99.9th percentile of its own, also in other units than HR."""
    hr = 900 * np.random.default_rng(0).random((24, 24, 24)) ** 4
    hr = hr if gain == 1 else gaussian_filter(hr, 1.5)
    path, degradation = save(tmp_path / "a.nii.gz", hr, OBLIQUE), GaussianProfile((2, 2, 2))
    volume = NormaliseVolumed("hr")({"hr": MetaTensor(hr[None], affine=OBLIQUE, meta={"filename_or_obj": str(path)})})
    lr = MakeLRd("hr", degradation)(volume)["lr"]
    if is_file:
        meta = {"filename_or_obj": "lr.nii.gz"}
        stored = MetaTensor(convert_to_units(lr, volume["hr"])[None] / gain, affine=lr.affine, meta=meta)
        lr = NormaliseVolumed("lr")({"lr": stored})["lr"]
    data = DataLoader(Dataset([{"hr": str(path)}], lambda _: {"lr": lr, "hr": volume["hr"]}), batch_size=1)
    report, network = EvaluationReport(tmp_path, degradation, "SR"), torch.nn.Upsample(scale_factor=2)
    how = {"prepare_batch": lambda batch, *_, **__: (batch["lr"], batch["hr"]), "val_handlers": [report]}
    SupervisedEvaluator(torch.device("cpu"), data, network, **how).run()
    rows = {row["method"]: row for row in json.loads((tmp_path / "table.json").read_text())["cases"]}
    scan = save(tmp_path / "lr.nii.gz", convert_to_units(lr, lr), lr.affine.numpy())
    result = save(tmp_path / "sr.nii.gz", convert_to_units(network(lr[None])[0], lr), OBLIQUE)
    capsys.readouterr()
    compare(str(scan), str(result), str(tmp_path / "out.png"), str(path))
    text = capsys.readouterr().out
    assert gain == 1 or rows["cubic"]["psnr"] > 25
    for method in ("cubic", "SR"):
        assert f"{method}: PSNR {rows[method]['psnr']:.2f} dB, SSIM {rows[method]['ssim']:.4f}" in text


def test_another_scans_result_is_refused(case, tmp_path):
    """By what its JSON says of its inputs, though both scans lie on one grid."""
    described = {"SuperResolution": {"Inputs": [describe_file(case["scan"])]}}
    Path(case["result"]).with_suffix("").with_suffix(".json").write_text(json.dumps(described))
    compare(case["scan"], case["result"], str(tmp_path / "look.png"))
    scan = nib.load(case["scan"])
    other = str(save(tmp_path / "other.nii.gz", scan.get_fdata()[::-1], scan.affine))
    words = f"{case['result']} was made of {case['scan']}", f"not of the voxels of --scan {other}"
    refused(lambda: compare(other, case["result"], str(tmp_path / "wrong.png")), ValueError, *words)
    assert not (tmp_path / "wrong.png").exists()
    nib.save(scan.as_reoriented(np.array([[1, 1], [0, -1], [2, 1]])), other)  # the scan itself
    with pytest.warns(Notice, match="have another order of axes"):
        compare(other, case["result"], str(tmp_path / "turned.png"))


def test_the_page(case, tmp_path, capsys):
    """HTML has the volumes as they are, cubic at the right place, and looks at the point."""
    output = str(tmp_path / "look.html")
    compare(case["scan"], case["result"], output)
    assert list(Page(output).volumes) == ["scan", "cubic", "SR"]
    Path(case["result"]).with_suffix("").with_suffix(".json").write_text('{"SuperResolution": {"Bundle": "udean"}}')
    refused(lambda: compare(**case, output=output), FileExistsError, output, "--overwrite True")
    compare(**case, output=output, position=AT, overwrite=True)
    page, lr = Page(output), nib.load(case["scan"])
    assert page.title == "lr.nii.gz" and "udean" in page.text and output in capsys.readouterr().out
    expected = {
        "scan": lr,
        "cubic": nib.Nifti1Image(interpolate_cubic(lr.get_fdata(), (2, 2, 1), (0.5, 0.5, 0)), AFFINE),
    }
    expected |= {key: nib.load(case[name]) for key, name in (("SR", "result"), ("HR", "hr"))}
    assert list(page.volumes) == list(expected)
    high = np.quantile(lr.get_fdata(), 0.999)
    for key, image in expected.items():
        np.testing.assert_allclose(page.volumes[key].affine, image.affine, atol=1e-4)
        np.testing.assert_allclose(page.volumes[key].get_fdata(), image.get_fdata().clip(0, high), atol=high / 500)
    assert page.settings["at"] == AT and page.settings["errors"]["of"] == ["cubic", "SR"]


def test_the_picture_does_not_depend_on_the_storage(tmp_path):
    """Stored mirrored, with a fourth axis of one and a hole, or with a hot voxel, they give the same picture."""
    hr = 100 * np.random.default_rng(0).random((16, 20, 12))
    lr, affine = degrade(hr, OBLIQUE, KSpaceTruncation((2, 2, 2)))
    holed = lr[..., None].copy()
    lr[0, 0, 0], holed[0, 0, 0] = 0, np.nan
    hot = np.where(np.isnan(holed), 1e30, holed)

    def drawn(name, voxels, axes="RAS", hr=hr, result_axes=None):
        scan = save(tmp_path / name / "lr.nii.gz", voxels, affine, axes=axes)
        result = save(tmp_path / name / "sr.nii.gz", hr, OBLIQUE, axes=result_axes or axes)
        compare(str(scan), str(result), str(tmp_path / "out.png"), overwrite=True)
        return imread(tmp_path / "out.png")

    picture = drawn("plain", lr)
    for turned in (drawn("mirrored", lr, "LSP"), drawn("turned", lr, result_axes="SPL")):
        assert (np.abs(picture - turned) > 0.02).mean() < 1e-5  # the end of a curve is rounded
    for name, voxels in (("holed", holed), ("hot", hot)):
        np.testing.assert_array_equal(picture, drawn(name, voxels))
    for value in (1e30, 1500):  # the result has it too, in 8 voxels
        lr[2, 2, 2], hr[4:6, 4:6, 4:6] = value, value
        assert np.abs(picture - drawn("both", lr, hr=hr)).mean() < 0.01


def test_dicom(tmp_path):
    """A series and its derived one are drawn as their NIfTI files are; of several the message says how to name one."""
    series = Series(shape=(16, 14, 6))
    series.save(tmp_path / "scan")
    (lr,) = find_series(tmp_path / "scan")
    write_nifti(lr, tmp_path / "lr.nii.gz")
    voxels, affine = (
        interpolate_cubic(nib.load(tmp_path / "lr.nii.gz").get_fdata(), (2, 2, 1), (0.5, 0.5, 0)),
        lr.affine.copy(),
    )
    affine[:3, 3] -= affine[:3, :2].sum(axis=1) / 4
    affine[:3, :2] /= 2
    nib.save(nib.Nifti1Image(voxels.clip(0).astype(np.int16), affine), tmp_path / "sr.nii.gz")
    bundle = {"name": "n", "version": "1.0.0", "authors": "a", "sha256": "0"}
    derived = write_derived_series(lr, tmp_path / "sr.nii.gz", tmp_path / "out", bundle)
    pictures = []
    for scan in ("lr.nii.gz", "scan", "scan/0000.dcm", "."):  # the last has the result too
        compare(str(tmp_path / scan), str(derived), str(tmp_path / "out.png"), overwrite=True)
        pictures.append(imread(tmp_path / "out.png")[100:])  # below the title, which is the file's name
    assert all(np.array_equal(pictures[0], other) for other in pictures[1:])
    for name in ("a", "b"):
        series.save(tmp_path / "two" / name)
    for options, *words in (
        ({"scan": tmp_path / "two"}, "--scan", "holds 2 DICOM series", tmp_path / "two" / "a" / "0000.dcm"),
        ({"result": tmp_path / "nothing"}, "--result", "holds no DICOM series"),
    ):
        (tmp_path / "nothing").mkdir(exist_ok=True)
        paths = {key: str(value) for key, value in {"scan": tmp_path / "scan", "result": derived, **options}.items()}
        refused(lambda paths=paths: compare(**paths, output=str(tmp_path / "no.png")), ValueError, *words)


def test_the_cube_is_around_the_point_whatever_the_storage():
    """Planes through a marked voxel show it, and their size is that in mm, cut off at the volume's end."""
    volume = np.zeros((20, 30, 40))
    volume[4, 20, 10] = 1
    for spacing in ([2.0, 1.0, 0.5, 1], [-2.0, 1.0, -0.5, 1]):
        affine = np.diag(spacing)
        view = View.from_point(volume, affine, [4, 20, 10], 8)
        assert to_ras(volume, affine)[0][view.centre] == 1 and [s.stop - s.start for s in view.box] == [5, 9, 17]
        view = View.from_point(volume, affine, [0, 29, 0], 8)
        assert [s.stop - s.start for s in view.box] == [3, 5, 9]


def test_refused(case, tmp_path):
    (tmp_path / "damaged.nii.gz").write_text("no volume")
    save(tmp_path / "4d.nii", np.zeros((4, 4, 4, 2)))
    for change, kind, words in (
        ({"result": "none.nii"}, FileNotFoundError, ["--result none.nii"]),
        ({"result": case["scan"], "scan": case["result"]}, ValueError, ["does not lie on"]),
        ({"hr": case["scan"]}, ValueError, ["lr.nii.gz", "sr.nii.gz"]),
        ({"output": "out.jpg"}, ValueError, ["--output is out.jpg", ".png", ".html"]),
        ({"position": [1, 2]}, ValueError, ["--position is [1, 2]"]),
        ({"size": 0}, ValueError, ["--size is 0"]),
        ({"plane": "oblique"}, ValueError, ["--plane is oblique", "axial, coronal, sagittal"]),
        ({"scan": str(tmp_path / "damaged.nii.gz")}, ValueError, ["--scan", "damaged.nii.gz"]),
        ({"position": [900, 0, 0]}, ValueError, ["--position [900, 0, 0] mm is outside"]),
        ({"scan": str(tmp_path / "4d.nii")}, ValueError, ["4d.nii", "shape (4, 4, 4, 2)"]),
    ):
        options = {"scan": case["scan"], "result": case["result"], "output": str(tmp_path / "out.png"), **change}
        refused(lambda options=options: compare(**options), kind, *words)
    assert not (tmp_path / "out.png").exists()
