"""Fitting an image quality score to images that people have scored: `python -m common brisque-fit`."""

import builtins
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from skimage.io import imsave

from common import __main__
from common.commands import brisque_fit as fit
from common.commands.brisque_fit import brisque_fit
from common.metrics import Brisque, brisque, brisque_features
from tests.pictures import picture


def _scans(folder, levels):
    """A volume of each level as NIfTI, of which two slices are tissue and two air; not in [0, 1], as scans are."""
    for i, blur in enumerate(levels):
        volume = np.stack([np.zeros((64, 64)), picture(2 * i, blur), picture(2 * i + 1, blur), np.zeros((64, 64))], -1)
        nib.save(nib.Nifti1Image((900 * volume).astype(np.int16), np.eye(4)), folder / f"scan{i}.nii.gz")


def test_images_are_scaled_by_the_range_of_their_format(tmp_path):
    image = picture(0)
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
        pair = 255 * np.hstack([picture(2 * i, list(kinds)[i % 5]), picture(2 * i + 1, list(kinds)[i % 5])])
        imsave(tmp_path / f"{i}.png", pair.astype(np.uint8), check_contrast=False)
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
        image = (picture(2 * i, blur) * np.iinfo(kind[0]).max).astype(kind[0])
        imsave(tmp_path / f"scan{i}.{kind[1]}", image, check_contrast=False)
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
    scores = [regressor.score(np.stack([picture(90 + i, blur)], -1)) for i, blur in enumerate((0.4, 1.2, 2.2))]
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
    imsave(tmp_path / "small.png", (255 * picture(0)[20:30, 20:30]).astype(np.uint8), check_contrast=False)
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
