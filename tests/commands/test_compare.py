"""``python -m common compare``: what it draws, where, and what it refuses."""

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from common.commands import compare as module
from common.commands.compare import compare
from common.degradations import BlockAverage, KSpaceTruncation
from common.metrics import cubic, psnr
from common.reports.planes import Grid

from ..bundles.runs import OBLIQUE, degrade, save
from ..pages import Page

DEGRADATION = BlockAverage((2, 2, 1))
AFFINE = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
SPOT = np.array([25, 20, 14])


@pytest.fixture
def case(tmp_path):
    """A ball with a bright spot, its LR scan, and a result that is a little off, on an oblique, flipped grid."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (40, 36, 32)], indexing="ij"), -1)
    hr = 600.0 * (np.linalg.norm(grid - [20, 18, 16], axis=-1) < 12) + 300 * (np.linalg.norm(grid - SPOT, axis=-1) < 3)
    return {
        "hr": str(save(tmp_path / "hr.nii.gz", hr, AFFINE)),
        "lr": str(save(tmp_path / "lr.nii.gz", *degrade(hr, AFFINE, DEGRADATION))),
        "sr": str(save(tmp_path / "sr.nii.gz", hr + 20, AFFINE)),
    }


def test_what_is_drawn(case, tmp_path, monkeypatch):
    """The volumes on one scale, cubic at the right place, and the voxel that was asked for in all three planes."""
    drawn = {}
    figure = module.case_figure

    def spy(path, lr, cubic, sr, hr, name, scores, affine, factors, offset, **zoom):
        drawn.update(lr=lr, cubic=cubic, sr=sr, hr=hr, scores=scores, factors=factors, offset=offset, **zoom)
        figure(path, lr, cubic, sr, hr, name, scores, affine, factors, offset, **zoom)

    monkeypatch.setattr(module, "case_figure", spy)
    whole, near = str(tmp_path / "whole.png"), str(tmp_path / "near.png")
    compare(case["lr"], case["sr"], whole)
    assert drawn["hr"] is None and not drawn["scores"] and drawn["zoom"] is None
    at = nib.affines.apply_affine(AFFINE, SPOT).tolist()
    compare(case["lr"], case["sr"], near, hr=case["hr"], at=at, size=16)
    assert drawn["factors"] == [2, 2, 1] and drawn["offset"] == [0.5, 0.5, 0]
    np.testing.assert_allclose(drawn["zoom"][0], SPOT, atol=1e-4)
    lr = nib.load(case["lr"]).get_fdata()
    high = np.quantile(lr, 0.999)
    hr = nib.load(case["hr"]).get_fdata() / high
    expected = cubic(lr / high, (2, 2, 1), (0.5, 0.5, 0))
    np.testing.assert_allclose(drawn["cubic"], expected, atol=1e-4)
    np.testing.assert_allclose(drawn["sr"] - drawn["hr"], 20 / high, atol=1e-4)
    assert drawn["scores"]["cubic"]["psnr"] == pytest.approx(psnr(expected.clip(0, 1), hr.clip(0, 1)), abs=1e-3)
    pictures = [imread(path) for path in (whole, near)]
    assert all(picture.std() > 0.05 for picture in pictures) and pictures[0].shape != pictures[1].shape


def test_the_page(case, tmp_path, capsys):
    """HTML has the volumes as they are, cubic at the right place, and looks at the point."""
    compare(case["lr"], case["sr"], str(tmp_path / "look.html"))
    assert list(Page(tmp_path / "look.html").volumes) == ["scan", "cubic", "SR"]
    at = nib.affines.apply_affine(AFFINE, SPOT).tolist()
    compare(case["lr"], case["sr"], str(tmp_path / "look.html"), hr=case["hr"], at=at)
    page, lr = Page(tmp_path / "look.html"), nib.load(case["lr"])
    assert page.title == "lr.nii.gz" and capsys.readouterr().out.endswith("look.html\n")
    expected = {"scan": lr, "cubic": nib.Nifti1Image(cubic(lr.get_fdata(), (2, 2, 1), (0.5, 0.5, 0)), AFFINE)}
    expected |= {key: nib.load(case[key.lower()]) for key in ("SR", "HR")}
    assert list(page.volumes) == list(expected)
    high = np.quantile(lr.get_fdata(), 0.999)
    for key, image in expected.items():
        np.testing.assert_allclose(page.volumes[key].affine, image.affine, atol=1e-4)
        np.testing.assert_allclose(page.volumes[key].get_fdata(), image.get_fdata().clip(0, high), atol=high / 500)
    assert page.settings["at"] == at and page.settings["errors"]["of"] == ["cubic", "SR"]


def test_the_picture_does_not_depend_on_the_storage(tmp_path):
    """A result lies on the scan from the world's side, so from the other end where both are stored mirrored."""
    hr = 100 * np.random.default_rng(0).random((16, 20, 12))
    truncation = KSpaceTruncation((2, 2, 2))
    pictures = []
    for axes in ("RAS", "LSP"):
        files = {
            "lr": save(tmp_path / axes / "lr.nii.gz", *degrade(hr, OBLIQUE, truncation), axes=axes),
            "sr": save(tmp_path / axes / "sr.nii.gz", hr, OBLIQUE, axes=axes),
        }
        compare(**{key: str(path) for key, path in files.items()}, output=str(tmp_path / f"{axes}.png"))
        pictures.append(imread(tmp_path / f"{axes}.png"))
    np.testing.assert_allclose(*pictures, atol=0.02)


def test_one_volume_of_four_axes_and_holes_are_drawn(case, tmp_path):
    lr = nib.load(case["lr"])
    voxels = lr.get_fdata(dtype=np.float32)[..., None]
    voxels[0, 0, 0] = np.nan
    save(tmp_path / "4d" / "lr.nii.gz", voxels, lr.affine)
    pictures = []
    for path in (case["lr"], str(tmp_path / "4d" / "lr.nii.gz")):
        compare(path, case["sr"], str(tmp_path / "out.png"))
        pictures.append(imread(tmp_path / "out.png"))
    np.testing.assert_array_equal(*pictures)


def test_the_cube_is_around_the_point_whatever_the_storage():
    """Planes through a marked voxel show it, and their size is that in mm, cut off at the volume's end."""
    for axes in ([1, 1, 1], [-1, 1, -1]):
        grid = Grid(np.diag([2.0, 1.0, 0.5, 1]) @ np.diag([*axes, 1.0]))
        volume = np.zeros((20, 30, 40))
        volume[4, 20, 10] = 1
        centre, box = grid.cube(volume.shape, [4, 20, 10], 8)
        canonical = grid.canonical(volume)
        assert canonical[centre] == 1 and [s.stop - s.start for s in box] == [5, 9, 17]
        centre, box = grid.cube(volume.shape, [0, 29, 0], 8)
        assert [s.stop - s.start for s in box] == [3, 5, 9]


def test_what_is_refused(case, tmp_path):
    out = str(tmp_path / "out.png")
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_text("no volume")
    for change, error, said in (
        ({"sr": "none.nii"}, FileNotFoundError, r"--sr none\.nii: there is no such file"),
        ({"sr": case["lr"], "lr": case["sr"]}, ValueError, r"does not lie on .*expected the same directions"),
        ({"hr": case["lr"]}, ValueError, r"lr\.nii\.gz does not lie on the grid of .*sr\.nii\.gz"),
        ({"output": "out.jpg"}, ValueError, r"--output is out\.jpg, expected .*\.png, or in \.html"),
        ({"at": [1, 2]}, ValueError, r"--at is \[1, 2\], expected three numbers"),
        ({"size": 0}, ValueError, r"--size is 0, expected"),
        ({"lr": str(damaged)}, ValueError, r"--lr .*damaged\.nii\.gz is no NIfTI file"),
        ({"at": [900, 0, 0]}, ValueError, r"--at \[900, 0, 0\] mm is outside"),
        ({"lr": str(save(tmp_path / "4d.nii", np.zeros((4, 4, 4, 2)))), }, ValueError, r"shape \(4, 4, 4, 2\)"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            compare(**{"lr": case["lr"], "sr": case["sr"], "output": out, **change})
    assert not (tmp_path / "out.png").exists()
