"""The weights that bundles ship: they load as they are, and beat interpolation on a head that no training saw."""

import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.data.simulation.subjects import simulate_subjects
from common.degradations import (
    BandLimit,
    ComposeDegradations,
    EllipticalKSpace,
    GaussianProfile,
    KSpaceTruncation,
    PartialFourier,
    RicianNoise,
)
from common.metrics import compute_psnr, compute_ssim, interpolate_cubic
from common.runtime.precision import apply_precision
from common.weights.loading import load_weights

from .. import forked
from . import runs

WEIGHTS = {
    "ct_guided": ["model.pt", "model_2.pt", "model_3.pt", "model_5.pt", "model_6.pt"],
    "downsampling_gan": ["model.pt"],
    "guided_rdn": ["model.pt", "model_unguided.pt"],
    "udean_window": ["model.pt", "model_2x2x1.pt"],
}
# The weights of a form; model.pt where nothing is said.
FORMS = {"guided_rdn without guides": "model_unguided.pt", "udean_window in plane": "model_2x2x1.pt"}
IN_PLANE = ComposeDegradations([BandLimit((2, 2, 1)), GaussianProfile((2, 2, 1), fwhm=0.02)])
TWICE = KSpaceTruncation((2, 2, 2))
TWICE_IN_PLANE = KSpaceTruncation((2, 2, 1))
# What a scanner may do, and by how many dB the result must be better than cubic: a bit more than half of what it is.
# The guide is made of the same tissue maps as the scan, so that it must help here.
SCANS = {
    "guided_rdn": {
        "truncated": (IN_PLANE, 2.4),
        "blurred": (GaussianProfile((2, 2, 1)), 3.0),
        "elliptical": (ComposeDegradations([IN_PLANE, EllipticalKSpace((0, 1))]), 1.8),
        "noisy": (ComposeDegradations([IN_PLANE, RicianNoise(0.02, seed=5)]), 2.1),
    },
    "guided_rdn without guides": {
        "truncated": (IN_PLANE, 0.7),
        "blurred": (GaussianProfile((2, 2, 1)), 1.4),
        "elliptical": (ComposeDegradations([IN_PLANE, EllipticalKSpace((0, 1))]), 0.3),
        "noisy": (ComposeDegradations([IN_PLANE, RicianNoise(0.02, seed=5)]), 0.6),
    },
    "udean_window": {
        "truncated": (TWICE, 0.6),
        "elliptical": (ComposeDegradations([TWICE, EllipticalKSpace((0, 1))]), 0.3),
        "partial": (ComposeDegradations([TWICE, PartialFourier(0.625, 1)]), 0.4),
    },
    "udean_window in plane": {
        "truncated": (TWICE_IN_PLANE, 0.6),
        "elliptical": (ComposeDegradations([TWICE_IN_PLANE, EllipticalKSpace((0, 1))]), 0.2),
        "partial": (ComposeDegradations([TWICE_IN_PLANE, PartialFourier(0.625, 1)]), 0.4),
    },
}


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """T2w in [0, 1], T1w and their affine of a head of an anatomy that training never saw."""
    folder = tmp_path_factory.mktemp("head")
    simulate_subjects(str(folder), subjects=1, seed=7, contrasts="t1w,t2w", spacing=1.3)
    images = [nib.load(folder / "sub-001" / f"sub-001_{contrast}.nii.gz") for contrast in ("t2w", "t1w")]
    t2w, t1w = (image.slicer[tuple(slice(n // 2 * 2) for n in image.shape)] for image in images)
    return t2w.get_fdata() / np.quantile(t2w.get_fdata(), 0.999), t1w.get_fdata(), t2w.affine


def infer(bundle, folder, *words, weights="model.pt"):
    """Run inference.json, for other weights with their overlay, by the real command line from the repository's root."""
    files = [f"bundles/{bundle}/configs/inference.json"]
    if weights != "model.pt":
        files.append(f"bundles/{bundle}/models/{Path(weights).stem}.json")
    line = ["run", "--config_file", str(files), "--dataset_dir", folder / "scans", "--output_dir", folder / "out"]
    return forked.command(["monai.bundle", *line, "--device", "cpu", *words], runs.ROOT, folder)


def gain(result, affine, truth, lr, degradation):
    """By how many dB a result, which must lie where HR lies, is better than cubic interpolation of its scan."""
    sr = nib.load(result)
    np.testing.assert_allclose(sr.affine, affine, atol=1e-4)
    base = interpolate_cubic(torch.as_tensor(lr)[None, None], degradation.factors, degradation.offset)[0, 0].clamp(0, 1)
    return compute_psnr(torch.from_numpy(sr.get_fdata() / 1000).clamp(0, 1), truth) - compute_psnr(base, truth)


@pytest.mark.parametrize(("bundle", "words", "factors"), [
    ("ct_guided", ["--adapt_iterations", "0"], (4, 1, 1)),
    ("downsampling_gan", [], (1, 2, 2)),
])  # fmt: skip
def test_slices_across_any_axis(tmp_path, bundle, words, factors):
    """Weights that were trained for it take the axis that the spacing shows, here left to right."""
    spacing = (4.0, 1.0, 1.0)
    runs.save(tmp_path / "scans" / "a.nii.gz", runs.phantom(0)[:12], np.diag([*spacing, 1]))
    done = infer(bundle, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    sr = nib.load(tmp_path / "out" / "a_sr.nii.gz")
    assert sr.header.get_zooms() == pytest.approx([mm / factor for mm, factor in zip(spacing, factors, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("form", SCANS)
def test_better_than_cubic(head, tmp_path, form):
    """Every scan gains, whatever the scanner did to it, also where its field of view ends in tissue."""
    hr, guide, affine = head
    first = hr.shape[2] // 4 * 2
    some = np.s_[:, :, first : first + 12]
    truth = torch.from_numpy(hr[some]).clamp(0, 1)
    expected = nib.Nifti1Image(hr, affine).slicer[some].affine
    lr = {}
    for name, (degradation, _) in SCANS[form].items():
        # All of the head is in the scanner, and twelve of its slices are kept. A magnitude has nothing below 0.
        whole, placed = runs.degrade(hr, affine, degradation)
        scan = nib.Nifti1Image(1000 * whole.clip(0), placed)
        factor = degradation.factors[2]
        scan = scan.slicer[:, :, first // factor : (first + 12) // factor]
        lr[name] = scan.get_fdata() / 1000
        runs.save(tmp_path / "scans" / f"sub-{name}_t2w.nii.gz", scan.get_fdata(), scan.affine)
        if form == "guided_rdn":
            runs.save(tmp_path / "scans" / f"sub-{name}_t1w.nii.gz", guide[some], expected)
    done = infer(form.split()[0], tmp_path, weights=FORMS.get(form, "model.pt"))
    assert done.returncode == 0, done.stderr
    results = {name: tmp_path / "out" / f"sub-{name}_t2w_sr.nii.gz" for name in lr}
    gains = {name: gain(path, expected, truth, lr[name], SCANS[form][name][0]) for name, path in results.items()}
    assert all(gains[name] > least for name, (_, least) in SCANS[form].items()), gains
    # Twelve slices of a small head hold less tissue than any scan.
    assert f"warning: sub-{name}_t2w: " in done.stdout


THICK = {  # the profile, noise, and by how many dB the result must be better than cubic: half of what it is
    "model.pt": [
        (GaussianProfile((1, 1, 4), 0.7), 0, 0.6),
        (GaussianProfile((1, 1, 4)), 0, 0.9),
        (GaussianProfile((1, 1, 4), 1.2), 0, 1.0),
        (GaussianProfile((1, 1, 4)), 0.01, 0.8),
    ],
    "model_2.pt": [(GaussianProfile((1, 1, 2)), 0, 1.8), (GaussianProfile((1, 1, 2), 0.7), 0.01, 0.9)],
    "model_3.pt": [(GaussianProfile((1, 1, 3)), 0, 1.2), (GaussianProfile((1, 1, 3), 0.7), 0.01, 0.7)],
    "model_5.pt": [(GaussianProfile((1, 1, 5)), 0, 0.8), (GaussianProfile((1, 1, 5), 0.7), 0.01, 0.5)],
    "model_6.pt": [(GaussianProfile((1, 1, 6)), 0, 0.5), (GaussianProfile((1, 1, 6), 0.7), 0.01, 0.3)],
}


@pytest.mark.slow
@pytest.mark.parametrize("weights", THICK)
def test_thick_slices_better_than_cubic(head, tmp_path, weights):
    """Whatever the slices' profile, and not fine-tuned."""
    hr, _, affine = head
    slab = np.s_[hr.shape[0] // 2 - 24 : hr.shape[0] // 2 + 24]
    factor = THICK[weights][0][0].factors[2]
    thin = np.s_[4 : 4 + 84 // factor * factor]
    hr, affine = hr[slab, :, thin], nib.Nifti1Image(hr, affine).slicer[slab, :, thin].affine
    truth, scans = torch.from_numpy(hr).clamp(0, 1), []
    for i, (degradation, noise, _) in enumerate(THICK[weights]):
        lr, placed = runs.degrade(hr, affine, degradation)
        scans.append(RicianNoise(noise, seed=5)(torch.from_numpy(lr)).numpy() if noise else lr)
        runs.save(tmp_path / "scans" / f"sub-{i}_t2w.nii.gz", 1000 * scans[i], placed)
    # What they are as such, and in a tenth of the time.
    done = infer("ct_guided", tmp_path, "--adapt_iterations", "0", weights=weights)
    assert done.returncode == 0, done.stderr
    gains = [
        gain(tmp_path / "out" / f"sub-{i}_t2w_sr.nii.gz", affine, truth, lr, degradation)
        for i, (lr, (degradation, _, _)) in enumerate(zip(scans, THICK[weights], strict=True))
    ]
    assert all(found > least for found, (_, _, least) in zip(gains, THICK[weights], strict=True)), gains


@pytest.mark.slow
@pytest.mark.parametrize("weights", THICK)
def test_one_bright_slice_is_not_sharpened(head, tmp_path, weights):
    """Brightness that one thick slice alone has comes out hardly stronger than cubic interpolation leaves it."""
    hr, _, affine = head
    middle = tuple(slice(n // 2 - 32, n // 2 + 32) for n in hr.shape[:2])
    profile = THICK[weights][0][0]
    factor = profile.factors[2]
    lr, placed = runs.degrade(hr[middle][:, :, : hr.shape[2] // factor * factor], affine, profile)
    gains = np.ones(lr.shape[2])
    gains[lr.shape[2] // 2] = 1.08
    runs.save(tmp_path / "scans" / "even_t2w.nii.gz", 1000 * lr, placed)
    runs.save(tmp_path / "scans" / "one_t2w.nii.gz", 1000 * lr * gains, placed)
    done = infer("ct_guided", tmp_path, "--adapt_iterations", "0", weights=weights)
    assert done.returncode == 0, done.stderr
    even, one = (nib.load(tmp_path / "out" / f"{name}_t2w_sr.nii.gz").get_fdata() for name in ("even", "one"))
    ratio = one.sum(axis=(0, 1)) / even.sum(axis=(0, 1))
    stacks = (torch.as_tensor(stack)[None, None] for stack in (lr * gains, lr))
    cubic = (interpolate_cubic(each, profile.factors, profile.offset) for each in stacks)
    smooth = torch.div(*(each.sum(dim=(0, 1, 2, 3)) for each in cubic))
    assert ratio.max() - 1 < 1.2 * (smooth.max() - 1) and 1 - ratio.min() < 1.6 * (1 - smooth.min())


@pytest.mark.parametrize("degradation", [TWICE, TWICE_IN_PLANE], ids=str)
def test_a_scan_like_those_of_the_training(head, tmp_path, degradation):
    """A warning that comes with every scan is not read: with a whole head and its like there is none."""
    hr, _, affine = head
    lr, placed = runs.degrade(hr, affine, degradation)
    scan = runs.save(tmp_path / "scan.nii.gz", 1000 * lr.clip(0), placed)
    files = runs.configs("udean_window", "inference")
    if degradation is not TWICE:
        files.append(str(runs.ROOT / "bundles" / "udean_window" / "models" / "model_2x2x1.json"))
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser["dataset#data"] = [{"image": str(scan)}]
    scans = parser.get_parsed_content("dataset")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert "image" in scans[0]
    assert not [str(warning.message) for warning in shown]


SIZES = {  # of the truth that is degraded and super-resolved in both precisions
    "ct_guided": (16, 36, 60),
    "downsampling_gan": (48, 48, 12),
    "guided_rdn": (48, 48, 12),
    "udean_window": (32, 32, 16),
}


ALL = [(bundle, file) for bundle, files in WEIGHTS.items() for file in files]
SLOW = [pytest.param(*pair, marks=() if pair[1] == "model.pt" else pytest.mark.slow) for pair in ALL]


@pytest.mark.parametrize(("bundle", "file"), SLOW)
def test_bfloat16_costs_nothing(head, bundle, file):
    """At most 0.02 dB, an SSIM of 0.0005, and 0.1 % of tissue, root mean squares; where it is emulated too."""
    hr, guide, _ = head
    some = tuple(slice(n // 2 - size // 2, n // 2 + size // 2) for n, size in zip(hr.shape, SIZES[bundle], strict=True))
    truth, guide = (torch.from_numpy(image[some] / image.max()).float()[None, None] for image in (hr.clip(0, 1), guide))
    beside = runs.ROOT / "bundles" / bundle / "models" / f"{Path(file).stem}.json"
    parser = ConfigParser(ConfigParser.load_config_files([*runs.configs(bundle, "inference"), str(beside)]))
    parser.update({"bundle_root": str(beside.parents[1]), **({"adapt_iterations": 0} if bundle == "ct_guided" else {})})
    parser["device"] = "cpu"
    network, degradation, inferer = map(parser.get_parsed_content, ("evaluator#network", "degradation", "inferer"))
    inputs = [guide] if parser.get("guided") else []
    with torch.inference_mode():
        networks = (apply_precision(network, torch.device("cpu"), amp, None) for amp in (False, True))
        full, half = (inferer(degradation(truth).clamp_min(0), each, *inputs).clamp(0, 1) for each in networks)
    tissue = truth > 0.1
    share = ((half - full)[tissue].square().mean() / truth[tissue].square().mean()).sqrt()
    assert abs(compute_psnr(half, truth) - compute_psnr(full, truth)) < 0.02
    assert abs(compute_ssim(half, truth) - compute_ssim(full, truth)) < 0.0005
    assert 1e-5 < share < 1e-3


@pytest.mark.parametrize("bundle", WEIGHTS)
def test_what_they_say_they_are(bundle):
    """Each loads with its overlay over inference.json, which alone has the literals of model.pt, or reads them."""
    folder = runs.ROOT / "bundles" / bundle
    alone = json.loads((folder / "configs" / "inference.json").read_text())
    for file in WEIGHTS[bundle]:
        beside = folder / "models" / f"{Path(file).stem}.json"
        overlay = json.loads(beside.read_text())
        assert overlay["checkpoint"] == f"$@bundle_root + '/models/{file}'"
        parser = ConfigParser(ConfigParser.load_config_files([*runs.configs(bundle, "inference"), str(beside)]))
        parser["bundle_root"] = str(folder)
        keys = ("network_def", "checkpoint", "digest", "degradation")
        network, checkpoint, digest, degradation = (parser.get_parsed_content(key) for key in keys)
        origin = load_weights(network, checkpoint, digest=digest, degradation=degradation).origin
        assert (origin["bundle"], Path(origin["path"]), origin["sha256"]) == (bundle, folder / "models" / file, digest)
        assert {"noise", "in_plane_spacing", "in_plane_detail"} <= overlay["training_range"].keys()
        known = alone.keys() | json.loads((folder / "configs" / "train.json").read_text()).keys()
        assert overlay.keys() - {"trained", "interval", "training_range"} <= known
        if file == "model.pt":
            assert all(overlay[key] == alone[key] for key in (overlay.keys() & alone) - {"training_range"})


def test_no_file_is_above_the_25_mb_of_the_zoo_and_all_are_tested():
    for bundle in runs.BUNDLES:
        folder = runs.ROOT / "bundles" / bundle / "models"
        files = {path.name: path.stat().st_size for path in folder.glob("model*.pt")}
        assert sorted(files) == WEIGHTS.get(bundle, []) and all(size < 25e6 for size in files.values())
        assert sorted(path.stem for path in folder.glob("*.json")) == sorted(Path(file).stem for file in files)
