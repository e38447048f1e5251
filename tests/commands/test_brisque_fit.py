"""Fitting an image quality score to images that people have scored: `python -m common brisque-fit`."""

import subprocess
import sys
from functools import partial
from unittest.mock import Mock

import nibabel as nib
import numpy as np
from skimage.io import imsave

from common import __main__
from common.commands import brisque_fit as fit
from common.commands.brisque_fit import fit_brisque
from common.metrics import Brisque, brisque, compute_brisque_features
from tests.bundles.runs import ROOT
from tests.pictures import picture
from tests.refused import refused


def _scans(folder, levels):
    """A volume of each level as NIfTI, of which two slices are tissue and two air; not in [0, 1], as scans are."""
    for i, blur in enumerate(levels):
        volume = np.stack([np.zeros((64, 64)), picture(2 * i, blur), picture(2 * i + 1, blur), np.zeros((64, 64))], -1)
        nib.save(nib.Nifti1Image((900 * volume).astype(np.int16), np.eye(4)), folder / f"scan{i}.nii.gz")


def _picture(path, image, kind=np.uint8):
    imsave(path, np.rint(image * np.iinfo(kind).max).astype(kind), check_contrast=False)


def _fit(folder, rows, header="image,score,slice"):
    (folder / "scores.csv").write_text("\n".join([header, *rows]))
    fit_brisque(str(folder / "scores.csv"), str(folder / "brisque.npz"))


def test_images_are_scaled_by_the_range_of_their_format(tmp_path):
    image = picture(0)
    for name, kind in (("a.png", np.uint8), ("b.png", np.uint16), ("c.TIF", np.uint16), ("d.tiff", np.uint8)):
        _picture(tmp_path / name, image, kind)
        np.testing.assert_allclose(
            fit._read_scored_image(tmp_path / name), image[..., None], atol=0.6 / np.iinfo(kind).max
        )
    volume = 1000 * np.random.default_rng(0).random((20, 21, 22, 1)) - 100
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / "e.nii")
    scaled = (volume[..., 0] - volume.min()) / (np.quantile(volume, 0.999) - volume.min())
    np.testing.assert_allclose(fit._read_scored_image(tmp_path / "e.nii"), scaled, atol=1e-6)


def test_rows_in_a_regular_order_do_not_spoil_the_folds(tmp_path, capsys):
    """Five kinds of image in turn, whose scores do not follow from those of the other kinds: each fold knows all."""
    kinds = 5 * [(0.3, 10), (0.8, 80), (1.3, 20), (1.8, 90), (2.4, 40)]
    for i, (blur, _) in enumerate(kinds):
        _picture(tmp_path / f"{i}.png", np.hstack([picture(2 * i, blur), picture(2 * i + 1, blur)]))
    _fit(tmp_path, [f"{i}.png,{score}" for i, (_, score) in enumerate(kinds)], "image,score")
    assert float(capsys.readouterr().out.split("Spearman ")[1].split(",")[0]) > 0.5


def test_the_command_fits_and_says_how_well(tmp_path):
    levels = np.random.default_rng(0).uniform(0.3, 2.3, 12)
    _scans(tmp_path, levels[:8])
    for i, kind, ending in (8, np.uint16, "tif"), (9, np.uint8, "png"), (10, np.uint16, "png"), (11, np.uint8, "png"):
        _picture(tmp_path / f"scan{i}.{ending}", picture(2 * i, levels[i]), kind)
    names = [next(tmp_path.glob(f"scan{i}.*")).name for i in range(12)]
    scores = [f"{100 - 30 * blur:.3f}" for blur in levels]
    lines = [f"{name}, {score}, " for name, score in zip(names, scores, strict=True)]
    lines[0] += "2"
    lines.append(f"{names[0]},{scores[0]},1")  # a second score of an image; all as spreadsheets write it
    (tmp_path / "scores.csv").write_text("\r\n".join(["image, score,slice", *lines, ""]), encoding="utf-8-sig")
    output = tmp_path / "out" / "brisque.npz"
    words = ["-m", "common", "brisque-fit", "--csv", str(tmp_path / "scores.csv"), "--output", str(output)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "13 scores of 12 images, 20 slices" in done.stdout
    assert "warning: 12 images are few" in done.stderr and "does not predict" not in done.stderr
    assert 0.7 < float(done.stdout.split("Spearman ")[1].split(",")[0]) <= 1
    # It stands behind volumes in [0, 1] as the command made them of the scans.
    scores = [
        Brisque.load(output).compute_score(np.stack([picture(90 + i, blur)], -1))
        for i, blur in enumerate((0.4, 1.2, 2.2))
    ]
    assert scores == sorted(scores, reverse=True)


def test_scores_that_mean_nothing_are_not_said_to_be_predicted(tmp_path, capsys, monkeypatch):
    """Rows sorted by score, two versions of each image's slice: what was seen must not help, and the user is warned."""
    rng = np.random.default_rng(3)
    _scans(tmp_path, rng.uniform(0.3, 2.3, 14))
    scores = np.sort(rng.normal(size=14))
    seen, regressor, choose = [], brisque.fit_regressor, Mock(wraps=fit._choose_setting)

    def spy(features, scores, setting):
        predict = regressor(features, scores, setting)
        return lambda others: (seen.append((features, others)), predict(others))[1]

    monkeypatch.setattr(brisque, "fit_regressor", spy)
    monkeypatch.setattr(fit, "_choose_setting", choose)
    order = rng.permutation(14)
    _fit(tmp_path, [f"scan{i}.nii.gz,{score},{z}" for i, score in zip(order, scores, strict=True) for z in (1, 2)])
    assert "warning: it does not predict these scores well" in capsys.readouterr().err
    # No image has one slice in a fit and the other in what it is tried on.
    volumes = [fit._read_scored_image(tmp_path / f"scan{i}.nii.gz") for i in range(14)]
    image_of = {compute_brisque_features(v[..., z]).tobytes(): i for i, v in enumerate(volumes) for z in (1, 2)}

    def images(features):
        return {image_of[f.tobytes()] for f in features}

    assert seen and not any(images(features) & images(others) for features, others in seen)
    # Nor were hyperparameters chosen by what they were then judged on: each image was left out of one choice.
    *tried, last = (images(np.concatenate(call.args[0])) for call in choose.call_args_list)
    left_out = [image for of_choice in tried for image in last - of_choice]
    assert sorted(left_out) == sorted(last) == list(range(14))


def test_all_bad_rows_are_listed_and_nothing_is_written(tmp_path, monkeypatch):
    _scans(tmp_path, [0.5])
    for name, image in (("colour", np.zeros((32, 32, 3))), ("air", np.zeros((32, 32))), ("small", np.eye(10))):
        _picture(tmp_path / f"{name}.png", image)
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "text.txt").touch()
    for name, voxels in (("zero", np.zeros((20, 20, 20), np.int16)), ("four", np.ones((20, 20, 20, 2), np.int16))):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
    rows = {
        "scan0.nii.gz,1,1": [],
        "none.nii.gz,1,": ["no such file"],
        "text.txt,1,": [".nii"],
        "scan0.nii.gz,good,": ["score is 'good'"],
        "scan0.nii.gz,nan,1": ["score is 'nan'"],
        "scan0.nii.gz,inf,-1": ["score is 'inf'", "slice is '-1'"],
        "scan0.nii.gz,1,1.5": ["slice is '1.5'"],
        "scan0.nii.gz,1,4": ["slice is 4, expected one from 0 to 3"],
        "scan0.nii.gz,1,3": ["slice 3 is nearly all air"],
        "scan0.nii.gz,1": ["expected 3 cells"],
        "scan0.nii.gz,1,5,1": ["expected 3 cells"],
        "colour.png,1,": ["shape (32, 32, 3)"],
        "air.png,1,": ["no slice counts"],
        "small.png,1,": ["slice 0", "at least 14 pixels"],
        "broken.nii.gz,1,": ["broken"],
        "zero.nii,1,": ["that differ"],
        "four.nii,1,": ["shape (20, 20, 20, 2)"],
    }
    (tmp_path / "scores.csv").write_text("\n".join(["image,score,slice", *rows]))
    line = f"common brisque-fit --csv {tmp_path}/scores.csv --output {tmp_path}/out/brisque.npz"
    monkeypatch.setattr(sys, "argv", line.split())
    said = refused(__main__.main, SystemExit, f"scores.csv: {len(rows) - 1} bad rows").splitlines()
    assert said[0].startswith("error: ")
    for text, (number, words) in zip(said[1:], list(enumerate(rows.values(), 2))[1:], strict=True):
        assert text.startswith(f"  line {number}: ") and all(word in text for word in words), (text, words)
    assert not (tmp_path / "out").exists()


def test_what_no_regressor_can_be_fitted_to_and_what_is_missing_is_said(tmp_path, monkeypatch):
    scores, output = tmp_path / "scores.csv", tmp_path / "brisque.npz"
    begin = partial(fit_brisque, str(scores), str(output))
    _scans(tmp_path, np.ones(10))
    for text, words in (
        (b"image;score\na.png;1\n", ["header is 'image;score'", "image,score"]),
        (b"image,score,slices\n", ["header is 'image,score,slices'"]),
        (b"", ["header is ''"]),
        (b"image,score\n" + 12 * b"scan0.nii.gz,1\n", ["scores of 1 images, at least 10"]),
        (b"image,score\n" + b"".join(b"scan%d.nii.gz,3\n" % i for i in range(10)), ["all scores are 3"]),
        (b"image,score\n\xff\xfe", ["scores.csv", "utf-8"]),
    ):
        scores.write_bytes(text)
        refused(begin, ValueError, *words)
    # Before anything is read.
    scores.unlink()
    refused(begin, FileNotFoundError, "scores.csv")
    refused(lambda: fit_brisque(str(scores), str(tmp_path)), IsADirectoryError, str(tmp_path), "name a file")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    refused(begin, ModuleNotFoundError, "pip install scikit-learn", "'.[demo]'")
    assert not output.exists()
