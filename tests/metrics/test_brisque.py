"""BRISQUE: eq. 4 to 6 by loops, fits of known distributions, the regressor, its file and the command."""

import builtins
import pickle
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import gennorm
from skimage.io import imsave

from common import __main__
from common.commands import brisque_fit as fit
from common.commands.brisque_fit import brisque_fit
from common.metrics import Brisque, brisque, brisque_features, mscn
from common.metrics.brisque import aggd, ggd, tissue

SETTING = {"C": 10.0, "gamma": 0.05, "epsilon": 0.05}


def _picture(seed, blur=0.0, size=64):
    """An object with edges, shading and texture in dark air, blurred by so many pixels, and a little noise on it."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(size, size)), 4, mode="wrap")
    texture = gaussian_filter(rng.normal(size=(size, size)), 0.7, mode="wrap")
    object_ = np.where(field > 0, 0.75, 0.4) + 0.05 * texture
    radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, size)] * 2))
    image = np.where(radius < 0.8, object_, 0.0)
    return np.clip(gaussian_filter(image, blur) + 0.005 * rng.normal(size=image.shape), 0, 1)


def _features(images):
    return np.stack([brisque_features(image) for image in images])


def test_mscn_is_equations_4_to_6():
    image = np.random.default_rng(0).random((9, 11))
    grey = 255 * np.pad(image, 3, mode="edge")
    window = np.array([[np.exp(-(k**2 + n**2) / 2) for n in range(-3, 4)] for k in range(-3, 4)])
    window /= window.sum()
    expected = np.zeros(image.shape)
    for m, n in np.ndindex(image.shape):
        around = grey[m : m + 7, n : n + 7]
        mu = (window * around).sum()
        sigma = np.sqrt((window * (around - mu) ** 2).sum())
        expected[m, n] = (255 * image[m, n] - mu) / (sigma + 1)
        assert tissue(image / 10)[m, n] == (mu / 255 / 10 >= 0.05)
    np.testing.assert_allclose(mscn(image), expected, atol=1e-9)
    np.testing.assert_allclose(mscn(np.full((20, 20), 0.7)), 0, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_fits_give_back_the_distribution_that_samples_were_drawn_from(alpha):
    """Samples of both kinds along leading axes; independent: scipy's generalised Gaussian, and its sides scaled."""
    symmetric = gennorm.rvs(alpha, scale=3, size=(2, 200_000), random_state=0)
    shape, variance = ggd(symmetric)
    np.testing.assert_allclose(shape, [alpha] * 2, rtol=0.05)
    np.testing.assert_allclose(variance, [gennorm.var(alpha, scale=3)] * 2, rtol=0.05)

    # A density with a peak of one height has beta / (sum of betas) of its samples on each side.
    rng, betas = np.random.default_rng(1), (1.0, 2.5)
    right = rng.random(symmetric.shape) < betas[1] / sum(betas)
    samples = np.where(right, betas[1], -betas[0]) * np.abs(symmetric) / 3
    # The other way round in the second row: the fit is that of a mirror image.
    samples[1] *= -1
    shape, eta, *variances = aggd(samples)
    expected = [gennorm.var(alpha, scale=beta) for beta in betas]
    np.testing.assert_allclose(shape, [alpha] * 2, rtol=0.05)
    np.testing.assert_allclose(variances, [expected, expected[::-1]], rtol=0.06)
    np.testing.assert_allclose(eta, samples.mean(axis=1), rtol=0.05)


def test_features_are_the_fits_at_two_scales_in_their_order():
    image = _picture(0)
    values = brisque_features(image).reshape(2, 18)
    # Away from the borders: there is where implementations may differ.
    c = mscn(image)
    np.testing.assert_allclose(values[0, :2], ggd(c.ravel()))
    for number, (m, n) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        product = c * np.roll(c, (-m, -n), axis=(0, 1))
        np.testing.assert_allclose(values[0, 2 + 4 * number : 6 + 4 * number], aggd(product[:-1, 1:-1].ravel()))
    # Half size is low-passed: what oscillates from pixel to pixel does not come back as something coarse.
    stripes = 0.1 * np.cos(2 * np.pi * 0.37 * np.arange(64))
    for size in (64, 63):  # both come to 32 pixels
        first, second = (brisque_features(x[:size, :size])[18:] for x in (0.9 * image, 0.9 * image + stripes))
        assert second[1] / first[1] < 1.5
    assert brisque_features(0.9 * image + stripes)[1] / brisque_features(0.9 * image)[1] > 3


def test_features_follow_blur_and_noise():
    noise = np.random.default_rng(5).normal(size=(64, 64))
    sharp = _picture(1)
    blurred = _features([gaussian_filter(sharp, sigma) for sigma in (0.01, 0.6, 1.0, 1.6)])
    noisy = _features([sharp + sigma * noise for sigma in (0.0, 0.02, 0.05, 0.1)])
    # The variance of the coefficients falls with blur and rises with noise, at both scales.
    for feature in (1, 19):
        assert (np.diff(blurred[:, feature]) < 0).all() and (np.diff(noisy[:, feature]) > 0).all()
    # Blur makes neighbours alike, noise makes them independent: the mean of their products says so.
    for feature in (3, 7):
        assert np.all(np.diff(blurred[:, feature] / blurred[:, 1]) > 0)
        assert noisy[-1, feature] / noisy[-1, 1] < noisy[0, feature] / noisy[0, 1]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 32)), "constant"),
        (np.full((32, 32), 0.5, np.float32), "constant"),
        (np.random.default_rng(0).random((13, 40)), r"14 pixels on each side, found shape \(13, 40\)"),
        (np.random.default_rng(0).random((20, 20, 20)), r"2-D images.*\(20, 20, 20\)"),
        (np.eye(20, dtype=np.uint8), "uint8"),
        (np.full((20, 20), np.nan), "not finite"),
    ],
)
def test_features_refuse_what_they_cannot_measure(image, message):
    with pytest.raises(ValueError, match=message):
        brisque_features(image)


@pytest.fixture(scope="module")
def fitted():
    levels = np.tile([0.3, 0.7, 1.1, 1.5, 1.9, 2.3], 4)
    return Brisque(_features([_picture(i, blur) for i, blur in enumerate(levels)]), 100 - 30 * levels, SETTING)


def test_unseen_images_are_put_in_the_order_of_their_quality(fitted):
    levels = [0.5, 0.9, 1.3, 1.7, 2.1]
    scores = [
        np.mean([fitted.score(_picture(100 + 10 * i + j, blur)[..., None]) for j in range(4)])
        for i, blur in enumerate(levels)
    ]
    assert (np.diff(scores) < 0).all()
    np.testing.assert_allclose(scores, 100 - 30 * np.array(levels), atol=12)


def test_the_score_of_a_volume_is_the_mean_over_the_slices_that_are_not_nearly_all_air(fitted):
    first, second = _picture(40, 0.5), _picture(41, 2.0)
    rim = np.zeros_like(first)
    rim[0] = 0.5  # under 5 % of the slice
    expected = np.mean([fitted.score(image[..., None]) for image in (first, second)])
    volume = np.stack([np.zeros_like(first), first, rim, second], axis=-1)
    assert fitted.score(volume) == pytest.approx(expected)
    assert fitted.score(torch.from_numpy(volume)[None, None]) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="no slice counts"):
        fitted.score(volume[..., ::2])
    with pytest.raises(ValueError, match=r"shape \(2, 64, 64, 4\)"):
        fitted.score(np.stack([volume, volume]))
    with pytest.raises(ValueError, match="slice 0: the image is constant"):
        fitted.score(np.full((20, 20, 2), 0.5))


def test_a_regressor_comes_back_from_its_file_as_it_was(fitted, tmp_path):
    volume = _picture(50, 1.0)[..., None]
    fitted.save(tmp_path / "new" / "regressor")  # not by the name that numpy would make of it
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["regressor"]
    assert Brisque.load(tmp_path / "new" / "regressor").score(volume) == fitted.score(volume)


class _Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_other_files_are_refused_by_name_and_not_run(fitted, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "regressor.npz"
    fitted.save(path)
    good = path.read_bytes()
    with np.load(path) as data:
        content = dict(data)

    def spoil(**changes):
        np.savez(path, **{key: value for key, value in {**content, **changes}.items() if value is not None})

    def flip():
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :])

    spoilt = [
        lambda: path.write_bytes(pickle.dumps(_Malicious(mark))),
        lambda: spoil(features=np.array([_Malicious(mark)], dtype=object)),
        lambda: path.write_bytes(good[: len(good) // 2]),
        flip,
        lambda: path.write_bytes(b""),
        lambda: np.save(path.open("wb"), np.zeros((5, 36))),
        lambda: np.savez(path, other=np.zeros(3)),
        lambda: spoil(format="something else"),
        lambda: spoil(gamma=None),
        lambda: spoil(gamma=0.0),
        lambda: spoil(C="many"),
        lambda: spoil(features=content["features"][:, :30]),
        lambda: spoil(features=content["features"][:-1]),
        lambda: spoil(scores=np.full_like(content["scores"], np.nan)),
    ]
    for make in spoilt:
        make()
        with pytest.raises(ValueError, match=r"regressor\.npz: no BRISQUE regressor, or a damaged one.*brisque-fit"):
            Brisque.load(path)
    assert not mark.exists()
    with pytest.raises(FileNotFoundError, match=r"none\.npz.*brisque-fit"):
        Brisque.load(tmp_path / "none.npz")


def _scans(folder, levels):
    """A volume of each level as NIfTI, of which two slices are tissue and two air; not in [0, 1], as scans are."""
    for i, blur in enumerate(levels):
        volume = np.stack(
            [np.zeros((64, 64)), _picture(2 * i, blur), _picture(2 * i + 1, blur), np.zeros((64, 64))], -1
        )
        nib.save(nib.Nifti1Image((900 * volume).astype(np.int16), np.eye(4)), folder / f"scan{i}.nii.gz")


def test_images_are_scaled_by_the_range_of_their_format(tmp_path):
    image = _picture(0)
    for name, kind in (("a.png", np.uint8), ("b.png", np.uint16), ("c.TIF", np.uint16), ("d.tiff", np.uint8)):
        imsave(tmp_path / name, np.rint(image * np.iinfo(kind).max).astype(kind), check_contrast=False)
        np.testing.assert_allclose(fit._read(tmp_path / name), image[..., None], atol=0.6 / np.iinfo(kind).max)
    volume = 1000 * np.random.default_rng(0).random((20, 21, 22, 1)) - 100
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / "e.nii")
    scaled = (volume[..., 0] - volume.min()) / (np.quantile(volume, 0.999) - volume.min())
    np.testing.assert_allclose(fit._read(tmp_path / "e.nii"), scaled, atol=1e-6)


def test_rows_in_a_regular_order_do_not_spoil_the_folds(tmp_path, capsys):
    """Five kinds of image in turn, whose scores do not follow from those of the other kinds: each fold knows all."""
    kinds = {0.3: 10, 0.8: 80, 1.3: 20, 1.8: 90, 2.4: 40}
    for i in range(25):
        picture = 255 * np.hstack([_picture(2 * i, list(kinds)[i % 5]), _picture(2 * i + 1, list(kinds)[i % 5])])
        imsave(tmp_path / f"{i}.png", picture.astype(np.uint8), check_contrast=False)
    rows = [f"{i}.png,{list(kinds.values())[i % 5]}" for i in range(25)]
    (tmp_path / "scores.csv").write_text("\n".join(["image,score", *rows]))
    brisque_fit(str(tmp_path / "scores.csv"), str(tmp_path / "brisque.npz"))
    printed = capsys.readouterr().out
    assert float(printed.split("Spearman ")[1].split(",")[0]) > 0.5, printed


def test_the_command_fits_and_says_how_well(tmp_path):
    levels = np.random.default_rng(0).uniform(0.3, 2.3, 12)
    _scans(tmp_path, levels[:8])
    for i, blur in enumerate(levels[8:], start=8):
        kind = (np.uint8, "png") if i % 2 else (np.uint16, "tif" if i == 8 else "png")
        picture = (_picture(2 * i, blur) * np.iinfo(kind[0]).max).astype(kind[0])
        imsave(tmp_path / f"scan{i}.{kind[1]}", picture, check_contrast=False)
    names = [next(tmp_path.glob(f"scan{i}.*")).name for i in range(12)]
    lines = [
        f"{name}, {100 - 30 * blur:.3f}, {'2' if i == 0 else ''}"
        for i, (name, blur) in enumerate(zip(names, levels, strict=True))
    ]
    # A second score of an image; as spreadsheets write it.
    lines.append(f"{names[0]},{100 - 30 * levels[0]:.3f},1")
    (tmp_path / "scores.csv").write_text("\r\n".join(["image, score,slice", *lines, ""]), encoding="utf-8-sig")
    output = tmp_path / "out" / "brisque.npz"
    command = [
        sys.executable,
        "-m",
        "common",
        "brisque-fit",
        "--csv",
        str(tmp_path / "scores.csv"),
        "--output",
        str(output),
    ]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "13 scores of 12 images, 20 slices" in done.stdout
    assert "warning: 12 images are few" in done.stdout and "does not predict" not in done.stdout
    rank = float(done.stdout.split("Spearman ")[1].split(",")[0])
    assert 0.7 < rank <= 1
    # It stands behind volumes in [0, 1] as the command made them of the scans.
    regressor = Brisque.load(output)
    scores = [regressor.score(np.stack([_picture(90 + i, blur)], -1)) for i, blur in enumerate((0.4, 1.2, 2.2))]
    assert scores == sorted(scores, reverse=True)


def test_scores_that_mean_nothing_are_not_said_to_be_predicted(tmp_path, capsys, monkeypatch):
    """Rows sorted by score, two versions of each image's slice: what was seen must not help, and the user is warned."""
    rng = np.random.default_rng(3)
    _scans(tmp_path, rng.uniform(0.3, 2.3, 14))
    scores = np.sort(rng.normal(size=14))
    names = [f"scan{i}.nii.gz" for i in rng.permutation(14)]
    rows = [f"{name},{score},{z}" for name, score in zip(names, scores, strict=True) for z in (1, 2)]
    (tmp_path / "scores.csv").write_text("\n".join(["image,score,slice", *rows]))

    seen = []
    regressor = brisque.fit_regressor

    def spy(features, scores, setting):
        predict = regressor(features, scores, setting)
        return lambda others: (seen.append((features, others)), predict(others))[1]

    chosen_from = []
    choose = fit._choose
    monkeypatch.setattr(brisque, "fit_regressor", spy)
    monkeypatch.setattr(fit, "_choose", lambda *args: (chosen_from.append(np.concatenate(args[0])), choose(*args))[1])
    brisque_fit(str(tmp_path / "scores.csv"), str(tmp_path / "brisque.npz"))
    assert "warning: it does not predict these scores well" in capsys.readouterr().out
    # No image has one slice in a fit and the other in what it is tried on.
    image_of = {}
    for i in range(14):
        volume = fit._read(tmp_path / f"scan{i}.nii.gz")
        image_of.update((brisque_features(volume[..., z]).tobytes(), i) for z in (1, 2))

    def images(features):
        return {image_of[f.tobytes()] for f in features}

    assert seen and not any(images(features) & images(others) for features, others in seen)
    # Nor were hyperparameters chosen by what they were then judged on: each image was left out of one choice.
    *tried, last = map(images, chosen_from)
    left_out = [image for of_choice in tried for image in last - of_choice]
    assert sorted(left_out) == sorted(last) == list(range(14))


def test_all_bad_rows_are_listed_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    _scans(tmp_path, [0.5])
    imsave(tmp_path / "colour.png", np.zeros((32, 32, 3), np.uint8), check_contrast=False)
    imsave(tmp_path / "air.png", np.zeros((32, 32), np.uint8), check_contrast=False)
    imsave(tmp_path / "small.png", (255 * _picture(0)[20:30, 20:30]).astype(np.uint8), check_contrast=False)
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "text.txt").write_text("")
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20), np.int16), np.eye(4)), tmp_path / "zero.nii")
    nib.save(nib.Nifti1Image(np.ones((20, 20, 20, 2), np.int16), np.eye(4)), tmp_path / "four.nii")
    rows = {
        "scan0.nii.gz,1,1": None,
        "none.nii.gz,1,": "no such file",
        "text.txt,1,": r"expected one of \.nii",
        "scan0.nii.gz,good,": "score is 'good'",
        "scan0.nii.gz,nan,1": "score is 'nan'",
        "scan0.nii.gz,inf,-1": "score is 'inf'.*slice is '-1'",
        "scan0.nii.gz,1,1.5": "slice is '1.5'",
        "scan0.nii.gz,1,4": "slice is 4, expected one from 0 to 3",
        "scan0.nii.gz,1,3": "slice 3 is nearly all air",
        "scan0.nii.gz,1": "expected 3 cells",
        "scan0.nii.gz,1,5,1": "expected 3 cells",
        "colour.png,1,": r"shape \(32, 32, 3\)",
        "air.png,1,": "no slice counts",
        "small.png,1,": "slice 0: BRISQUE needs at least 14 pixels",
        "broken.nii.gz,1,": "broken",
        "zero.nii,1,": "that differ",
        "four.nii,1,": r"shape \(20, 20, 20, 2\)",
    }
    (tmp_path / "scores.csv").write_text("\n".join(["image,score,slice", *rows]))
    line = f"common brisque-fit --csv {tmp_path / 'scores.csv'} --output {tmp_path / 'out' / 'brisque.npz'}"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    first, *listed = str(exit_.value).splitlines()
    assert first.startswith("error: ") and f"scores.csv: {len(rows) - 1} bad rows" in first
    expected = [(number, fault) for number, fault in enumerate(rows.values(), start=2) if fault]
    for text, (number, fault) in zip(listed, expected, strict=True):
        assert text.startswith(f"  line {number}: ")
        assert re.search(fault, text), (text, fault)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;score\na.png;1\n", "header is 'image;score', expected image,score or"),
        ("image,score,slices\n", "header is 'image,score,slices'"),
        ("", "header is ''"),
        ("image,score\n" + "scan0.nii.gz,1\n" * 12, "scores of 1 images, at least 10"),
        ("image,score\n" + "".join(f"scan{i}.nii.gz,3\n" for i in range(10)), "all scores are 3"),
        (b"image,score\n\xff\xfe", "scores.csv: 'utf-8' codec"),
    ],
)
def test_tables_that_no_regressor_can_be_fitted_to(tmp_path, text, message):
    if "scan" in str(text):
        _scans(tmp_path, np.ones(10))
    (tmp_path / "scores.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        brisque_fit(str(tmp_path / "scores.csv"), str(tmp_path / "brisque.npz"))
    assert not (tmp_path / "brisque.npz").exists()


def test_what_is_missing_is_said_before_anything_is_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        brisque_fit(str(tmp_path / "none.csv"), str(tmp_path / "brisque.npz"))
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        brisque_fit(str(tmp_path / "none.csv"), str(tmp_path))
    importing = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "sklearn":
            raise ModuleNotFoundError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install scikit-learn.*'\.\[demo\]'"):
        brisque_fit(str(tmp_path / "none.csv"), str(tmp_path / "brisque.npz"))
