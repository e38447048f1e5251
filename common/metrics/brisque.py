"""BRISQUE: image quality without a reference, by a regressor that is fitted to people's scores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.special import gamma as gamma_function

from ..errors import format_call
from ..io.writing import write_atomically
from .volume import Volume, to_array

FORMAT = "mri-sr-bundles brisque 1"  # in every file of a regressor
SETTING = ("C", "gamma", "epsilon")
"""Hyperparameters of a regressor. C and epsilon apply to scores of standard deviation 1."""
AIR = 0.05  # a pixel whose local mean is below this part of full scale is air
TISSUE = 0.05  # a slice counts when at least this part of its pixels is not air
SHORTEST = 14  # pixels per side for the features: the 7x7 window at half size

_SHAPES = np.linspace(0.2, 10, 9801)
_RATIOS = gamma_function(2 / _SHAPES) ** 2 / (gamma_function(1 / _SHAPES) * gamma_function(3 / _SHAPES))
"""E[|x|]^2 / E[x^2] of a generalised Gaussian, which increases with its shape: a lookup table for the shape."""


def _compute_local_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image scaled to 8 bits, its local mean (eq. 5) and its local standard deviation (eq. 6)."""
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype.kind != "f" or not np.isfinite(image).all():
        raise ValueError(
            f"BRISQUE takes 2-D images of finite floats in [0, 1], found {image.shape} of {image.dtype}, or values "
            "that are not finite; give single slices, scaled."
        )
    image = 255 * image.astype(np.float64)

    def filter_mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1, radius=3, mode="nearest")

    mu = filter_mean(image)
    # Rounding leaves a flat region some 1e-11 on either side of zero.
    return image, mu, np.sqrt(np.maximum(filter_mean(image**2) - mu**2, 0))


def compute_mscn(image: np.ndarray) -> np.ndarray:
    """Mean subtracted contrast normalised coefficients: ``(I - mu) / (sigma + 1)``.

    ``mu`` and ``sigma`` are the local mean and standard deviation in a Gaussian window (7x7 pixels, standard deviation
    1). The image is first scaled by 255. Beyond its border the outermost pixels are repeated.

    Args:
        image: floats of shape (H, W), in [0, 1]; brighter pixels (vessels, fat) are taken as they are.

    Returns:
        Coefficients of shape (H, W), around 0.

    Raises:
        ValueError: when the image is not 2-D, or its values are not finite floats.

    Source:
        Huang et al. 2021, eq. 4 to 6; Mittal et al., No-reference image quality assessment in the spatial
        domain, IEEE Transactions on Image Processing 21(12), 2012.
    """
    image, mu, sigma = _compute_local_statistics(image)
    return (image - mu) / (sigma + 1)


def find_tissue(image: np.ndarray) -> np.ndarray:
    """Mask the pixels of an image, as for :func:`compute_mscn`, that are not air: their local mean is 5 % of full
    scale."""
    return _compute_local_statistics(image)[1] >= AIR * 255


def _estimate_shape(samples: np.ndarray, asymmetry: float | np.ndarray = 1.0) -> np.ndarray:
    """The shape of a generalised Gaussian by its moments; ``asymmetry`` is the ratio of its two widths."""
    ratio = np.abs(samples).mean(axis=-1) ** 2 / np.square(samples).mean(axis=-1)
    return np.interp(ratio * (asymmetry**3 + 1) * (asymmetry + 1) / (asymmetry**2 + 1) ** 2, _RATIOS, _SHAPES)


def fit_ggd(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit generalised Gaussian distributions of mean 0 by matching moments: density ``exp(-(|x| / beta)^alpha)``.

    Args:
        samples: shape (..., N), one distribution for each leading index, not all zero.

    Returns:
        ``alpha``, the shape (2 for a Gaussian, 1 for a Laplacian), within [0.2, 10], and the variance.

    Source:
        Mittal et al. 2012, eq. 4 to 6.
    """
    return _estimate_shape(samples), np.square(samples).mean(axis=-1)


def fit_aggd(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit asymmetric generalised Gaussian distributions of mode 0: as :func:`fit_ggd`, with a ``beta`` for each side.

    Returns:
        ``alpha``, as :func:`fit_ggd`; ``eta``, the mean of the fitted distribution; the variances of the left and of
        the right side about 0.

    Source:
        Mittal et al. 2012, eq. 8 to 14; Lasmar et al., Multiscale skewed heavy tailed model for texture analysis, ICIP
        2009.
    """
    squares = np.square(samples)
    # A side without samples has no width.
    variances = [
        (squares * side).sum(axis=-1) / np.maximum(side.sum(axis=-1), 1) for side in (samples < 0, samples > 0)
    ]
    left, right = np.sqrt(variances)
    # The moments are the same for left / right and right / left; the smaller of the two is always finite.
    alpha = _estimate_shape(samples, np.minimum(left, right) / np.maximum(left, right))
    one, two, three = (gamma_function(n / alpha) for n in (1, 2, 3))
    eta = (right - left) * np.sqrt(one / three) * two / one
    return alpha, eta, *variances


def compute_brisque_features(image: np.ndarray) -> np.ndarray:
    """Compute the 36 features of an image: the distributions of MSCN coefficients and of products of neighbours.

    They are taken at full size, then at half size (bicubic, low-passed before sampling). First come alpha and sigma^2
    (:func:`fit_ggd`) of the coefficients, then alpha, eta, sigma_left^2 and sigma_right^2 (:func:`fit_aggd`) of their
    products with the neighbours to the right, below, below right and below left. Air counts too, as in the source.

    Args:
        image: floats of shape (H, W), in [0, 1], at least 14 pixels on each side.

    Raises:
        ValueError: when the image is not 2-D, its values are not finite floats, or it is too small or constant, as a
            slice of air is.

    Source:
        Mittal et al. 2012, table I.
    """
    if min(np.shape(image), default=0) < SHORTEST:
        raise ValueError(
            f"BRISQUE needs at least {SHORTEST} pixels on each side, found shape {np.shape(image)}; give whole slices."
        )
    values: list = []
    for scale in (1, 2):
        if scale == 2:
            size = [-(-n // 2) for n in image.shape]
            full_image = torch.from_numpy(np.asarray(image, np.float64))[None, None]
            half = torch.nn.functional.interpolate(
                full_image, size, mode="bicubic", antialias=True, align_corners=False
            )
            image = half[0, 0].numpy()
        coefficients = compute_mscn(image)
        if np.abs(coefficients).max() < 1e-4:
            raise ValueError("the image is constant (air only?), so BRISQUE has nothing to measure; leave it out.")
        alpha, variance = fit_ggd(coefficients.ravel())
        centre = coefficients[:-1, 1:-1]
        neighbours = (coefficients[:-1, 2:], coefficients[1:, 1:-1], coefficients[1:, 2:], coefficients[1:, :-2])
        products = np.stack([(centre * neighbour).ravel() for neighbour in neighbours])
        values += [[alpha, variance], np.stack(fit_aggd(products), axis=-1).ravel()]
    return np.concatenate(values)


def select_slices(volume: np.ndarray) -> list[int]:
    """The slices of a volume (X, Y, Z) in [0, 1] of which at least 5 % is :func:`find_tissue`; at least one."""
    slices = [z for z in range(volume.shape[-1]) if find_tissue(volume[..., z]).mean() >= TISSUE]
    if not slices:
        raise ValueError(
            f"no slice counts: none of {volume.shape[-1]} has {AIR:.0%} of full scale on {TISSUE:.0%} of its pixels; "
            "the volume is (nearly) all air, or not normalised to [0, 1]."
        )
    return slices


def compute_slice_features(volume: np.ndarray, slices: Iterable[int]) -> np.ndarray:
    """Features of some slices of a volume: shape (slices, 36)."""
    values = []
    for z in slices:
        try:
            values.append(compute_brisque_features(volume[..., z]))
        except ValueError as error:
            raise ValueError(f"slice {z}: {error}") from None
    return np.stack(values)


def fit_regressor(
    features: np.ndarray, scores: np.ndarray, setting: Mapping[str, float]
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a support vector regressor, and return it as a function from features to scores."""
    preprocessing, svm = import_sklearn()
    scaler = preprocessing.MinMaxScaler((-1, 1)).fit(features)
    # C and epsilon are in units of the scores. Scaled scores make them independent of people's scale.
    mean, spread = scores.mean(), scores.std() or 1.0  # a fold may hold one score only
    regressor = svm.SVR(kernel="rbf", **setting).fit(scaler.transform(features), (scores - mean) / spread)
    return lambda others: regressor.predict(scaler.transform(others)) * spread + mean


def import_sklearn():
    """Import scikit-learn's preprocessing and support vector machines. If missing, the error says how to install it."""
    try:
        from sklearn import preprocessing, svm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "BRISQUE: scikit-learn, whose support vector regressor gives the score, is not installed. Install it: "
            "pip install scikit-learn, or with the extra: pip install '.[demo]'."
        ) from error
    return preprocessing, svm


class Brisque:
    """BRISQUE with a regressor of one's own. None is built in, because a score depends on who scored which images.

    :func:`common.commands.brisque_fit.fit_brisque` makes it from scored images, :meth:`load` reads it. The regressor is
    fitted again for each object, so that its file has numbers only, and no code.

    Args:
        features: of the scored slices, shape (N, 36), from :func:`compute_brisque_features`.
        scores: shape (N,), not all equal, any units.
        setting: ``C``, ``gamma`` and ``epsilon`` of the support vector regressor, positive, for features in [-1, 1] and
            scores of standard deviation 1.

    Raises:
        ValueError: when shapes or values differ from these.
        ModuleNotFoundError: when scikit-learn is not installed.

    Source:
        Mittal et al. 2012, section III; Huang et al. 2021, section 3.A.
    """

    def __init__(self, features: np.ndarray, scores: np.ndarray, setting: Mapping[str, float]) -> None:
        if features.ndim != 2 or features.shape[1] != 36 or scores.shape != features.shape[:1]:
            raise ValueError(f"expected features (N, 36) and scores (N,), found {features.shape} and {scores.shape}.")
        if not (np.isfinite(features).all() and np.isfinite(scores).all() and np.ptp(scores) > 0):
            raise ValueError("features and scores must be finite, and the scores not all equal.")
        if setting.keys() != set(SETTING) or not all(0 < value < math.inf for value in setting.values()):
            raise ValueError(f"expected positive {', '.join(SETTING)}, found {dict(setting)}.")
        self._features, self._scores, self._setting = features, scores, dict(setting)
        self._predict = fit_regressor(features, scores, setting)

    def compute_score(self, volume: Volume) -> float:
        """The mean score of a volume's :func:`select_slices`, in the units of the scores that were fitted.

        Args:
            volume: floats of shape (X, Y, Z), singleton axes before it are ignored, normalised to [0, 1]; slices along
                the last axis.

        Raises:
            ValueError: when the volume has another shape, its values are not finite floats, no slice counts, or one
                that counts is too small or constant.
        """
        array = to_array(volume)
        return float(self._predict(compute_slice_features(array, select_slices(array))).mean())

    def save(self, path: str | os.PathLike) -> None:
        """Write the regressor as a NumPy .npz file, whole or not at all; missing folders are made."""
        # Through an open file, because numpy would add .npz to a name without it.
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, format=FORMAT, features=self._features, scores=self._scores, **self._setting)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike) -> Brisque:
        """Read what :meth:`save` wrote.

        Args:
            path: the file. Nothing in it is run: pickles are refused.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is damaged or another program's.
            ModuleNotFoundError: when scikit-learn is not installed.
        """
        advice = f"make it with: {format_call('brisque-fit')} --csv scores.csv --output brisque.npz."
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: there is no such file; {advice}")
        try:
            with np.load(path, allow_pickle=False) as data:
                if str(data["format"]) != FORMAT:
                    raise ValueError(f"its format is '{data['format']}', expected '{FORMAT}'.")
                features, scores = (data[key].astype(np.float64) for key in ("features", "scores"))
                setting = {key: float(data[key]) for key in SETTING}
            return cls(features, scores, setting)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # the kind depends on how the file is damaged
            raise ValueError(f"{path}: no BRISQUE regressor, or a damaged one ({error}); {advice}") from None
