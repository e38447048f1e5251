"""Random bodies and the anatomy of real volumes: what they are made of, and that they stand alone."""

import nibabel as nib
import numpy as np
import pytest

from common.data.simulation import bodies, randomised
from common.data.simulation.randomised import simulate_random_acquisition
from common.data.simulation.scans import make_anatomy_from_scan
from common.data.simulation.signal import TISSUES
from common.data.simulation.subjects import simulate_subjects
from tests.refused import refused

SPACING = 2.0


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bodies, "_SIZES", (40, 56))


def test_bodies_have_all_tissues_in_fractions_and_some_lie_in_air():
    found = [bodies.make_body(SPACING, np.random.default_rng(seed)) for seed in range(16)]
    amounts = np.zeros(len(TISSUES))
    for fractions, affine in found:
        np.testing.assert_allclose(fractions.sum(0), 1, atol=1e-4)
        assert fractions.min() >= 0
        np.testing.assert_allclose(affine @ [*(np.array(fractions.shape[1:]) - 1) / 2, 1], [0, 0, 0, 1], atol=1e-6)
        np.testing.assert_allclose(np.diag(affine)[:3], SPACING)
        amounts += fractions.mean(axis=(1, 2, 3))
        assert np.count_nonzero(fractions.mean(axis=(1, 2, 3)) > 0.001) >= 3
    assert amounts.min() > 0.01
    corners = [fractions[0, 0, 0, 0] > 0.99 for fractions, _ in found]
    assert 2 <= sum(corners) <= 10


@pytest.mark.parametrize("spacing", [0.8, 2.0])
def test_edges_are_one_to_two_and_a_half_voxels_wide(spacing):
    widths = []
    for seed in range(8):
        draw = bodies._RandomShapes((4, 4, 4), spacing, np.random.default_rng(seed))
        distance = spacing * np.linspace(-3, 3, 6001)
        share = draw.compute_share(distance)
        assert share[0] == 1 and share[-1] == 0 and share[3000] == pytest.approx(0.5, abs=0.01)
        widths.append(np.ptp(distance[(share > 0) & (share < 1)]) / spacing)
    assert 1 < min(widths) < 1.5 and 2 < max(widths) < 2.6


def test_a_cohort_has_bodies_and_real_anatomy_beside_unchanged_heads(tmp_path):
    (tmp_path / "real").mkdir()
    levels = np.zeros((44, 46, 48), np.float32)
    levels[8:36, 8:36, 8:36] = 100
    levels[16:28, 16:28, 16:28] = 200
    levels += 0.2 * np.random.default_rng(0).standard_normal(levels.shape)  # without noise it would be a label map
    nib.save(nib.Nifti1Image(levels, np.diag([SPACING] * 3 + [1])), tmp_path / "real" / "a.nii.gz")

    def make(name, **options):
        simulate_subjects(str(tmp_path / name), 1, contrasts="random1,t1w", spacing=4.0, **options)
        return {path.name: nib.load(path) for path in sorted((tmp_path / name).rglob("*.nii.gz"))}

    heads = make("heads")
    all_of_them = make("all", bodies=2, scans=str(tmp_path / "real"))
    fewer = make("fewer", bodies=1)
    subjects = ("001", "body001", "body002", "scan001")
    assert set(all_of_them) == {f"sub-{s}_{c}.nii.gz" for s in subjects for c in ("random1", "t1w")}
    for name, image in (heads | fewer).items():
        np.testing.assert_array_equal(image.dataobj, all_of_them[name].dataobj)
    assert all(40 <= n < 56 for n in all_of_them["sub-body001_t1w.nii.gz"].shape)
    for spacing in (SPACING, 3.0):
        fractions, affine = make_anatomy_from_scan(tmp_path / "real" / "a.nii.gz", spacing, np.random.default_rng(0))
        np.testing.assert_allclose(nib.affines.voxel_sizes(affine), spacing)
        np.testing.assert_allclose(fractions.sum(0), 1, atol=1e-4)
        places = np.array([[4] * 3, [24] * 3, [44] * 3]) / spacing  # mm: outside, shell, core
        tissues = [fractions[(slice(None), *place.round().astype(int))].argmax() for place in places]
        assert len(set(tissues)) == 3
    refused(lambda: make("none", scans=str(tmp_path / "heads")), ValueError, "--scans", "no .nii")
    refused(lambda: make("none", scans=str(tmp_path / "missing")), FileNotFoundError, "--scans")


def test_fat_is_shifted_against_water_in_some_scans(monkeypatch):
    monkeypatch.setattr(randomised, "_make_random_texture", lambda shape, *_: np.zeros(shape, np.float32))
    monkeypatch.setattr(randomised, "make_random_bias_field", lambda shape, *_: np.ones(shape, np.float32))
    fractions = np.zeros((len(TISSUES), 40, 41, 42), np.float32)
    fractions[TISSUES.index("muscle")] = 1
    inside = np.zeros(fractions.shape[1:], bool)
    inside[12:28, 12:28, 12:28] = True
    shifts = []
    for tissue in ("fat", "csf"):
        fractions[:, inside] = 0
        fractions[TISSUES.index(tissue), inside] = 1
        moved = []
        for seed in range(12):
            scan = simulate_random_acquisition(fractions, np.random.default_rng(seed)).astype(float)
            faces = [np.roll(inside, step, axis) & ~inside for axis in range(3) for step in (-1, 1)]
            means = [scan[face].mean() for face in faces]
            moved.append(np.ptp(means) > 50)
        shifts.append(sum(moved))
    assert 2 <= shifts[0] <= 10 and shifts[1] == 0
