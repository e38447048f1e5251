"""``--spacing`` and ``--grid_file``: a single scan on any grid, where the result still agrees with the scan."""

import json
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from scipy.ndimage import map_coordinates

from common.degradations import GaussianProfile, KSpaceTruncation
from common.program.commands.super_resolve import super_resolve
from common.program.dicom.search import find_series
from common.runtime.errors import RunsFailedError
from common.transforms.result_grid import CheckGridd, ResampleResultd

from ...bundles import runs
from ...clients import dicom
from ...refused import has, refused
from ...stacks.phantom import Phantom, grid
from .test_together import displacements

PHANTOM = Phantom(1)
THICK = grid(2, (6, -9, 14), size=56)
CUBIC = (32, 30, 31), np.array([[2.0, 0, 0, -31], [0, 2, 0, -29], [0, 0, 2, -30], [0, 0, 0, 1]])
# Cubes that cover a part of the scans, and thick voxels, both turned against them.
GRIDS = {"cubes": grid(1, (-20, 5, 8), size=40, thick=1), "thick": grid(0, (3, 12, -7), size=48, thick=3)}


def foretell(result, shape, affine, thickness):
    """A scan as a result foretells it, by splines along each slice's normal, and where the result covers it."""
    steps = np.linspace(-1.5, 1.5, 25)
    weights = np.exp(-4 * np.log(2) * steps**2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    total, covered = 0.0, True
    for step, weight in zip(thickness * steps, weights / weights.sum(), strict=True):
        at = affine[:3, :3] @ index + affine[:3, 3:] + step * affine[:3, 2:3]
        places = np.linalg.inv(result.affine)[:3] @ np.concatenate([at, np.ones((1, at.shape[1]))])
        total += weight * map_coordinates(result.get_fdata(), places, order=3, mode="nearest")
        covered &= ((places > 0) & (places.T < np.array(result.shape) - 1).T).all(axis=0)
    return total.reshape(shape), covered.reshape(shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scan with thick slices and a cubic one, oblique and stored in other orders; grids to put them on."""
    folder = tmp_path_factory.mktemp("scans")
    runs.save(folder / "scans" / "thick.nii.gz", 1000 * PHANTOM.stack(*THICK), THICK[1], dtype=np.int16, axes="LPS")
    runs.save(folder / "scans" / "cubic.nii.gz", 1000 * PHANTOM.on(*CUBIC), CUBIC[1], dtype=np.int16, axes="PSR")
    for name, (shape, affine) in GRIDS.items():
        runs.save(folder / f"{name}.nii.gz", np.ones(shape), affine, dtype=np.uint8, axes="SLP")
    runs.save(folder / "label.nii.gz", PHANTOM.on(*THICK) > 0.3, THICK[1], dtype=np.uint8)
    return folder


@pytest.mark.parametrize("wanted", ["spacing", "cubes", "thick"])
@pytest.mark.parametrize("name", ["thick", "cubic"])
def test_the_result_lies_right_and_agrees_with_the_scan(folder, tmp_path, capsys, name, wanted):
    file = folder / "scans" / f"{name}.nii.gz"
    options = {"spacing": 1.3} if wanted == "spacing" else {"grid_file": str(folder / f"{wanted}.nii.gz")}
    begin = partial(super_resolve, str(file), output_dir=str(tmp_path), label=str(folder / "label.nii.gz"), **options)
    begin(dry_run=True)
    begin(adapt_iterations=0)
    result, labels = (nib.load(tmp_path / f"{name}_sr{end}.nii.gz") for end in ("", "_label"))
    sizes = voxel_sizes(result.affine)
    has(capsys.readouterr().out, "to " + " x ".join(f"{size:.3g}" for size in sizes) + f" mm: {name}")
    if wanted == "spacing":
        assert np.allclose(sizes, 1.3) and nib.aff2axcodes(result.affine) == nib.aff2axcodes(nib.load(file).affine)
    else:
        grid_of_file = nib.load(options["grid_file"])
        assert result.shape == grid_of_file.shape and np.allclose(result.affine, grid_of_file.affine, atol=1e-4)
    record = json.loads((tmp_path / f"{name}_sr.json").read_text())["SuperResolution"]
    assert np.allclose(record["SpacingAfter"], sizes) and record["DifferenceFromScan"] < 0.01
    true, values = PHANTOM.on(result.shape, result.affine), result.get_fdata() / 1000
    assert np.corrcoef(values[true > 0.05], true[true > 0.05])[0, 1] > 0.998
    assert labels.shape == result.shape and np.mean((labels.get_fdata() > 0) == (true > 0.3)) > 0.95
    if wanted == "thick":
        return  # its voxels are too far apart to foretell a scan
    assert displacements(values, true).max() < 0.12
    shape, affine = THICK if name == "thick" else CUBIC
    again, covered = foretell(result, shape, affine, name == "thick")
    scan = 1000 * (PHANTOM.stack if name == "thick" else PHANTOM.on)(shape, affine)
    tissue = covered & (scan > 100)
    error = np.sqrt(np.mean((again - scan)[tissue] ** 2) / np.mean(scan[tissue] ** 2))
    assert tissue.sum() > 1000 and error < 0.005


def test_cubes_before_the_networks_first_sample_are_not_black():
    """With k-space truncation the scan's field of view begins half a voxel before that of the result."""
    scan = MetaTensor(torch.ones(1, 10, 10, 10), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])).double())
    step = ResampleResultd("pred", KSpaceTruncation((2, 2, 2)), {"spacing": 0.8, "grid_file": None})
    cubes = step({"image": scan, "pred": torch.ones(1, 20, 20, 20)})["pred"]
    assert cubes.shape == (1, 25, 25, 25) and cubes[0, :-1, :-1, :-1].min() > 0.9


def test_grids_that_a_scan_cannot_have(folder, tmp_path, capsys):
    """Each with what is expected instead; with --together auto single scans have the spacing too."""
    begin = partial(super_resolve, str(folder / "scans"), output_dir=str(tmp_path), dry_run=True)
    for spacing in (0, -1, "nan", float("inf"), "fine", True):
        refused(lambda spacing=spacing: begin(spacing=spacing), ValueError, "--spacing is")
    refused(lambda: begin(spacing=2.5), RunsFailedError, "1 of 2", "cubic.nii.gz: --spacing is 2.5", "0.2")
    refused(lambda: begin(spacing=1e-3), RunsFailedError, "2 of 2", "0.1", "1 x 1 x 4 mm")
    away = runs.save(tmp_path / "away.nii.gz", np.ones((8, 8, 8)), np.eye(4) + 900 * np.eye(4, k=3))
    refused(lambda: begin(grid_file=str(away)), RunsFailedError, "2 of 2", "away.nii.gz: its grid lies outside")
    begin(together="auto", spacing=1.3)
    has(capsys.readouterr().out, "1 x 1 x 4 mm to 1.3 x 1.3 x 1.3 mm: thick")
    large = MetaTensor(torch.zeros(1).expand(1, 512, 512, 512), affine=torch.eye(4), meta={"filename_or_obj": "a.nii"})
    check = CheckGridd("image", GaussianProfile((1, 1, 1)), "cpu", {"spacing": 0.1, "grid_file": None})
    refused(lambda: check({"image": large}), ValueError, "a.nii: its result", "larger --spacing")


def test_derived_series_on_the_grid_of_a_file(tmp_path):
    series = dicom.Series(angles=(5, -8, 12))
    series.save(tmp_path / "in")
    turned = np.array([[0, 0, 2.0, 1], [2.0, 0, 0, 3], [0, -0.5, 0, 8], [0, 0, 0, 1]])
    file = runs.save(tmp_path / "grid.nii.gz", np.ones((12, 16, 14)), dicom.LPS_TO_RAS @ series.lps @ turned)
    super_resolve(str(tmp_path / "in"), output_dir=str(tmp_path), grid_file=str(file), adapt_iterations=0)
    (path,) = tmp_path.glob("*_sr.nii.gz")
    (derived,) = find_series(next(tmp_path.glob("*_dicom")))
    result, written = nib.load(path), derived.open()
    placed = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(written.dataobj), written.affine))
    same = nib.as_closest_canonical(result)
    assert np.allclose(placed.affine, same.affine, atol=1e-3)
    assert np.allclose(placed.get_fdata(), same.get_fdata(), atol=1)
