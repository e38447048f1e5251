"""The noise of magnitude images: how much there is, and what it does to a mean."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import correlate1d
from skimage.filters import threshold_otsu
from torch.nn import functional as F

_AIR = 0.1  # of the normalised intensity: what is darker is taken for air
_WINDOW = 5  # pixels
_REACH = 2  # pixels around a block of zeros, what a mask's border may have a part in
_SHARE = 0.2  # of the windows away from such blocks that must be air; where a mask is tight 0.02 and less look so
_QUIET = 0.3  # of the windows in air, those that count
_STEPS, _STRONG = 256, 16  # of a table of the bias: values for each sigma, and sigmas of the signal where it ends
_RAYLEIGH = 0.483  # the root of their mean square, over sigma, in Rayleigh noise: measured by test_noise.py
# Daubechies' wavelet of 4 taps, low-pass and high-pass; each has the norm 1, so white noise keeps its deviation.
_DB2_LOW = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / 32**0.5
_DB2_HIGH = _DB2_LOW[::-1] * (1, -1, 1, -1)


def tissue_details(values: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The details of a volume that are diagonal in some axes, by the wavelet db2, and where they lie in tissue.

    Tissue is where the mean lies above Otsu's threshold: in air the noise of magnitude images is smaller, and around a
    stripped skull it is 0.

    Args:
        values: ``(X, Y, Z)``, floats.
        axes: along which the details change, half as many of them as voxels.

    Returns:
        The details, and a mask of their shape; in a constant volume nothing is tissue.
    """
    # What estimates noise from these takes the median in each slice or the smoothest windows. The first is for weights
    # that learn a degradation, the second for their ranges: neither can be the other, nor noise_in_air either, without
    # new weights.
    means = details = values
    for axis in axes:
        every_second = (slice(None),) * axis + (slice(None, None, 2),)
        means = correlate1d(means, _DB2_LOW, axis=axis)[every_second]
        details = correlate1d(details, _DB2_HIGH, axis=axis)[every_second]
    # Flat, because scikit-image takes three or four slices for colours.
    return details, means > threshold_otsu(means.ravel())


def noise_in_air(images: torch.Tensor) -> torch.Tensor:
    r"""Estimate the Rician noise of volumes from the air around the object, where no texture is mistaken for it.

    Detail, which a binomial low-pass of 3x3x3 leaves, is squared and averaged over windows of 5x5 pixels that lie in
    air; of these the quietest three tenths count, which ghosts spare. A mask leaves blocks of zeros, at whose border
    tissue is cut off: windows within 2 pixels of one do not count, and where there are any and less than a fifth of the
    others is air, these are the object's dark parts, and nothing is said.

    Args:
        images: ``(B, 1, X, Y, Z)``, normalised so that tissue is brighter than a tenth.

    Returns:
        Of each image the standard deviation of the noise in each channel of the receiver, ``(B,)``; NaN where an image
        shows no air, or only air that was masked or rounded to 0, or has fewer than 7x7x3 voxels.

    Source:
        In air the noise is Rayleigh distributed (Gudbjartsson and Patz, MRM 1995).
    """
    images = images.float()
    if any(n < k + 2 for n, k in zip(images.shape[2:], (_WINDOW, _WINDOW, 1), strict=True)):
        return images.new_full((len(images),), torch.nan)
    # Of the mean of two the mean of two is the binomial; its weights as a tensor would be a copy to a GPU.
    means = F.avg_pool3d(F.avg_pool3d(images, 2, stride=1), 2, stride=1)
    inner = images[..., 1:-1, 1:-1, 1:-1]
    window, step = (_WINDOW, _WINDOW, 1), (2, 2, 1)
    power = F.avg_pool3d((inner - means).square_(), window, step).flatten(1)
    away = F.pad(~_all_true(images == 0, (3, 3, 3)), (1, 1, *4 * (_REACH,)), value=True)
    shown = _all_true(away, (_WINDOW + 2 * _REACH, _WINDOW + 2 * _REACH, 3), step).flatten(1)
    air = shown & _all_true(means < _AIR, window, step).flatten(1)
    air &= shown.all(dim=1, keepdim=True) | (air.sum(dim=1, keepdim=True) > _SHARE * shown.sum(dim=1, keepdim=True))
    # Sorted and masked instead of selected, for which a GPU would be waited for.
    ordered = power.masked_fill(~air, torch.inf).sort(dim=1).values
    rank = torch.arange(ordered.shape[1], device=images.device)
    quiet = rank < air.sum(dim=1, keepdim=True) * _QUIET
    count = quiet.sum(dim=1)
    # Added up in order, as torch.sum adds a part in each thread.
    total = ordered.masked_fill_(~quiet, 0).cumsum(dim=1, dtype=torch.float64)[:, -1]
    mean = (total / count.clamp_min(1)).float()
    return mean.sqrt().div(_RAYLEIGH).masked_fill(count == 0, torch.nan)


def _all_true(mask: torch.Tensor, window: Sequence[int], step: Sequence[int] = (1, 1, 1)) -> torch.Tensor:
    """Whether all of each window is true, of ``(B, 1, X, Y, Z)``: axis by axis a tenth of a pooling's time."""
    for axis, (size, every) in enumerate(zip(window, step, strict=True), start=2):
        count = mask.shape[axis] - size + 1
        before = (slice(None),) * axis
        parts = [(*before, slice(first, first + count, every)) for first in range(size)]
        mask = functools.reduce(torch.logical_and, [mask[part] for part in parts])
    return mask


def noise_levels(scans: Iterable[Mapping[str, torch.Tensor]]) -> list[float]:
    """The noise of each scan (:func:`noise_in_air`), and 0 for one that does not show it, which a warning says.

    Args:
        scans: with a volume ``(1, X, Y, Z)`` each, "lr".
    """
    levels = [noise_in_air(scan["lr"][None]).item() for scan in scans]
    unknown = sum(math.isnan(level) for level in levels)
    if unknown:
        warnings.warn(
            f"{unknown} of {len(levels)} LR scans show no air, or air that was masked, so that their noise is not "
            'known and none is learned from them. Where they have some, say how much: --noise_levels "[0.02]".',
            stacklevel=2,
        )
    return [0.0 if math.isnan(level) else level for level in levels]


def rician_bias(signal: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    r"""What noise adds to the mean of a magnitude image.

    .. math:: \sigma \sqrt{\pi / 2}\; e^{-q / 2} \left[(1 + q) I_0(q / 2) + q I_1(q / 2)\right] - a,
              \qquad q = a^2 / 2 \sigma^2

    Args:
        signal: a without noise; of negative values, as ringing has them, the magnitude counts.
        sigma: standard deviation of the noise in each channel, of a shape that broadcasts; what is less than 1e-4
            counts as that, and 0 as no noise.

    Returns:
        Between 0 and ``sigma sqrt(pi / 2)``, in the signal's shape.

    Source:
        Gudbjartsson and Patz, The Rician distribution of noisy MRI data, MRM 1995, eq. 2.
    """
    positive = sigma.clamp_min(1e-4)
    ratio = signal.abs() / positive
    table = _bias_table(signal.device).to(signal.dtype)
    place = (ratio * _STEPS).clamp_max_(len(table) - 1.5)
    left = place.nan_to_num(0.0).int()  # of NaN the result is NaN
    bias = torch.lerp(table[left], table[left + 1], place.sub_(left))
    # The series of the formula for a strong signal.
    inverse = ratio.clamp_(min=1).reciprocal_()
    strong = inverse * (0.5 + inverse.square() / 8)
    return torch.where(inverse * _STRONG > 1, bias, strong) * (positive * (sigma > 0))


@lru_cache(maxsize=8)
def _bias_table(device: torch.device) -> torch.Tensor:
    """The bias over sigma for a / sigma from 0 to 16, in a third of the time of Bessel functions."""
    with torch.inference_mode(False):
        ratio = torch.arange(_STEPS * _STRONG + 1, dtype=torch.float64) / _STEPS
        q = ratio.square() / 2
        bessel = (1 + q) * torch.special.i0e(q / 2) + q * torch.special.i1e(q / 2)
        return (math.sqrt(math.pi / 2) * bessel - ratio).to(device, torch.float32)
