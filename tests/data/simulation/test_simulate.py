import itertools
import os
import sys

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage

from common.commands.simulate import simulate
from common.data.simulation import anatomy, labelmap, randomised
from common.data.simulation.signal import (
    CONTRASTS,
    HOUNSFIELD,
    TISSUES,
    acquire,
    bias_field,
    inversion_recovery,
    mprage,
)

SPACING = 2.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    simulate(str(folder), subjects=2, seed=3, spacing=SPACING)
    return {
        (subject, contrast): nib.load(folder / subject / f"{subject}_{contrast}.nii.gz")
        for subject in ("sub-001", "sub-002")
        for contrast in CONTRASTS
    }


@pytest.fixture(scope="module")
def head():
    return anatomy.head_from_template(SPACING, np.random.default_rng(5))


def test_geometry(cohort):
    for subject in ("sub-001", "sub-002"):
        first = cohort[subject, "t1w"]
        np.testing.assert_allclose(first.affine[:3, :3], SPACING * np.eye(3), atol=1e-6)
        for contrast in CONTRASTS:
            image = cohort[subject, contrast]
            assert image.shape == first.shape and image.get_data_dtype() == np.int16
            np.testing.assert_array_equal(image.affine, first.affine)
            np.testing.assert_allclose(image.header.get_zooms(), SPACING)
            assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
            assert image.header.get_xyzt_units()[0] == "mm"
        # The centre of the MNI152 brain lies in the brain; the head is framed by air, but for the neck.
        bone = np.asarray(cohort[subject, "ct"].dataobj) > 300
        extent = np.argwhere(bone) * SPACING + first.affine[:3, 3]
        assert np.all(extent.min(0) < [-60, -90, -40]) and np.all(extent.max(0) > [60, 60, 70])
        for face in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1], np.s_[:, :, -1]):
            assert np.asarray(cohort[subject, "ct"].dataobj)[face].max() < -900


def test_contrasts_are_registered(cohort):
    """Edges of two contrasts fit each other best where they are, better than one voxel off along any axis."""
    edges = {}
    for contrast in CONTRASTS:
        volume = np.asarray(cohort["sub-001", contrast].dataobj).astype(float)
        edges[contrast] = np.log1p(np.sqrt(sum(g**2 for g in np.gradient(volume))))
    for a, b in itertools.combinations(CONTRASTS, 2):
        inner = (slice(2, -2),) * 3
        reference = np.corrcoef(edges[a][inner].ravel(), edges[b][inner].ravel())[0, 1]
        assert reference > 0.5
        for axis, step in itertools.product(range(3), (-1, 1)):
            moved = np.roll(edges[b], step, axis)[inner]
            assert np.corrcoef(edges[a][inner].ravel(), moved.ravel())[0, 1] < reference


def test_seed_decides_and_subjects_stand_alone(cohort, tmp_path):
    """Subject 1's T2w is the same voxels when it is made alone and without other contrasts, other seeds differ."""
    simulate(str(tmp_path / "a"), subjects=1, seed=3, spacing=SPACING, contrasts="t2w")
    simulate(str(tmp_path / "b"), subjects=1, seed=4, spacing=SPACING, contrasts=("t2w",))
    again, other = (nib.load(tmp_path / name / "sub-001" / "sub-001_t2w.nii.gz") for name in "ab")
    assert [p.name for p in (tmp_path / "a").rglob("*.*")] == ["sub-001_t2w.nii.gz"]
    reference = cohort["sub-001", "t2w"]
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(reference.dataobj))
    np.testing.assert_array_equal(again.affine, reference.affine)
    for image in (other, cohort["sub-002", "t2w"]):
        first = np.asarray(reference.dataobj).astype(float)
        moved = np.rint((image.affine[:3, 3] - reference.affine[:3, 3]) / SPACING).astype(int)
        start = np.maximum(moved, 0)
        stop = np.minimum(first.shape, np.array(image.shape) + moved)
        here = first[tuple(map(slice, start, stop))]
        there = np.asarray(image.dataobj)[tuple(map(slice, start - moved, stop - moved))]
        assert np.corrcoef(here.ravel(), there.ravel())[0, 1] < 0.85


def test_fractions_and_contrast_order(head):
    fractions, _ = head
    np.testing.assert_allclose(fractions.sum(0), 1, atol=1e-4)
    assert fractions.min() >= 0
    median = {}
    for contrast in CONTRASTS:
        volume = acquire(fractions, contrast, np.random.default_rng(0))
        # Layers as thin as skull and marrow have hardly a pure voxel at this spacing.
        shares = {name: fractions[TISSUES.index(name)] for name in TISSUES if name not in ("blood", "marrow", "skin")}
        median[contrast] = {name: np.median(volume[share >= min(0.95, share.max())]) for name, share in shares.items()}
    assert median["t1w"]["fat"] > median["t1w"]["wm"] > median["t1w"]["gm"] > median["t1w"]["csf"]
    assert median["t2w"]["csf"] > median["t2w"]["gm"] > median["t2w"]["wm"] > median["t2w"]["muscle"]
    ct = median["ct"]
    assert ct["bone"] > 600 > 300 > ct["gm"] > ct["wm"] > ct["csf"] > ct["fat"] > ct["air"]
    # Grey and white matter are there in the shares of a real brain, and most of the brain is one or the other.
    volumes = dict(zip(TISSUES, fractions.sum((1, 2, 3)) * SPACING**3 / 1e6, strict=True))
    assert 0.4 < volumes["gm"] < 1.1 and 0.35 < volumes["wm"] < 0.9


def test_noise_and_bias(head):
    fractions, _ = head
    air = fractions[0] == 1
    sigma = 20.0
    noisy = acquire(fractions, "t1w", np.random.default_rng(1), noise=sigma / 1000)[air].astype(float)
    np.testing.assert_allclose(noisy.mean(), sigma * np.sqrt(np.pi / 2), rtol=0.01)  # Rayleigh
    np.testing.assert_allclose(noisy.std(), sigma * np.sqrt(2 - np.pi / 2), rtol=0.01)
    assert not acquire(fractions, "t1w", np.random.default_rng(1), noise=0)[air].any()
    field = bias_field((20, 24, 22), 0.2, np.random.default_rng(2))
    assert field.min() < 0.95 and field.max() > 1.05 and np.abs(field - 1).max() <= 0.2 + 1e-6
    flat = acquire(fractions, "t1w", np.random.default_rng(1), noise=0, bias=0)
    white = flat[fractions[TISSUES.index("wm")] == 1]
    assert white.size and set(white.tolist()) == {1000}


def test_mprage_is_the_steady_state_of_the_sequence():
    """The closed form against the magnetisation followed pulse by pulse until it repeats."""
    t1, pd, (tr, ti, spacing, pulses, flip) = 1331.0, 0.82, (2300.0, 900.0, 7.1, 160, 9.0)

    def relax(m, time):
        return pd + (m - pd) * np.exp(-time / t1)

    m = pd
    for _ in range(20):
        m = relax(-m, ti - spacing * pulses / 2)
        for pulse in range(pulses):
            if pulse == pulses // 2:
                signal = m * np.sin(np.deg2rad(flip))
            m = relax(m * np.cos(np.deg2rad(flip)), spacing)
        m = relax(m, tr - ti - spacing * pulses / 2)
    np.testing.assert_allclose(mprage(np.array(t1), np.array(pd)), signal, rtol=1e-9)


def test_warps_do_not_fold():
    extent = np.array([196.0, 236.0, 180.0])
    shape = (50, 60, 46)
    for seed in range(3):
        displacement = anatomy.diffeomorphism(shape, extent, np.random.default_rng(seed))
        step = extent / (np.array(shape) - 1)
        gradient = np.stack([np.stack(np.gradient(component, *step)) for component in displacement])
        jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
        assert jacobian.min() > 0.1
        assert anatomy.jacobian_determinant(displacement, step).min() > 0
        assert 4 < np.sqrt((displacement**2).sum(0)).max() < 12
    mirrored = np.zeros((3, 4, 4, 4), np.float32)
    mirrored[0] = -2 * 1.5 * np.arange(4).reshape(-1, 1, 1)
    np.testing.assert_allclose(anatomy.jacobian_determinant(mirrored, np.full(3, 1.5)), -1, rtol=1e-5)


def _label_map(path, extra=0):
    """Nested boxes of skin, soft tissue, bone, CSF, grey and white matter, stored left, inferior, anterior."""
    values = np.zeros((48, 48, 48), np.int16)
    for depth, label in ((4, 511), (6, 507), (13, 515), (16, 24), (18, 3), (21, 2)):
        values[depth:-depth, depth:-depth, depth:-depth] = label
    values[24, 24, 24] = extra or 2
    affine = np.array([[-1.0, 0, 0, 30], [0, 0, 1.0, -20], [0, -1.0, 0, 40], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(values, affine), path)
    return affine @ [24, 24, 24, 1]


@pytest.mark.parametrize("spacing", [1.0, 1.5])
def test_label_maps(tmp_path, spacing):
    (tmp_path / "labels").mkdir()
    inside = _label_map(tmp_path / "labels" / "a.nii.gz")
    simulate(str(tmp_path / "out"), subjects=1, spacing=spacing, labels=str(tmp_path / "labels"), noise=0)
    images = {c: nib.load(tmp_path / "out" / "sub-001" / f"sub-001_{c}.nii.gz") for c in CONTRASTS}
    ct = np.asarray(images["ct"].dataobj)
    for image in images.values():
        np.testing.assert_array_equal(image.affine, images["t1w"].affine)
        np.testing.assert_allclose(image.header.get_zooms(), spacing, rtol=1e-6)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    # World coordinates are kept: walk from the point in the white matter outwards along x, through all the layers.
    to_voxel = np.linalg.inv(images["ct"].affine)

    def at(image, x_offset):
        index = np.rint(to_voxel @ (inside + np.array([x_offset, 0, 0, 0])))[:3].astype(int)
        return int(np.asarray(image.dataobj)[tuple(index)])

    for offset, tissue in ((0, "wm"), (22, "air"), (17, "fat"), (13, "muscle"), (10, "bone")):
        mean, spread = HOUNSFIELD[tissue]
        assert abs(at(images["ct"], offset) - mean) < 2 * spread + 250 * (tissue != "wm"), (offset, tissue)
    assert at(images["t1w"], 0) > 1.2 * at(images["t1w"], 5)
    assert ct.min() == -1000 and (ct > 700).any()


def test_bad_arguments(tmp_path, monkeypatch):
    labels = tmp_path / "labels"
    labels.mkdir()
    _label_map(labels / "a.nii.gz", extra=777)
    for arguments, words in (
        ({"contrasts": "t1w,flair"}, ["--contrasts", "flair", "t1w,t2w,ct"]),
        ({"contrasts": ()}, ["--contrasts"]),
        ({"subjects": 0}, ["--subjects 0"]),
        ({"subjects": 1.5}, ["--subjects 1.5"]),
        ({"seed": -1}, ["--seed -1"]),
        ({"spacing": 0.1}, ["--spacing 0.1", "0.4", "4"]),
        ({"noise": -0.1}, ["--noise -0.1"]),
        ({"bias": 1}, ["--bias 1"]),
        ({"spacing": [2, 1]}, ["--spacing [2, 1]", "or two"]),
        ({"spacing": [1, 2, 3]}, ["--spacing"]),
        ({"contrasts": "random0"}, ["--contrasts random0", "random1"]),
        ({"blur": 0.4}, ["--blur", "--labels"]),
        ({"thickness": 2}, ["--thickness", "--labels"]),
        ({"labels": str(labels), "thickness": 0.5}, ["--thickness 0.5", "1", "6"]),
        ({"labels": str(labels), "blur": [0.1, 1]}, ["--blur [0.1, 1]", "0.2"]),
        ({"labels": str(labels), "subjects": 2}, ["holds 1 label maps", "--subjects is 2"]),
        ({"labels": str(labels), "subjects": 1}, ["a.nii.gz", "[777]", "not known"]),
    ):
        with pytest.raises(ValueError) as error:
            simulate(str(tmp_path / "out"), **arguments)
        assert all(word in str(error.value) for word in words), error.value
    with pytest.raises(FileNotFoundError, match="no such folder"):
        simulate(str(tmp_path / "out"), labels=str(tmp_path / "none"))
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 0.5, np.float32), np.eye(4)), labels / "a.nii.gz")
    with pytest.raises(ValueError, match="integer labels"):
        labelmap.head_from_labels(labels / "a.nii.gz", (1.0, 1.0, 1.0))
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[demo\]'"):
        anatomy.template.__wrapped__()
    assert not (tmp_path / "out").exists()


def test_thick_slices_of_label_maps(tmp_path):
    """The head stays where it is; of two numbers about half of the heads have the lower."""
    (tmp_path / "labels").mkdir()
    for i in range(12):
        _label_map(tmp_path / "labels" / f"{i:02d}.nii.gz")
    options = {"contrasts": "t1w", "noise": 0, "bias": 0, "spacing": 2.0, "labels": str(tmp_path / "labels")}
    for name, thickness in (("thin", 1), ("thick", 3), ("some", [1, 3])):
        simulate(str(tmp_path / name), 12, thickness=thickness, **options)
    thin, thick, some = (
        [nib.load(file) for file in sorted((tmp_path / name).rglob("*.nii.gz"))] for name in ("thin", "thick", "some")
    )
    for a, b in zip(thin, thick, strict=True):
        np.testing.assert_allclose(b.header.get_zooms(), (2, 2, 6), rtol=1e-6)
        moved = ndimage.affine_transform(
            a.get_fdata(), np.linalg.inv(a.affine) @ b.affine, output_shape=b.shape, order=1
        )
        inside = (moved > 200) & (b.get_fdata() > 200)
        assert np.corrcoef(moved[inside], b.get_fdata()[inside])[0, 1] > 0.8
        centres = [apply_affine(v.affine, ndimage.center_of_mass(v.get_fdata())) for v in (a, b)]
        assert np.abs(np.subtract(*centres)).max() < 1
    times = [image.header.get_zooms()[2] / 2 for image in some]
    assert 3 <= times.count(1.0) <= 9 and len(set(times)) == 13 - times.count(1.0) and max(times) <= 3


def test_what_is_cut_off_is_air(tmp_path):
    _label_map(tmp_path / "small.nii.gz")
    small = nib.load(tmp_path / "small.nii.gz")
    larger = np.pad(np.asarray(small.dataobj), 20)
    nib.save(nib.Nifti1Image(larger, small.affine @ from_matvec(np.eye(3), [-20] * 3)), tmp_path / "a.nii.gz")
    spacing = (0.8, 0.8, 1.7)
    all_of_it, affine = labelmap.head_from_labels(tmp_path / "a.nii.gz", spacing, margin=1e6)
    head, moved = labelmap.head_from_labels(tmp_path / "a.nii.gz", spacing, margin=3.0)
    first = np.round(np.linalg.inv(affine) @ moved[:, 3])[:3].astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(first, head.shape[1:], strict=True))
    assert np.prod(head.shape) < np.prod(all_of_it.shape)
    np.testing.assert_allclose(affine[:3, :3], moved[:3, :3])
    np.testing.assert_allclose(all_of_it[(slice(None), *box)], head, atol=1e-6)
    all_of_it[0][box] = 1
    assert all_of_it[0].min() > 0.99


def test_random_scans(tmp_path):
    """Contrast and mask differ from scan to scan, the grid from subject to subject, and both hang on the seed."""
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        _label_map(tmp_path / "labels" / f"{name}.nii.gz")
    names = [f"random{i}" for i in range(1, 9)]

    def make(folder, contrasts, seed=0):
        labels = str(tmp_path / "labels")
        simulate(str(tmp_path / folder), 2, seed, contrasts, [0.8, 1.4], labels, blur=[0.4, 0.7])
        return {path.name: nib.load(path) for path in sorted((tmp_path / folder).rglob("*.nii.gz"))}

    scans = make("all", names)
    assert len(scans) == 16
    again = make("one", "random3")
    for name, image in again.items():
        np.testing.assert_array_equal(image.dataobj, scans[name].dataobj)
    assert not np.array_equal(
        make("other", "random3", seed=1)["sub-001_random3.nii.gz"].shape, again["sub-001_random3.nii.gz"].shape
    )
    spacings = {name[:7]: image.header.get_zooms() for name, image in scans.items()}
    assert len(set(spacings.values())) == 2
    assert all(0.8 <= v <= 1.4 and len(set(zooms)) == 1 for zooms in spacings.values() for v in zooms)
    masked, contrasts = [], []
    for name, image in scans.items():
        volume = np.asarray(image.dataobj)
        assert volume.dtype == np.int16 and volume.min() >= 0
        assert np.quantile(volume, 0.999) == pytest.approx(1000, abs=1)
        # White matter in the middle, grey matter next to it, bone further out, air at the edge.
        inside = np.array(volume.shape) // 2
        step = spacings[name[:7]][0]
        wm, gm, bone = (volume[inside[0] + round(r / step), inside[1], inside[2]] for r in (0, 4.5, 9.5))
        masked.append((bool((volume[:3] == 0).all()), bool(bone == 0)))
        contrasts.append(float(wm) - float(gm))
    # Not masked, the head, the brain: each is there.
    assert {air for air, _ in masked} == {True, False} and {brain for air, brain in masked if air} == {True, False}
    assert min(contrasts) < -50 and max(contrasts) > 50


def test_random_textures_fall_with_frequency():
    """A field's power law is what was asked for, and its mean and standard deviation are 0 and 1."""
    for power in (1.0, 2.0):
        field = randomised._texture((64, 60, 62), power, np.random.default_rng(0))
        assert abs(field.mean()) < 1e-5 and field.std() == pytest.approx(1, abs=1e-5)
        spectrum = np.abs(np.fft.fftn(field)) ** 2
        radius = np.sqrt(
            sum(
                np.fft.fftfreq(n).reshape([-1 if a == i else 1 for a in range(3)]) ** 2
                for i, n in enumerate(field.shape)
            )
        )
        band = (radius > 0.05) & (radius < 0.5)
        slope = np.polyfit(np.log(radius[band]), np.log(spectrum[band]), 1)[0]
        assert slope == pytest.approx(-2 * power, abs=0.1)


def test_inversion_recovery_is_the_bloch_equation():
    """Relaxation from one repetition to the next, pulse by pulse, until it repeats."""
    t1, t2, pd, tr, ti, te = 1300.0, 90.0, 0.8, 9000.0, 2200.0, 100.0
    m = pd
    for _ in range(20):
        m = pd + (-m - pd) * np.exp(-ti / t1)  # inversion, then recovery up to the excitation
        signal = m * np.exp(-te / t2)
        m = pd + (0 - pd) * np.exp(-(tr - ti) / t1)  # the excitation takes all of it
    expected = inversion_recovery(np.array(t1), np.array(t2), np.array(pd), tr, ti, te)
    np.testing.assert_allclose(expected, signal, rtol=1e-9)


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    (tmp_path / "labels").mkdir()
    _label_map(tmp_path / "labels" / "a.nii.gz")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        simulate(str(tmp_path / "out"), subjects=1, labels=str(tmp_path / "labels"))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
