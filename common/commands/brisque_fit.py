"""``python -m common brisque-fit``: fit a BRISQUE regressor to images that people have scored."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from csv import DictReader
from csv import Error as CSVError
from functools import partial
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy.stats import pearsonr, spearmanr
from skimage.io import imread
from tqdm import tqdm

from ..io.formats import EXTENSIONS
from ..io.images import open_image
from ..io.writing import check_writable
from ..metrics import brisque
from ..runtime.progress import is_hidden
from ..transforms import NormaliseVolumed

_GRID = [
    {"C": cost, "gamma": gamma, "epsilon": epsilon}
    for cost in (1.0, 10.0, 100.0)
    for gamma in (0.01, 0.05, 0.25)
    for epsilon in (0.05, 0.2)
]
"""Hyperparameters that are tried (:data:`common.metrics.brisque.SETTING`)."""

_FOLDS = 5
_FEWEST = 10  # images
_FEW = 50  # images; the user is warned below this
_POOR = 0.7  # Spearman correlation; the user is warned below this
_PICTURES = (".png", ".tif", ".tiff")


def fit_brisque(csv: str, output: str) -> None:
    """Fit a BRISQUE regressor to people's scores, and print how well it predicts the scores of unseen images.

    The CSV has the header ``image,score`` or ``image,score,slice``. ``image`` is the path of an image, relative to the
    CSV. ``score`` is any finite number; high or low may be good. ``slice`` is the scored slice, an index along the last
    axis from 0. If it is empty or missing, the score is given to all slices of the volume that are not nearly all air.
    Images are volumes (in any format that ``mri-sr`` reads; scaled as in the bundles, 0 to 0 and the 99.9th
    percentile to 1) or single slices (.png, .tif, .tiff; grey, 8 or 16 bits, scaled by the range of their data type).

    The printed correlations are for unseen images (nested cross-validation, 5 folds). Each score is predicted by a
    regressor that saw no row of its image, neither in its fit nor in the choice of its hyperparameters. Versions of one
    scan count as different images. If all images are such versions, the anatomy is not unseen.

    Args:
        csv: the scores; at least 10 images.
        output: the file to write, for example brisque.npz; an existing file is replaced.

    Raises:
        ValueError: when rows are wrong (the message lists them all), there are too few images, or their scores are all
            equal. Nothing is written then.
        FileNotFoundError: when there is no such CSV.
        ModuleNotFoundError: when scikit-learn is not installed.
    """
    table, target = Path(str(csv)), Path(str(output))
    brisque.import_sklearn()
    check_writable(target.parent)
    if target.is_dir():
        raise IsADirectoryError(f"--output {target} is a folder; name a file in it, for example {target}/brisque.npz.")
    rows, bad = _read_rows(table)
    images: dict[Path, list[dict]] = {}
    for row in rows:
        images.setdefault(row["path"], []).append(row)
    for path, image_rows in tqdm(images.items(), desc="brisque-fit: features", unit="image", disable=is_hidden()):
        try:
            volume = _read_scored_image(path)
        # Each format's reader has errors of its own.
        except Exception as error:
            bad += [(row["line"], f"{row['image']}: {error}") for row in image_rows]
            continue
        for row in image_rows:
            try:
                row["features"] = brisque.compute_slice_features(volume, _select_slices(volume, row["slice"]))
            except ValueError as error:
                bad.append((row["line"], f"{row['image']}: {error}"))
    if bad:
        listing = "\n  ".join(f"line {line}: {what}" for line, what in sorted(bad))
        raise ValueError(f"{table}: {len(bad)} bad rows, nothing was written. Correct or remove them:\n  {listing}")
    if len(images) < _FEWEST:
        raise ValueError(f"{table}: found scores of {len(images)} images, at least {_FEWEST} are needed; score more.")
    features, scores = [row["features"] for row in rows], np.array([row["score"] for row in rows])
    if np.ptp(scores) == 0:
        raise ValueError(f"{table}: all scores are {scores[0]:g}; add images of different quality.")

    # Random folds, because rows are often sorted by quality.
    folds = dict(zip(images, np.random.default_rng(0).permutation(len(images)) % _FOLDS, strict=True))
    fold = np.array([folds[row["path"]] for row in rows])
    with tqdm(
        total=len(_GRID) * (_FOLDS + 1), desc="brisque-fit: hyperparameters", unit="setting", disable=is_hidden()
    ) as bar:
        predicted = _predict_unseen(features, scores, fold, partial(_choose_setting, bar=bar))
        setting = _choose_setting(features, scores, fold, bar)
    brisque.Brisque(
        np.concatenate(features), np.repeat(scores, [len(image_rows) for image_rows in features]), setting
    ).save(target)

    rank = linear = math.nan
    if np.ptp(predicted) > 0:
        rank, linear = spearmanr(predicted, scores).statistic, pearsonr(predicted, scores).statistic
    rmse = math.sqrt(np.mean((predicted - scores) ** 2))
    print(f"Wrote {target}: {len(rows)} scores of {len(images)} images, {sum(map(len, features))} slices")
    print(f"  chosen: {', '.join(f'{key} {value:g}' for key, value in setting.items())}")
    print(
        f"  images not seen: Spearman {rank:.3f}, Pearson {linear:.3f}, RMSE {rmse:.3g} (scores: mean "
        f"{scores.mean():.3g}, standard deviation {scores.std():.3g})"
    )
    if not rank >= _POOR:
        print(
            f"warning: it does not predict these scores well (Spearman below {_POOR}). Do not compare images by it. "
            "Score more images, of the kind and range of quality that it will be used on.",
            file=sys.stderr,
        )
    if len(images) < _FEW:
        few = f"warning: {len(images)} images are few (below {_FEW}), so the figures above are rough; score more."
        print(few, file=sys.stderr)


def _read_rows(csv: Path) -> tuple[list[dict], list[tuple[int, str]]]:
    """The rows of a CSV that can be read, and the line and the fault of each other one."""
    if not csv.is_file():
        raise FileNotFoundError(f"--csv {csv}: there is no such file; expected a table with the header image,score.")
    rows, bad = [], []
    try:
        # utf-8-sig, because spreadsheets begin their files with a byte order mark.
        with csv.open(newline="", encoding="utf-8-sig") as file:
            reader = DictReader(file)
            header = [name.strip() for name in reader.fieldnames or ()]
            if sorted(header) not in (["image", "score"], ["image", "score", "slice"]):
                raise ValueError(f"its header is '{','.join(header)}', expected image,score or image,score,slice.")
            reader.fieldnames = header
            for cells in reader:
                line = reader.line_num
                if None in cells or None in cells.values():
                    bad.append((line, f"expected {len(header)} cells, {','.join(header)}."))
                    continue
                row = {"line": line, **{key: cell.strip() for key, cell in cells.items()}}
                if fault := _convert_row(row, csv.parent):
                    bad.append((line, f"{row['image']}: {fault}"))
                else:
                    rows.append(row)
    except (ValueError, CSVError) as error:
        raise ValueError(f"{csv}: {error}") from None
    return rows, bad


def _convert_row(row: dict, folder: Path) -> str | None:
    """Turn the cells of a row into a path, a number and an index or None. Returns what is wrong, or None."""
    faults = []
    row["path"] = (folder / row["image"]).resolve()
    if not row["path"].is_file():
        faults.append(f"there is no such file in {folder}.")
    elif not row["path"].name.lower().endswith((*EXTENSIONS, *_PICTURES)):
        faults.append(f"expected one of {', '.join((*EXTENSIONS, *_PICTURES))}.")
    try:
        score = float(row["score"])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        faults.append(f"its score is '{row['score']}', expected a finite number.")
    row["score"] = score
    index = row.get("slice", "")
    if index and not (index.isascii() and index.isdigit()):
        faults.append(f"its slice is '{index}', expected a whole number from 0, or nothing.")
    else:
        row["slice"] = int(index) if index else None
    return " ".join(faults) or None


def _read_scored_image(path: Path) -> np.ndarray:
    """A scored image as a volume of shape (X, Y, Z), float32, in [0, 1]; a picture is one slice."""
    if path.name.lower().endswith(_PICTURES):
        array = imread(path)
        if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"shape {array.shape} of {array.dtype}, expected a grey picture of 8 or 16 bits; convert it."
            )
        return (array.astype(np.float32) / np.iinfo(array.dtype).max)[..., None]
    image = open_image(path)
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError(f"its voxels are {image.get_data_dtype()}, expected real numbers.")
    array = image.get_fdata(dtype=np.float32)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or not np.isfinite(array).all() or np.ptp(array) == 0:
        what = f"shape {array.shape}" if array.ndim != 3 else "a voxel that is not finite, or all voxels equal"
        raise ValueError(f"{what}, expected a volume (X, Y, Z) of finite voxels that differ.")
    return NormaliseVolumed("image")({"image": MetaTensor(array)})["image"].numpy()


def _select_slices(volume: np.ndarray, index: int | None) -> Sequence[int]:
    """Return the slices that a score applies to."""
    if index is None:
        return brisque.select_slices(volume)
    if index >= volume.shape[-1]:
        raise ValueError(f"its slice is {index}, expected one from 0 to {volume.shape[-1] - 1}.")
    if brisque.find_tissue(volume[..., index]).mean() < brisque.TISSUE:
        raise ValueError(
            f"slice {index} is nearly all air: under {brisque.TISSUE:.0%} of it has {brisque.AIR:.0%} of full scale; "
            "choose another slice."
        )
    return [index]


def _choose_setting(
    features: Sequence[np.ndarray], scores: np.ndarray, fold: np.ndarray, bar: tqdm
) -> dict[str, float]:
    """Return the hyperparameters with the smallest mean square error in cross-validation."""
    errors = []
    for setting in _GRID:
        predicted = _predict_unseen(features, scores, fold, lambda *seen, chosen=setting: chosen)
        errors.append(np.mean((predicted - scores) ** 2))
        bar.update()
    return _GRID[int(np.argmin(errors))]


def _predict_unseen(
    features: Sequence[np.ndarray], scores: np.ndarray, fold: np.ndarray, choose: Callable[..., Mapping[str, float]]
) -> np.ndarray:
    """Predict each row's score, the mean over its slices, by the rows of other folds and a setting chosen by them."""
    predicted = np.empty_like(scores)
    for held_out in np.unique(fold):
        test, train = fold == held_out, fold != held_out
        seen = [image_features for image_features, other in zip(features, train, strict=True) if other]
        repeated = np.repeat(scores[train], [len(image_features) for image_features in seen])
        predict = brisque.fit_regressor(np.concatenate(seen), repeated, choose(seen, scores[train], fold[train]))
        predicted[test] = [
            predict(image_features).mean() for image_features, held in zip(features, test, strict=True) if held
        ]
    return predicted
