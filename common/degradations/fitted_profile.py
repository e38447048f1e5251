"""The profile of a scan's slices, from the scan."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor, affine_to_spacing

from ..geometry.affines import RATIO_ROUNDING, THICK
from ..physics.means import compute_mean_in_order
from .profiles import GaussianProfile

_WIDTHS = np.arange(0.6, 1.41, 0.1)  # in distances of the slices
_TRUST = 0.8  # weight of the estimated width; the rest is the weight of 1, slices that touch
#: Slice thickness over slice distance that is believed of a protocol, and usual in scanners. What lies outside of the
#: first is wrong, such as a thickness in cm.
BELIEVED_WIDTHS, USUAL_WIDTHS = (0.5, 2.0), (0.7, 1.2)
_TISSUE = 0.02
_PAIRS = 100  # of neighbours in tissue, the least for a mean square
# Standard deviation of the widths in parts of a scan, up to which the width is used. Five heads were made thick along
# two axes each, by a profile of width 1. Nine had at most 0.08 and widths of 0.90 to 1.14, the tenth 0.13 and 0.78.
_SURE = 0.1
_SLICES = 10  # fewer hold too little of the anatomy


class FittedProfile:
    r"""Estimate the width of a Gaussian slice profile from a stack of slices.

    The stack is averaged and sampled along an axis in plane, with the slice spacing and a trial width. With the right
    width it is then as coarse along this axis as across the slices. The measure of coarseness is

    .. math:: q = \log \overline{(x_{i+1} - x_i)^2} - \log \overline{(x_{i+2} - x_i)^2},

    in tissue: mean squares of the differences between neighbours, and between voxels two apart. More or stronger edges
    along one axis change both terms alike. The estimate is the width at which q in plane equals q across the slices, on
    the mean over both axes in plane.

    The estimate is too wide if anatomy is smoother across the slices than in plane, and too narrow if planes were
    interpolated, or with much noise. Means of slices that touch, with sharp edges, blur less: they have 0.7 to 0.9. So
    its difference from 1, slices that touch, is reduced by a fifth, and the result is limited to 0.7 to 1.2. It is not
    used if parts of the volume differ.

    Args:
        factors: of the returned profile; those of the axes in plane are 1.

    Source:
        Han et al., ESPRESO, IEEE TMI 2023: the right profile makes degraded planes look like planes across the slices.
        There an adversarial network judges this instead of q.
    """

    def __init__(self, factors: Sequence[float]) -> None:
        self.factors = tuple(factors)

    def estimate_width(self, volume: torch.Tensor) -> tuple[float | None, str]:
        """Full width at half maximum of a volume's profile, in distances of its slices.

        Args:
            volume: ``(B, 1, X, Y, Z)``, about in [0, 1], slices along the last axis. With an affine, the profile is
                measured at the distance of the slices; without, at the last of the factors.

        Returns:
            The width, limited to 0.7 to 1.2, and in words the lowest and highest of parts of the volume, or that the
            width is at a limit. The width is None if it is not sure, and the words say why: there are fewer than 10
            slices or too little tissue, slices are about as thick as pixels are wide, or the parts differ.
        """
        factors = 2 * [float(self.factors[-1])]
        if isinstance(volume, MetaTensor):
            *in_plane, distance = affine_to_spacing(volume.affine.reshape(-1, 4, 4)[0]).tolist()
            factors, volume = [max(1.0, round(distance / pixel, 3)) for pixel in in_plane], volume.as_tensor()
        if volume.shape[4] < _SLICES:
            return None, "the scan is too small to show it"
        if max(factors) * RATIO_ROUNDING < THICK:
            return None, "slices are about as thick as pixels are wide"
        stacks = [(volume.movedim(axis, 3), factor) for axis, factor in zip((2, 3), factors, strict=True)]
        differ = np.array([[_compare_sharpness(*stack, float(width)) for stack in stacks] for width in _WIDTHS])
        if not np.isfinite(differ).all():
            return None, "the scan is too small to show it"
        whole, *parts = (
            1 + _TRUST * (np.interp(0.0, differ[:, [0, 1], each].mean(axis=1), _WIDTHS) - 1)
            for each in ([0, 0], [1, 1], [1, 2], [2, 1], [2, 2])
        )
        found = f"{min(parts):.2f} to {max(parts):.2f} in parts of the scan"
        if np.std(parts, ddof=1) > _SURE:
            return None, found
        width = float(np.clip(whole, *USUAL_WIDTHS))
        return width, found if width == whole else f"{'less' if whole < width else 'more'} is not believed"

    def make_profile(self, width: float | None) -> GaussianProfile:
        """The profile of this width; for None, as wide as the distance of the slices."""
        return GaussianProfile(self.factors, fwhm=width or 1.0)


def make_slice_profile(factors: Sequence[float], fwhm: float | str) -> GaussianProfile | FittedProfile:
    """The slice profile for fine-tuning a network on a scan (``adapt_profile`` in configs).

    Args:
        factors: of the profile.
        fwhm: full width at half maximum, in distances of the slices; ``auto`` estimates it from the scan.
    """
    if fwhm == "auto":
        return FittedProfile(factors)
    if isinstance(fwhm, bool) or not isinstance(fwhm, int | float) or not 0 < fwhm < math.inf:
        raise ValueError(
            f"adapt_profile is {fwhm!r}, expected auto or a positive number: the slice width over the slice distance."
        )
    return GaussianProfile(factors, fwhm=fwhm)


def _compare_sharpness(volume: torch.Tensor, factor: float, width: float) -> list[float]:
    """q across the slices (last axis) minus q along the averaged axis before it; not finite if unknown.

    Of the volume, and of both its halves along the other axis in plane.
    """
    if volume.shape[3] < factor:
        return 3 * [math.nan]
    if factor.is_integer():  # for whole factors, the size must be a multiple
        volume = volume[:, :, :, : int(volume.shape[3] // factor * factor)]
    coarse = GaussianProfile((1, factor, 1), fwhm=width)(volume.flatten(0, 1))
    differences = []
    for part in (coarse, *coarse.tensor_split(2, dim=1)):
        across, along = (_compute_mean_squares(part, part > _TISSUE, axis) for axis in (3, 2))
        differences.append(float((across[0] / across[1]).log() - (along[0] / along[1]).log()))
    return differences


def _compute_mean_squares(volume: torch.Tensor, tissue: torch.Tensor, axis: int) -> list[torch.Tensor]:
    """Mean squares of differences in tissue, between voxels one and two apart; NaN if there are too few."""
    means = []
    for step in (1, 2):
        n = max(volume.shape[axis] - step, 0)
        inside = tissue.narrow(axis, 0, n) & tissue.narrow(axis, volume.shape[axis] - n, n)
        squares = (volume.narrow(axis, volume.shape[axis] - n, n) - volume.narrow(axis, 0, n)).square()[inside]
        means.append(compute_mean_in_order(squares) if len(squares) >= _PAIRS else squares.new_tensor(torch.nan))
    return means
