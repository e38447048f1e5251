"""Correct slices that alternate in brightness, as in interleaved acquisition."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

from ...geometry.robust import SIGMA_PER_MAD
from ...runtime.errors import Notice

_SMOOTHED = 3  # pixels, standard deviation of a blur against noise and small motion
_TISSUE = 0.1
_PIXELS = 200  # of tissue that three slices have in common
_LEAST = 0.005  # of a slice's brightness; less is invisible
_SURE = 4  # standard errors
_STEPS = 8  # of four slices each
# Steps share slices, so the error of their mean is larger than for independent steps. For independent gains g, a step
# is (g + 3 g + 3 g + g) / 8 with alternating signs.
_SHARED = math.sqrt(64 / 20)


def measure_alternation(volume: torch.Tensor) -> float:
    """Measure how much slices alternate in brightness.

    Each slice is compared with the mean of its two neighbours: the median difference of logarithms over the tissue that
    the three have in common. The result is the median over the slices. Smooth changes of brightness, by anatomy or
    coil, cancel.

    Args:
        volume: ``(1, X, Y, Z)``, about in [0, 1], slices along the last axis.

    Returns:
        Logarithm of an even slice's gain, minus that of an odd one's. 0 if it is uncertain or too small to be seen, or
        if there are fewer than 11 slices.
    """
    slices = ndimage.gaussian_filter(volume[0].float().cpu().numpy(), (_SMOOTHED, _SMOOTHED, 0))
    tissue, logs = slices > _TISSUE, np.log(np.maximum(slices, 1e-3))
    gains = np.full(slices.shape[2], np.nan)
    for k in range(1, slices.shape[2] - 1):
        common = tissue[..., k - 1 : k + 2].all(axis=2)
        if common.sum() >= _PIXELS:
            gains[k] = np.median((logs[..., k] - (logs[..., k - 1] + logs[..., k + 1]) / 2)[common]) / 2
    gains[1::2] *= -1
    # In the mean of two successive gains, the curvature of anatomy along the slices cancels.
    gains = (gains[1:] + gains[:-1]) / 2
    gains = gains[np.isfinite(gains)]
    if len(gains) < _STEPS:
        return 0.0
    middle = float(np.median(gains))
    # Standard error of a median, for a normal distribution.
    deviation = float(np.median(np.abs(gains - np.median(gains)))) * SIGMA_PER_MAD
    error = _SHARED * math.sqrt(math.pi / 2) * deviation / math.sqrt(len(gains))
    return 2 * middle if abs(middle) > max(_LEAST, _SURE * error) else 0.0


class EvenSlicesd(MapTransform):
    """Even out slices that alternate in brightness, as in interleaved acquisition, with a warning.

    Else the alternation, which is not anatomy, would leave bands in thin slices.

    Args:
        keys: of volumes ``(1, X, Y, Z)``, about in [0, 1], whose slices run along the last axis.
        enabled: whether to even out slices.
    """

    def __init__(self, keys: KeysCollection, enabled: bool = True, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        for key in self.key_iterator(data) if self.enabled else ():
            volume = data[key]
            alternation = measure_alternation(volume)
            if alternation:
                warnings.warn(
                    f"{volume.meta.get('filename_or_obj', key)}: slices alternate in brightness by "
                    f"{100 * abs(math.expm1(alternation)):.1f} %, as interleaved acquisition leaves them: evened out.",
                    Notice,
                    stacklevel=2,
                )
                gains = torch.full(
                    volume.shape[3:], math.exp(alternation / 2), dtype=volume.dtype, device=volume.device
                )
                gains[::2] = math.exp(-alternation / 2)
                data[key] = volume * gains
        return data
