"""Simulated heads: their grid, anatomy and contrasts, label maps, scans at random, and what is refused."""

import itertools
import os
import sys
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage

from common.data.simulation import anatomy, labelmap, randomised, signal
from common.data.simulation.signal import CONTRASTS, HOUNSFIELD, TISSUES, simulate_acquisition
from common.data.simulation.subjects import simulate_subjects
from tests.refused import refused

SPACING = 2.0


def voxels(image):
    return np.asarray(image.dataobj)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    simulate_subjects(str(folder), subjects=2, seed=3, spacing=SPACING)
    return {(s, c): nib.load(folder / s / f"{s}_{c}.nii.gz") for s in ("sub-001", "sub-002") for c in CONTRASTS}


def test_geometry(cohort):
    for (subject, contrast), image in cohort.items():
        first = cohort[subject, "t1w"]
        np.testing.assert_allclose(image.affine[:3, :3], SPACING * np.eye(3), atol=1e-6)
        np.testing.assert_array_equal(image.affine, first.affine)
        assert image.shape == first.shape and image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), SPACING)
        assert image.get_data_dtype() == np.int16 and image.header["sform_code"] == image.header["qform_code"] == 1
        if contrast == "ct":
            # The centre of the MNI152 brain lies in the brain; the head is framed by air, but for the neck.
            extent = np.argwhere(voxels(image) > 300) * SPACING + image.affine[:3, 3]
            assert np.all(extent.min(0) < [-60, -90, -40]) and np.all(extent.max(0) > [60, 60, 70])
            for face in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1], np.s_[:, :, -1]):
                assert voxels(image)[face].max() < -900


def test_edges_of_contrasts_fit_better_where_they_are_than_one_voxel_off(cohort):
    inner, gradients = (slice(2, -2),) * 3, {c: np.gradient(voxels(cohort["sub-001", c]) * 1.0) for c in CONTRASTS}
    edges = {contrast: np.log1p(np.linalg.norm(gradient, axis=0)) for contrast, gradient in gradients.items()}
    for a, b in itertools.combinations(CONTRASTS, 2):
        reference = np.corrcoef(edges[a][inner].ravel(), edges[b][inner].ravel())[0, 1]
        assert reference > 0.5
        for axis, step in itertools.product(range(3), (-1, 1)):
            moved = np.roll(edges[b], step, axis)[inner]
            assert np.corrcoef(edges[a][inner].ravel(), moved.ravel())[0, 1] < reference


def test_seed_decides_and_subjects_and_contrasts_stand_alone(cohort, tmp_path):
    simulate_subjects(str(tmp_path / "a"), subjects=3, seed=3, spacing=SPACING, contrasts="t2w", threads=2)
    simulate_subjects(str(tmp_path / "b"), subjects=1, seed=4, spacing=SPACING, contrasts=("t2w",))
    names = [f"sub-00{n}" for n in (1, 2, 3)]
    assert {p.name for p in (tmp_path / "a").rglob("*.*")} == {f"{name}_t2w.nii.gz" for name in names}
    for name in names[:2]:
        again, reference = nib.load(tmp_path / "a" / name / f"{name}_t2w.nii.gz"), cohort[name, "t2w"]
        np.testing.assert_array_equal(voxels(again), voxels(reference))
        np.testing.assert_array_equal(again.affine, reference.affine)
    other, reference = nib.load(tmp_path / "b" / "sub-001" / "sub-001_t2w.nii.gz"), cohort["sub-001", "t2w"]
    for image in (other, cohort["sub-002", "t2w"]):
        to_image = np.linalg.inv(image.affine) @ reference.affine
        moved = ndimage.affine_transform(voxels(image), to_image, output_shape=reference.shape, order=0)
        assert np.corrcoef(voxels(reference).ravel(), moved.ravel())[0, 1] < 0.85


def test_fractions_contrasts_noise_and_bias():
    fractions = anatomy.make_head_from_template(SPACING, np.random.default_rng(5))[0]
    np.testing.assert_allclose(fractions.sum(0), 1, atol=1e-4)
    # Layers as thin as skull and marrow have hardly a pure voxel at this spacing.
    shares = {name: fractions[TISSUES.index(name)] for name in TISSUES if name not in ("blood", "marrow", "skin")}
    pure = {name: share >= min(0.95, share.max()) for name, share in shares.items()}
    volumes = [simulate_acquisition(fractions, contrast, np.random.default_rng(0)) for contrast in ("t1w", "t2w", "ct")]
    t1w, t2w, ct = ({name: np.median(volume[mask]) for name, mask in pure.items()} for volume in volumes)
    assert t1w["fat"] > t1w["wm"] > t1w["gm"] > t1w["csf"]
    assert t2w["csf"] > t2w["gm"] > t2w["wm"] > t2w["muscle"]
    assert ct["bone"] > 600 > 300 > ct["gm"] > ct["wm"] > ct["csf"] > ct["fat"] > ct["air"]
    # Grey and white matter are there in the shares of a real brain, and most of the brain is one or the other.
    litres = dict(zip(TISSUES, fractions.sum((1, 2, 3)) * SPACING**3 / 1e6, strict=True))
    assert fractions.min() >= 0 and 0.4 < litres["gm"] < 1.1 and 0.35 < litres["wm"] < 0.9
    air, sigma = fractions[0] == 1, 20.0
    noisy = simulate_acquisition(fractions, "t1w", np.random.default_rng(1), noise=sigma / 1000)[air].astype(float)
    np.testing.assert_allclose(noisy.mean(), sigma * np.sqrt(np.pi / 2), rtol=0.01)  # Rayleigh
    np.testing.assert_allclose(noisy.std(), sigma * np.sqrt(2 - np.pi / 2), rtol=0.01)
    assert not simulate_acquisition(fractions, "t1w", np.random.default_rng(1), noise=0)[air].any()
    field = signal.make_random_bias_field((20, 24, 22), 0.2, np.random.default_rng(2))
    assert field.min() < 0.95 and field.max() > 1.05 and np.abs(field - 1).max() <= 0.2 + 1e-6
    flat = simulate_acquisition(fractions, "t1w", np.random.default_rng(1), noise=0, bias=0)
    assert set(flat[fractions[TISSUES.index("wm")] == 1].tolist()) == {1000}


def test_sequences_are_the_bloch_equation():
    """The closed forms against the magnetisation followed pulse by pulse until it repeats."""
    t1, t2, pd, tr, ti, te = 1331.0, 90.0, 0.82, 2300.0, 900.0, 100.0
    spacing, pulses, flip = 7.1, 160, np.deg2rad(9.0)

    def relax(m, time):
        return pd + (m - pd) * np.exp(-time / t1)

    train = recovery = pd
    for _ in range(20):
        train = relax(-train, ti - spacing * pulses / 2)
        for pulse in range(pulses):
            if pulse == pulses // 2:
                sampled = train * np.sin(flip)
            train = relax(train * np.cos(flip), spacing)
        train = relax(train, tr - ti - spacing * pulses / 2)
        excited = relax(-recovery, ti)
        recovery = relax(0, tr - ti)  # the excitation takes all of it
    np.testing.assert_allclose(signal.compute_mprage_signal(np.array(t1), np.array(pd)), sampled, rtol=1e-9)
    found = signal.compute_inversion_recovery_signal(np.array(t1), np.array(t2), np.array(pd), tr, ti, te)
    np.testing.assert_allclose(found, excited * np.exp(-te / t2), rtol=1e-9)


def test_warps_do_not_fold():
    extent, shape = np.array([196.0, 236.0, 180.0]), (50, 60, 46)
    step = extent / (np.array(shape) - 1)
    for seed in range(3):
        displacement = anatomy.make_random_deformation(shape, extent, np.random.default_rng(seed))
        gradient = np.stack([np.stack(np.gradient(component, *step)) for component in displacement])
        assert np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3)).min() > 0.1
        assert 4 < np.sqrt((displacement**2).sum(0)).max() < 12


@pytest.fixture
def labels(tmp_path):
    """A folder of one label map: boxes of skin, soft tissue, bone, CSF, grey and white matter, one in another."""
    values = np.zeros((48, 48, 48), np.int16)
    for depth, label in ((4, 511), (6, 507), (13, 515), (16, 24), (18, 3), (21, 2)):
        values[depth:-depth, depth:-depth, depth:-depth] = label
    # Stored left, inferior, anterior.
    affine = np.array([[-1.0, 0, 0, 30], [0, 0, 1.0, -20], [0, -1.0, 0, 40], [0, 0, 0, 1]])
    (tmp_path / "labels").mkdir()
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "labels" / "a.nii.gz")
    return tmp_path / "labels"


def copied(labels, count):
    for i in range(1, count):
        (labels / f"b{i:02d}.nii.gz").write_bytes((labels / "a.nii.gz").read_bytes())
    return str(labels)


@pytest.mark.parametrize("spacing", [1.0, 1.5])
def test_label_maps(tmp_path, labels, spacing):
    simulate_subjects(str(tmp_path / "out"), subjects=1, spacing=spacing, labels=str(labels), noise=0)
    images = {c: nib.load(tmp_path / "out" / "sub-001" / f"sub-001_{c}.nii.gz") for c in CONTRASTS}
    for image in images.values():
        np.testing.assert_array_equal(image.affine, images["t1w"].affine)
        np.testing.assert_allclose(image.header.get_zooms(), spacing, rtol=1e-6)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    # World coordinates are kept: walk from the point in the white matter outwards along x, through all the layers.
    inside = apply_affine(nib.load(labels / "a.nii.gz").affine, [24, 24, 24])

    def at(contrast, x_offset):
        index = apply_affine(np.linalg.inv(images[contrast].affine), np.add(inside, [x_offset, 0, 0]))
        return int(voxels(images[contrast])[tuple(np.rint(index).astype(int))])

    for offset, tissue in ((0, "wm"), (22, "air"), (17, "fat"), (13, "muscle"), (10, "bone")):
        mean, spread = HOUNSFIELD[TISSUES.index(tissue)]
        assert abs(at("ct", offset) - mean) < 2 * spread + 250 * (tissue != "wm"), (offset, tissue)
    assert at("t1w", 0) > 1.2 * at("t1w", 5)
    assert voxels(images["ct"]).min() == -1000 and (voxels(images["ct"]) > 700).any()


def test_refused(tmp_path, labels, monkeypatch):
    out, folder, file = str(tmp_path / "out"), str(labels), labels / "a.nii.gz"
    values, affine = voxels(nib.load(file)).copy(), nib.load(file).affine
    values[24, 24, 24] = 777
    nib.save(nib.Nifti1Image(values, affine), file)
    for arguments, words in (
        ({"contrasts": "t1w,flair"}, ["--contrasts", "flair", "t1w,t2w,ct"]),
        ({"contrasts": ()}, ["--contrasts"]),
        ({"contrasts": "random0"}, ["--contrasts random0", "random1"]),
        ({"subjects": 0}, ["subjects is 0"]),
        ({"subjects": 1.5}, ["subjects is 1.5"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"spacing": 0.1}, ["--spacing 0.1", "0.4", "4"]),
        ({"spacing": [2, 1]}, ["--spacing [2, 1]", "or two"]),
        ({"spacing": [1, 2, 3]}, ["--spacing"]),
        ({"noise": -0.1}, ["--noise -0.1"]),
        ({"bias": 1}, ["--bias 1"]),
        ({"blur": 0.4}, ["--blur", "--labels"]),
        ({"thickness": 2}, ["--thickness", "--labels"]),
        ({"labels": folder, "thickness": 0.5}, ["--thickness 0.5", "1", "6"]),
        ({"labels": folder, "blur": [0.1, 1]}, ["--blur [0.1, 1]", "0.2"]),
        ({"labels": folder, "subjects": 2}, [folder, "1 label maps", "--subjects is 2"]),
        ({"labels": folder, "subjects": 1}, ["a.nii.gz", "[777]"]),
    ):
        refused(lambda arguments=arguments: simulate_subjects(out, **arguments), ValueError, *words)
    refused(lambda: simulate_subjects(out, labels=f"{folder}/none"), FileNotFoundError, f"--labels {folder}/none")
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 0.5, np.float32), np.eye(4)), file)
    refused(lambda: labelmap.make_head_from_labels(file, (1.0, 1.0, 1.0)), ValueError, "a.nii.gz", "float32", "integer")
    monkeypatch.setitem(sys.modules, "nilearn", None)
    refused(anatomy.load_template.__wrapped__, ModuleNotFoundError, "nilearn", "pip install '.[demo]'")
    assert not (tmp_path / "out").exists()


def test_thick_slices_of_label_maps(tmp_path, labels):
    """The head stays where it is; of two numbers about half of the heads have the lower."""
    options = {"contrasts": "t1w", "noise": 0, "bias": 0, "spacing": 2.0, "labels": copied(labels, 12)}

    def made(name, thickness):
        simulate_subjects(str(tmp_path / name), 12, thickness=thickness, **options)
        return [nib.load(file) for file in sorted((tmp_path / name).rglob("*.nii.gz"))]

    for a, b in zip(made("thin", 1), made("thick", 3), strict=True):
        np.testing.assert_allclose(b.header.get_zooms(), (2, 2, 6), rtol=1e-6)
        to_thin, (thin, thick) = np.linalg.inv(a.affine) @ b.affine, (image.get_fdata() for image in (a, b))
        moved = ndimage.affine_transform(thin, to_thin, output_shape=b.shape, order=1)
        inside = (moved > 200) & (thick > 200)
        assert np.corrcoef(moved[inside], thick[inside])[0, 1] > 0.8
        centres = [apply_affine(v.affine, ndimage.center_of_mass(v.get_fdata())) for v in (a, b)]
        assert np.abs(np.subtract(*centres)).max() < 1
    times = [image.header.get_zooms()[2] / 2 for image in made("some", [1, 3])]
    assert 3 <= times.count(1.0) <= 9 and len(set(times)) == 13 - times.count(1.0) and max(times) <= 3


def test_what_is_cut_off_is_air(labels, monkeypatch):
    small, file = nib.load(labels / "a.nii.gz"), labels / "padded.nii.gz"
    nib.save(nib.Nifti1Image(np.pad(voxels(small), 20), small.affine @ from_matvec(np.eye(3), [-20] * 3)), file)
    heads = []
    for margin in (1e6, 3.0):
        monkeypatch.setattr(labelmap, "MARGIN", margin)
        heads.append(labelmap.make_head_from_labels(file, (0.8, 0.8, 1.7)))
    (all_of_it, affine), (head, moved) = heads
    first = np.round(np.linalg.inv(affine) @ moved[:, 3])[:3].astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(first, head.shape[1:], strict=True))
    assert np.prod(head.shape) < np.prod(all_of_it.shape)
    np.testing.assert_allclose(affine[:3, :3], moved[:3, :3])
    np.testing.assert_allclose(all_of_it[(slice(None), *box)], head, atol=1e-6)
    all_of_it[0][box] = 1
    assert all_of_it[0].min() > 0.99


def test_contrasts_and_masks_of_random_scans_and_grids_of_subjects_differ_by_the_seed(tmp_path, labels, monkeypatch):
    monkeypatch.setattr(randomised, "_LEAST_BRAIN", 0)  # that of the boxes is small

    def make(folder, contrasts, seed=0):
        simulate_subjects(str(tmp_path / folder), 2, seed, contrasts, [0.8, 1.4], copied(labels, 2), blur=[0.4, 0.7])
        return {path.name: nib.load(path) for path in sorted((tmp_path / folder).rglob("*.nii.gz"))}

    scans, again = make("all", [f"random{i}" for i in range(1, 9)]), make("one", "random3")
    assert len(scans) == 16
    assert all(np.array_equal(image.dataobj, scans[name].dataobj) for name, image in again.items())
    assert make("other", "random3", seed=1)["sub-001_random3.nii.gz"].shape != again["sub-001_random3.nii.gz"].shape
    spacings = {name[:7]: image.header.get_zooms() for name, image in scans.items()}
    assert len(set(spacings.values())) == 2 and all(0.8 <= min(mm) == max(mm) <= 1.4 for mm in spacings.values())
    masked, contrasts = [], []
    for name, image in scans.items():
        volume = voxels(image)
        assert volume.dtype == np.int16 and volume.min() >= 0
        assert np.quantile(volume, 0.999) == pytest.approx(1000, abs=1)
        # White matter in the middle, grey matter next to it, bone further out, air at the edge.
        x, y, z = np.array(volume.shape) // 2
        wm, gm, bone = (float(volume[x + round(r / spacings[name[:7]][0]), y, z]) for r in (0, 4.5, 9.5))
        masked.append((bool((volume[:3] == 0).all()), bone == 0))
        contrasts.append(wm - gm)
    # Not masked, the head, the brain: each is there.
    assert {air for air, _ in masked} == {True, False} and {brain for air, brain in masked if air} == {True, False}
    assert min(contrasts) < -50 and max(contrasts) > 50


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_random_textures_fall_with_frequency(power):
    field = randomised._make_random_texture((64, 60, 62), power, np.random.default_rng(0))
    assert abs(field.mean()) < 1e-5 and field.std() == pytest.approx(1, abs=1e-5)
    frequencies = np.meshgrid(*map(np.fft.fftfreq, field.shape), indexing="ij")
    radius, spectrum = np.sqrt(sum(f**2 for f in frequencies)), np.abs(np.fft.fftn(field)) ** 2
    band = (radius > 0.05) & (radius < 0.5)
    assert np.polyfit(np.log(radius[band]), np.log(spectrum[band]), 1)[0] == pytest.approx(-2 * power, abs=0.1)


def test_interrupted_write_leaves_nothing(tmp_path, labels, monkeypatch):
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError("disk full")))
    refused(lambda: simulate_subjects(str(tmp_path / "out"), subjects=1, labels=str(labels)), OSError, "disk full")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
