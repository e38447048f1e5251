"""The noise of magnitude images: its estimate, and its effect on a mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import correlate1d, uniform_filter
from scipy.special import gammaincinv
from torch.nn import functional as F

from ..geometry.robust import SIGMA_PER_MAD
from ..geometry.tissue import find_tissue
from ..runtime.memory import move_to_device

_AIR = 0.1  # of the normalised intensity: darker voxels count as air
_WINDOW = 5  # pixels
_REACH = 2  # pixels around a block of zeros that a mask's border may affect
_SHARE = 0.2  # of the windows away from such blocks that must be air; with a tight mask, 0.02 or less are
_LEAST = 0.01  # of all windows, where there are no such blocks; in crops within a body 0.001 or less, in scans 0.07
_QUIET = 0.3  # of the windows in air that are used, the quietest
_STEPS, _STRONG = 256, 16  # table of the bias: values per sigma, and signal in sigmas at its end
_RAYLEIGH = 0.483  # root of the quiet windows' mean square, over sigma, in Rayleigh noise: measured by test_noise.py
# Noise in tissue: windows of wavelet coefficients along each axis, and the percentile of their power.
_DETAILS, _SMOOTHEST = 3, 0.1
# Daubechies' wavelet of 4 taps, low-pass and high-pass; each has the norm 1, so white noise keeps its deviation.
_DB2_LOW = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / 32**0.5
_DB2_HIGH = _DB2_LOW[::-1] * (1, -1, 1, -1)


def compute_tissue_details(values: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal details of a volume along some axes, by the wavelet db2, and a mask of tissue.

    Tissue is where the mean is above Otsu's threshold. In air the noise of magnitude images is smaller, and around a
    stripped skull it is 0.

    Args:
        values: ``(X, Y, Z)``, floats.
        axes: of the wavelet transform. Along these, the number of details is half the number of voxels.

    Returns:
        The details, and a mask of their shape; in a constant volume nothing is tissue.
    """
    # The median in each slice, and the smoothest windows, use these. Replacing one by the other needs new weights.
    means = details = values
    for axis in axes:
        every_second = (slice(None),) * axis + (slice(None, None, 2),)
        means = correlate1d(means, _DB2_LOW, axis=axis)[every_second]
        details = correlate1d(details, _DB2_HIGH, axis=axis)[every_second]
    return details, find_tissue(means)


def estimate_noise_in_tissue(values: np.ndarray) -> float:
    """Estimate the noise in the tissue of a scan, also where air is masked.

    It is taken from the wavelet details in the subband HHH. At the spacing of LR scans most details are anatomy, so the
    smallest are used: the tenth percentile of mean squares over windows of 3x3x3 details, divided by that of white
    noise. The bias of the Rician distribution is not corrected.

    Args:
        values: ``(X, Y, Z)``, any units.

    Returns:
        The standard deviation in the same units; NaN for a constant volume.

    Source:
        Coupe et al., Robust Rician noise estimation for MR images, Medical Image Analysis 2010.
    """
    details, tissue = compute_tissue_details(values, (0, 1, 2))
    power = uniform_filter(details.astype(np.float64) ** 2, _DETAILS)
    # A window that is partly outside of tissue would include air or the edge.
    within = uniform_filter(tissue.astype(np.float64), _DETAILS) > 1 - 1e-6
    if not within.any():
        within = tissue
    if not within.any():
        return math.nan
    count = _DETAILS**3
    white = 2 * gammaincinv(count / 2, _SMOOTHEST) / count  # chi-squared's quantile; scipy.stats takes long to load
    return float(np.sqrt(max(np.quantile(power[within], _SMOOTHEST), 0) / white))


def estimate_noise_in_air(images: torch.Tensor) -> torch.Tensor:
    r"""Estimate the Rician noise of volumes from the air around the object, which has no texture.

    The detail (the image minus its binomial low-pass of 3x3x3) is squared and averaged over windows of 5x5 pixels in
    air. Only the quietest three tenths count, because ghosts spare them. Windows within 2 pixels of a block of zeros,
    which a mask leaves, are ignored. If less than a hundredth of the windows is air, or with such blocks less than a
    fifth of the others, these are dark parts of the object, and there is no estimate.

    Args:
        images: ``(B, 1, X, Y, Z)``, normalised so that tissue is brighter than a tenth.

    Returns:
        Standard deviation of the noise in each channel of the receiver, per image, ``(B,)``. NaN if an image shows no
        air, or only air that was masked or rounded to 0, or has fewer than 7x7x3 voxels.

    Source:
        In air the noise is Rayleigh distributed (Gudbjartsson and Patz, MRM 1995).
    """
    images = images.float()
    if any(n < k + 2 for n, k in zip(images.shape[2:], (_WINDOW, _WINDOW, 1), strict=True)):
        return images.new_full((len(images),), torch.nan)
    # Two means of two give the binomial; its weights as a tensor would need a copy to a GPU.
    means = F.avg_pool3d(F.avg_pool3d(images, 2, stride=1), 2, stride=1)
    inner = images[..., 1:-1, 1:-1, 1:-1]
    window, step = (_WINDOW, _WINDOW, 1), (2, 2, 1)
    power = F.avg_pool3d((inner - means).square_(), window, step).flatten(1)
    away = F.pad(~_are_all_true(images == 0, (3, 3, 3)), (1, 1, *4 * (_REACH,)), value=True)
    in_air = _are_all_true(away, (_WINDOW + 2 * _REACH, _WINDOW + 2 * _REACH, 3), step).flatten(1)
    air = in_air & _are_all_true(means < _AIR, window, step).flatten(1)
    count, most = (mask.sum(dim=1, keepdim=True) for mask in (air, in_air))
    air &= (count > _LEAST * most) & (in_air.all(dim=1, keepdim=True) | (count > _SHARE * most))
    # Sorted and masked; a selection would have to wait for the GPU.
    ordered = power.masked_fill(~air, torch.inf).sort(dim=1).values
    rank = torch.arange(ordered.shape[1], device=images.device)
    quiet = rank < air.sum(dim=1, keepdim=True) * _QUIET
    count = quiet.sum(dim=1)
    # Added in order, because torch.sum adds a part in each thread.
    total = ordered.masked_fill_(~quiet, 0).cumsum(dim=1, dtype=torch.float64)[:, -1]
    mean = (total / count.clamp_min(1)).float()
    return mean.sqrt().div(_RAYLEIGH).masked_fill(count == 0, torch.nan)


def estimate_noise_in_slices(voxels: torch.Tensor) -> float:
    """Standard deviation of the noise of a stack ``(X, Y, Z)``, in air, or in the detail of tissue if there is none."""
    noise = float(estimate_noise_in_air(voxels[None, None])[0])
    if not math.isnan(noise):
        return noise
    details, tissue = compute_tissue_details(voxels.double().cpu().numpy(), (0, 1))
    return float(np.median(np.abs(details[tissue]))) * SIGMA_PER_MAD if tissue.any() else 0.0


def _are_all_true(mask: torch.Tensor, window: Sequence[int], step: Sequence[int] = (1, 1, 1)) -> torch.Tensor:
    """Whether all of each window of ``(B, 1, X, Y, Z)`` is true, axis by axis."""
    for axis, (size, every) in enumerate(zip(window, step, strict=True), start=2):
        mask = mask.unfold(axis, size, every).all(dim=-1)
    return mask


def estimate_noise_levels(scans: Iterable[Mapping[str, torch.Tensor]]) -> list[float]:
    """Noise of each scan, "lr" ``(1, X, Y, Z)``, by :func:`estimate_noise_in_air`; 0, with a warning, if it does not
    show it."""
    levels = [estimate_noise_in_air(scan["lr"][None]).item() for scan in scans]
    unknown = sum(math.isnan(level) for level in levels)
    if unknown:
        warnings.warn(
            f"{unknown} of {len(levels)} LR scans show no air, or only masked air, so their noise is not known and not "
            'learned. If they have noise, give its level: --noise_levels "[0.02]".',
            stacklevel=2,
        )
    return [0.0 if math.isnan(level) else level for level in levels]


def compute_rician_bias(signal: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    r"""The bias that noise adds to the mean of a magnitude image.

    .. math:: \sigma \sqrt{\pi / 2}\; e^{-q / 2} \left[(1 + q) I_0(q / 2) + q I_1(q / 2)\right] - a,
              \qquad q = a^2 / 2 \sigma^2

    Args:
        signal: a, without noise; of negative values, from ringing, the magnitude is used.
        sigma: standard deviation of the noise in each channel, of a shape that broadcasts; 0 is no noise, and values
            between 0 and 1e-4 are raised to 1e-4.

    Source:
        Gudbjartsson and Patz, The Rician distribution of noisy MRI data, MRM 1995, eq. 2.
    """
    positive = sigma.clamp_min(1e-4)
    ratio = signal.abs() / positive
    table = _make_bias_table(signal.device).to(signal.dtype)
    place = (ratio * _STEPS).clamp_max_(len(table) - 1.5)
    left = place.nan_to_num(0.0).int()  # for NaN the result is NaN
    bias = torch.lerp(table[left], table[left + 1], place.sub_(left))
    # The series of the formula for a strong signal.
    inverse = ratio.clamp_(min=1).reciprocal_()
    strong = inverse * (0.5 + inverse.square() / 8)
    return torch.where(inverse * _STRONG > 1, bias, strong) * (positive * (sigma > 0))


@lru_cache(maxsize=8)
def _make_bias_table(device: torch.device) -> torch.Tensor:
    """The bias over sigma for a / sigma from 0 to 16, in a third of the time of Bessel functions."""
    with torch.inference_mode(False):
        ratio = torch.arange(_STEPS * _STRONG + 1, dtype=torch.float64) / _STEPS
        q = ratio.square() / 2
        bessel = (1 + q) * torch.special.i0e(q / 2) + q * torch.special.i1e(q / 2)
        return move_to_device((math.sqrt(math.pi / 2) * bessel - ratio).float(), device)
